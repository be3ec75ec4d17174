// The slider moves the edge between before and after; tabs choose the picture, by click or arrow keys.  What the reader has
// chosen stays while further pictures of the same run come in.
let chosen = null, edge = "50", run = null, started = false;
const tabs = () => [...element.querySelectorAll("[role=tab]")];
const place = (slider) => {
  slider.value = edge;
  slider.parentElement.style.setProperty("--at", `${edge}%`);
};
const show = (index) => {
  const all = tabs();
  element.querySelectorAll("[role=tabpanel]").forEach((panel, number) => {
    panel.hidden = number !== index;
    if (number === index) place(panel.querySelector("input"));
  });
  all.forEach((tab, number) => {
    tab.setAttribute("aria-selected", String(number === index));
    tab.tabIndex = number === index ? 0 : -1;
  });
  const list = element.querySelector(".tabs"), tab = all[index];
  if (tab) list.scrollLeft = tab.offsetLeft - (list.clientWidth - tab.offsetWidth) / 2;
};
const choose = (index) => {
  chosen = index;
  show(index);
  tabs()[index].focus();
};
element.addEventListener("input", (event) => {
  if (!event.target.matches(".compare input")) return;
  edge = event.target.value;
  place(event.target);
  chosen ??= [...element.querySelectorAll("[role=tabpanel]")].findIndex((panel) => !panel.hidden);
});
element.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) choose(tabs().indexOf(tab));
});
element.addEventListener("keydown", (event) => {
  const tab = event.target.closest("[role=tab]"), all = tabs(), at = all.indexOf(tab);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (!tab || to === undefined) return;
  event.preventDefault();
  choose((to + all.length) % all.length);
});
watch("value", () => {
  const now = element.querySelector("[data-run]")?.dataset.run;
  const panels = element.querySelectorAll("[role=tabpanel]");
  const began = now !== run, first = panels.length > 0 && !started;
  if (began) [run, chosen] = [now, null];
  started = panels.length > 0;
  // On a phone it lies below what was pressed; the page grows when the first picture comes.
  if ((began || first) && innerWidth <= 820) requestAnimationFrame(() => element.scrollIntoView({ block: "start" }));
  if (panels.length) show(chosen ?? panels.length - 1);
});
