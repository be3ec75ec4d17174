// The list of cases (a listbox: arrows, Home, End), its filters, and the buttons that step through it.
import { choose, failuresOf } from "cldistill/choose";
import { compareSystem, stage, tag } from "cldistill/stage";
import { report } from "cldistill/store";

const form = document.getElementById("case-filters");
const list = document.getElementById("cases");
const [previous, next] = [document.getElementById("previous"), document.getElementById("next")];
let chosen = [];
let position = 0;

const filters = () => Object.fromEntries(new FormData(form));

function option(item, index) {
  const made = document.createElement("li");
  made.id = `case-${index}`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", "false");
  const name = document.createElement("strong");
  name.textContent = item.effect;
  made.append(name, item.key);
  const counts = {};
  for (const { family } of failuresOf(item, filters())) counts[family] = (counts[family] ?? 0) + 1;
  if (Object.keys(counts).length) {
    const tags = document.createElement("span");
    tags.className = "tags";
    tags.append(...Object.entries(counts).map(([family, count]) => tag(family, count)));
    made.append(tags);
  }
  return made;
}

function select(index, reveal = true) {
  list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
  position = Math.max(0, Math.min(index, chosen.length - 1));
  document.getElementById("stage").hidden = !chosen.length;
  previous.disabled = position === 0;
  next.disabled = position >= chosen.length - 1;
  if (!chosen.length) return list.removeAttribute("aria-activedescendant");
  const shown = list.children[position];
  shown.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", shown.id);
  if (reveal) revealInList(shown);
  stage(chosen[position], position, chosen.length);
}

// Only the list scrolls: scrollIntoView would move the page as well.
function revealInList(shown) {
  const [top, bottom] = [shown.offsetTop - list.offsetTop, shown.offsetTop - list.offsetTop + shown.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
}

function refresh() {
  chosen = choose(filters());
  list.replaceChildren(...chosen.map(option));
  const total = report.cases.length;
  document.getElementById("case-count").textContent =
    chosen.length === total ? `${total} cases` : `${chosen.length} of ${total} cases`;
  select(0);
}

const KEYS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
list.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  select(position + KEYS[event.key]);
});
list.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) select([...list.children].indexOf(item), false);
});
previous.addEventListener("click", () => select(position - 1));
next.addEventListener("click", () => select(position + 1));
form.addEventListener("input", refresh);
form.addEventListener("reset", () => setTimeout(refresh));
form.addEventListener("submit", (event) => event.preventDefault());

export function show({ effect, system }) {
  form.reset();
  form.elements.effect.value = effect;
  form.elements.system.value = system;
  compareSystem(system);
  refresh();
  document.getElementById("pictures").scrollIntoView();
  list.focus({ preventScroll: true });
}

refresh();
