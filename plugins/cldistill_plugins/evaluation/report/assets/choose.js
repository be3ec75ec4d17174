// Which cases the viewer lists, and in which order: pure functions of the filters.
import { cases, familyOf, report, valueOf } from "cldistill/store";

const every = report.systems.map((system) => system.name);

export function failuresOf(item, filters) {
  const systems = filters.system ? [filters.system] : every;
  return systems
    .map((system) => ({ system, family: familyOf(system, item) }))
    .filter(({ family }) => family && (!filters.family || family === filters.family));
}

function fits(item, filters) {
  const kind = report.effects[item.effect].stochastic;
  return (
    (!filters.effect || item.effect.split("/")[0] === filters.effect) &&
    (!filters.kind || kind === (filters.kind === "stochastic")) &&
    ((!filters.family && !filters.bad) || failuresOf(item, filters).length > 0)
  );
}

function badness(item, filters) {
  const metric = report.metrics[filters.order];
  const systems = filters.system ? [filters.system] : every;
  const values = systems.map((system) => valueOf(system, item, filters.order)).filter((value) => value !== null);
  if (!values.length) return -Infinity;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return metric.better === "higher" ? -mean : mean;
}

export function choose(filters) {
  const found = cases.filter((item) => fits(item, filters));
  if (filters.order === "report") return found.sort((a, b) => a.effect.localeCompare(b.effect) || a.place - b.place);
  if (filters.order === "failures") {
    const failing = new Map(found.map((item) => [item, failuresOf(item, filters).length]));
    return found.sort((a, b) => failing.get(b) - failing.get(a) || a.order - b.order);
  }
  const score = new Map(found.map((item) => [item, badness(item, filters)]));
  return found.sort((a, b) => score.get(b) - score.get(a) || a.order - b.order);
}
