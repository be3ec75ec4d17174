// One evaluator's answers: kept in this browser after every choice, and saved as a file in the end.
import { study } from "cldistill/deck";

const KEY = `cldistill-study-${study.study}`;
const FORMAT = 1;

export function load() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return null; // No storage (a private window): the answers live as long as the page.
  }
}

export function keep(state) {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
    return true;
  } catch {
    return false;
  }
}

export function forget() {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // Nothing was kept.
  }
}

export function download(state) {
  const answers = {
    format: FORMAT, study: study.study, evaluator: state.evaluator, started: state.started,
    saved: new Date().toISOString(), answers: state.answers,
  };
  const url = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], { type: "application/json" }));
  const name = state.evaluator.name.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "") || "evaluator";
  const link = Object.assign(document.createElement("a"), { href: url, download: `answers-${name}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  return link.download;
}
