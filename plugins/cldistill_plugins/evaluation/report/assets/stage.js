// One case: its pictures side by side, its scores, and two of its columns under the slider.
import { compare } from "cldistill/slider";
import { columns, familyOf, figure, pictureOf, promptOf, report, valueOf } from "cldistill/store";

const grid = document.getElementById("columns");
const [left, right] = [document.getElementById("left"), document.getElementById("right")];
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
  const shown = url
    ? element("img", { src: url, alt: `${label}: ${current.effect}, ${current.key}` })
    : element("span", { className: "nothing", textContent: "no picture" });
  const button = element("button", { type: "button", title: `Compare ${label}`, disabled: !url }, shown);
  button.dataset.column = name;
  button.setAttribute("aria-pressed", String(name === left.value || name === right.value));
  button.addEventListener("click", () => {
    right.value = name;
    sides();
  });
  return element("figure", {}, button, caption);
}

function sides() {
  const side = (select) => ({ label: select.selectedOptions[0].textContent, url: pictureOf(select.value, current) });
  compare(side(left), side(right));
  for (const button of grid.querySelectorAll("button")) {
    const pressed = button.dataset.column === left.value || button.dataset.column === right.value;
    button.setAttribute("aria-pressed", String(pressed));
  }
}

function scores() {
  const rows = Object.entries(report.metrics).map(([metric, about]) =>
    element(
      "tr", {}, element("th", { scope: "row", textContent: about.title }),
      ...report.systems.map(({ name }) =>
        element("td", { className: "figure", textContent: figure(valueOf(name, current, metric), about) }),
      ),
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
  grid.replaceChildren(...columns.map(column));
  scores();
  sides();
}

export function compareSystem(name) {
  if (columns.some((column) => column.name === name)) right.value = name;
}

for (const select of [left, right]) select.addEventListener("change", sides);
