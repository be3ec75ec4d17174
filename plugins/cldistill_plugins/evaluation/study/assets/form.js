// One set on the screen: its pictures, and the questions about it.
import { pictureOf, setOf, study } from "cldistill/deck";

const form = document.getElementById("answers");

export function showSet(state) {
  const set = setOf(state.order[state.turn]);
  const places = state.places[set.id];
  document.getElementById("ask-title").textContent = `Set ${state.turn + 1} of ${study.sets.length}`;
  document.getElementById("instruction").textContent = `“${set.instruction}”`;
  document.getElementById("source").src = pictureOf(set.id);
  document.getElementById("example").hidden = !set.example;
  for (const side of set.example ? ["before", "after"] : []) {
    document.getElementById(side).src = pictureOf(`${set.id}-${side}`);
  }
  for (const [place, image] of document.querySelectorAll("#candidates img").entries()) image.src = pictureOf(places[place]);
  const answers = state.answers[set.id] ?? {};
  for (const question of study.questions) {
    for (const [place, input] of form.querySelectorAll(`[name="${question.name}"]`).entries()) {
      input.value = places[place];
      input.checked = answers[question.name] === input.value;
    }
  }
  markMissing([]);
}

export function markMissing(names) {
  for (const field of form.querySelectorAll("fieldset")) {
    field.classList.toggle("missing", names.includes(field.dataset.question));
  }
}

// A letter answers the question that has the focus, else the first that is still open.
export function answerByLetter(letter, answers) {
  const focused = document.activeElement?.closest("fieldset")?.dataset.question;
  const open = study.questions.map((question) => question.name).find((name) => !answers?.[name]);
  const name = focused ?? open;
  const input = name && form.querySelector(`[name="${name}"][data-letter="${letter}"]`);
  if (!input) return false;
  input.click();
  document.activeElement.blur();
  return true;
}
