// The sets, in an order of this evaluator's own: neither a set's turn nor a candidate's place favours anybody.
export const study = JSON.parse(document.getElementById("study-data").textContent);

const BYTES = 8;

export function shuffled(items) {
  const left = [...items];
  const found = [];
  while (left.length) found.push(...left.splice(below(left.length), 1));
  return found;
}

function below(limit) {
  // Numbers at the top of the range would favour small remainders.
  const range = 2 ** 32 - (2 ** 32 % limit);
  for (;;) {
    const [drawn] = crypto.getRandomValues(new Uint32Array(1));
    if (drawn < range) return drawn % limit;
  }
}

export function newEvaluator(name) {
  const bytes = crypto.getRandomValues(new Uint8Array(BYTES));
  return {
    evaluator: { name, id: [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("") },
    started: new Date().toISOString(),
    order: shuffled(study.sets.map((set) => set.id)),
    places: Object.fromEntries(study.sets.map((set) => [set.id, shuffled(set.candidates)])),
    answers: {},
    turn: 0,
  };
}

export const setOf = (id) => study.sets.find((set) => set.id === id);

export const pictureOf = (name) => `data:image/webp;base64,${document.getElementById(`picture-${name}`).textContent}`;

export const isComplete = (answers) => study.questions.every((question) => answers?.[question.name]);
