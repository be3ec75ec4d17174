// One case: its pictures side by side, its scores, and two of its columns under the slider.
import { compare } from "cldistill/slider";
import { columns, familyOf, figure, pictureOf, promptOf, report, valueOf } from "cldistill/store";

const grid = document.getElementById("columns");
const [left, right] = [document.getElementById("left"), document.getElementById("right")];
const wanted = new Map([left, right].map((select) => [select, select.value]));
let current = null;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function tag(family, count = 1) {
  return element("span", { className: "tag", textContent: report.families[family] + (count > 1 ? ` × ${count}` : "") });
}

function column({ name, label }) {
  const url = pictureOf(name, current);
  const family = familyOf(name, current);
  const caption = element("figcaption", {}, element("strong", { textContent: label }));
  if (family) caption.append(" ", tag(family));
  const shown = element("img", { src: url, alt: `${label}: ${current.effect}, ${current.key}` });
  const button = element("button", { type: "button", title: `Compare ${label}` }, shown);
  button.dataset.column = name;
  button.addEventListener("click", () => {
    wanted.set(right, name);
    sides();
  });
  return element("figure", {}, button, caption);
}

// What a case has no picture of is not offered: its place takes the source, or the last system that there is.
function settle(select) {
  const there = [...select.options].filter((option) => !(option.disabled = !pictureOf(option.value, current)));
  const found = there.find((option) => option.value === wanted.get(select)) ?? (select === left ? there[0] : there.at(-1));
  if (found) select.value = found.value;
}

function sides() {
  for (const select of [left, right]) settle(select);
  const side = (select) => ({ label: select.selectedOptions[0].textContent, url: pictureOf(select.value, current) });
  compare(side(left), side(right));
  for (const button of grid.querySelectorAll("button")) {
    const pressed = button.dataset.column === left.value || button.dataset.column === right.value;
    button.setAttribute("aria-pressed", String(pressed));
  }
}

// Of the systems that have a picture of the case, and of the metrics that say something about it.
function scores() {
  const asked = report.systems.filter(({ name }) => pictureOf(name, current));
  const known = Object.entries(report.metrics).filter(([metric]) => asked.some(({ name }) => valueOf(name, current, metric) !== null));
  const head = asked.map(({ label }) => element("th", { scope: "col", className: "figure", textContent: label }));
  document.querySelector("#case-scores thead tr").replaceChildren(element("th", { scope: "col", textContent: "Metric" }), ...head);
  const rows = known.map(([metric, about]) =>
    element(
      "tr", {}, element("th", { scope: "row", textContent: about.title }),
      ...asked.map(({ name, label }) => {
        const cell = element("td", { className: "figure", textContent: figure(valueOf(name, current, metric), about) });
        cell.dataset.label = label;
        return cell;
      }),
    ),
  );
  document.querySelector("#case-scores tbody").replaceChildren(...rows);
}

export function stage(item, position, total) {
  current = item;
  const effect = report.effects[item.effect];
  document.getElementById("case-title").textContent = `${item.effect} · ${item.key}`;
  const prompt = promptOf(item);
  const kind = effect.stochastic === null ? "" : ` · ${effect.stochastic ? "stochastic" : "deterministic"}`;
  document.getElementById("case-prompt").textContent = prompt ? `“${prompt}”${kind}` : kind.slice(3);
  document.getElementById("case-place").textContent = `${position + 1} of ${total}`;
  grid.replaceChildren(...columns.filter(({ name }) => pictureOf(name, current)).map(column));
  scores();
  sides();
}

export function compareSystem(name) {
  if (columns.some((column) => column.name === name)) wanted.set(right, name);
}

for (const select of [left, right]) {
  select.addEventListener("change", () => {
    wanted.set(select, select.value);
    sides();
  });
}
