// What the page holds: names, values and pictures.  A picture is decoded when somebody looks at it, not before.
export const report = JSON.parse(document.getElementById("report-data").textContent);
export const SOURCE = "source";
export const TRUTH = "truth";
export const GENERAL = "general";

export const columns = [
  { name: SOURCE, label: "Source" },
  ...(report.pictures[TRUTH] ? [{ name: TRUTH, label: "Truth" }] : []),
  ...report.systems,
];
export const cases = report.cases.map(([effect, key, place], order) => ({ effect, key, place, order }));

export function pictureOf(column, item) {
  const effect = column === SOURCE && item.effect !== GENERAL ? "" : item.effect;
  const index = report.pictures[column]?.[effect]?.[item.key];
  if (index === undefined) return null;
  return `data:image/webp;base64,${document.getElementById(`picture-${index}`).textContent}`;
}

export const familyOf = (system, item) => report.failures[system]?.[item.effect]?.[item.key] ?? null;

export const promptOf = (item) =>
  (item.effect === GENERAL ? report.general[item.key] : null) ?? report.effects[item.effect].prompt;

export const valueOf = (system, item, metric) => report.values[system]?.[item.effect]?.[metric]?.[item.place] ?? null;

export function figure(value, metric) {
  if (value === null) return "–";
  const text = metric.percent ? `${(100 * value).toFixed(1)} %` : value.toFixed(Math.abs(value) < 100 ? 3 : 1);
  return text.replace("-", "\u2212");
}
