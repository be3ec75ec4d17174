// The course of a study: welcome, one set after the other, thanks.
import { isComplete, newEvaluator, study } from "cldistill/deck";
import { answerByLetter, markMissing, showSet } from "cldistill/form";
import { download, forget, keep, load } from "cldistill/save";
import { isZoomed, zoom } from "cldistill/zoom";

const byId = (id) => document.getElementById(id);
const pages = ["welcome", "ask", "finish"].map(byId);
const form = byId("answers");
let state = load();

const answered = () => study.sets.filter((set) => isComplete(state.answers[set.id])).length;

function open(page) {
  for (const one of pages) one.hidden = one.id !== page;
  byId("progress-line").hidden = page === "welcome";
  scrollTo(0, 0);
  byId(page).querySelector("h1").focus();
}

function progress() {
  byId("progress").value = answered();
  byId("progress-text").textContent = `${answered()} of ${study.sets.length} answered`;
}

function turn(to) {
  state.turn = Math.max(0, Math.min(to, study.sets.length));
  keep(state);
  progress();
  if (state.turn === study.sets.length) return finish();
  showSet(state);
  byId("back").disabled = state.turn === 0;
  open("ask");
}

function finish() {
  const missing = study.sets.length - answered();
  byId("finish-title").textContent = missing ? "Nearly done" : "Thank you";
  byId("finish-text").textContent = missing
    ? `${missing === 1 ? "One set is" : `${missing} sets are`} not answered yet: they are the pale ones below.`
    : "All sets are answered. Save your answers, and give the file to the person who gave you this page.";
  byId("saved").textContent = "";
  byId("overview").replaceChildren(...state.order.map((id, index) => {
    const done = isComplete(state.answers[id]);
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: index + 1 });
    button.className = done ? "done" : "";
    button.setAttribute("aria-label", `Set ${index + 1}, ${done ? "answered" : "not answered"}`);
    button.addEventListener("click", () => turn(index));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  open("finish");
}

form.addEventListener("change", (event) => {
  const id = state.order[state.turn];
  state.answers[id] = { ...state.answers[id], [event.target.name]: event.target.value };
  if (!keep(state)) byId("progress-text").textContent = "This browser keeps nothing: save before you close the page.";
  else progress();
  markMissing([]);
});
form.noValidate = true;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const answers = state.answers[state.order[state.turn]];
  const missing = study.questions.map((question) => question.name).filter((name) => !answers?.[name]);
  if (!missing.length) return turn(state.turn + 1);
  markMissing(missing);
  form.querySelector(`[name="${missing[0]}"]`).focus();
});
byId("back").addEventListener("click", () => turn(state.turn - 1));
byId("return").addEventListener("click", () => turn(study.sets.length - 1));
byId("save").addEventListener("click", () => {
  byId("saved").textContent = `Saved as ${download(state)}.`;
});
byId("restart").addEventListener("click", () => {
  if (!confirm("The answers in this browser are forgotten. Did you save them?")) return;
  forget();
  location.reload();
});
byId("start").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("name").value.trim();
  if (!name) return byId("name").focus();
  state = newEvaluator(name);
  turn(0);
});

addEventListener("keydown", (event) => {
  if (byId("ask").hidden || isZoomed() || event.ctrlKey || event.metaKey || event.altKey) return;
  const inChoices = event.target.matches?.("input");
  const letter = event.key.toUpperCase();
  if (letter.length === 1 && answerByLetter(letter, state.answers[state.order[state.turn]])) event.preventDefault();
  else if (letter === "Z") zoom(0);
  else if (event.key === "ArrowRight" && !inChoices) form.requestSubmit();
  else if (event.key === "ArrowLeft" && !inChoices && state.turn) turn(state.turn - 1);
  else if (event.key === "Enter" && event.target === byId("ask-title")) form.requestSubmit();
});

if (state) turn(state.turn);
else open("welcome");
