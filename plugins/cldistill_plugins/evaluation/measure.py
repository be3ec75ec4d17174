"""Asking the metrics, and keeping what they say: the same pictures are never measured twice by the same metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cldistill.errors import NotMeasured, PluginError, nearest
from cldistill.progress.stages import Stages
from cldistill.records import FLOOR, MetricValues, Ratio
from cldistill.storage.tensors import content_key
from cldistill_plugins.evaluation.fingerprints import Fingerprints
from cldistill_plugins.evaluation.metrics import BuiltMetric, Reasons
from cldistill_plugins.evaluation.picture_store import Pictures
from cldistill_plugins.evaluation.request import EvaluationRequest

Answer = dict[str, dict[str, MetricValues]]
"""System (or `FLOOR`) -> pool -> what one metric found."""


@dataclass(frozen=True)
class Measured:
    """The answers of all metrics, collected by `measure` for the report."""

    answers: Mapping[str, Answer]
    """Component -> its answer, in the manifest's order."""
    not_measured: Reasons


def measure(metrics: Sequence[BuiltMetric], request: EvaluationRequest, stages: Stages) -> Measured:
    """Ask every metric; one that cannot measure after all is left out, with its reason.

    Raises:
        PluginError: a metric's answer is not what it promised.
        Stopped: where ``stages`` can be stopped; what is measured is kept.
    """
    answers: dict[str, Answer] = {}
    reasons: Reasons = {}
    prints = Fingerprints(request)
    for built in metrics:
        try:
            with stages.stage(f"measuring {built.name}", 100) as advance:
                percent = Percent(advance)
                asked = replace(request, identity=built.identity, advance=percent)
                answers[built.name] = found = _Asked(built, asked, prints, percent).answer()
                if not any(found.values()):
                    reasons[built.name] = "it found nothing here that it could measure"
                if percent.asked:  # else it was all there already
                    percent(1.0)
        except NotMeasured as error:
            reasons[built.name] = error.reason
    return Measured(answers, reasons)


class Percent:
    """Turns shares of the work into steps of a progress bar of 100."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._shown = 0
        self.asked = False
        """True where there was anything to do."""

    def __call__(self, share: float) -> None:
        """Show that ``share`` (0 to 1) is done."""
        percent = int(share * 100)
        self._advance(percent - self._shown)
        self._shown = percent


class _Asked:
    """One metric with its request."""

    def __init__(self, built: BuiltMetric, request: EvaluationRequest, prints: Fingerprints, percent: Percent) -> None:
        self.built = built
        self.percent = percent
        self.request = request
        self.prints = prints

    def answer(self) -> Answer:
        """Return the whole answer, from the store as far as it is there."""
        if self.built.cached_by == "itself":
            return _records(_plain(self._ask(self.request.outputs)))
        if self.built.cached_by is None:
            key = content_key("answer", self.built.identity, self.prints.everything(self.request))
            return _records(self.request.values.get(key, lambda: _plain(self._ask(self.request.outputs))))
        return self._by_pool()

    def _by_pool(self) -> Answer:
        """Ask for what is new, a system's pool at a time; the rest was kept."""
        values, outputs = self.request.values, self.request.outputs
        keys = {
            (s, pool): self._key(pool, made.digests) for s, pools in outputs.items() for pool, made in pools.items()
        }
        keys |= {(FLOOR, pool): self._key(pool, (FLOOR,)) for pool in self.request.items}
        kept = values.find_all(keys.values())
        new = {s: {p: made for p, made in pools.items() if keys[s, p] not in kept} for s, pools in outputs.items()}
        new = {system: pools for system, pools in new.items() if pools}
        if new:
            fresh = _plain(self._ask(new))
            places = [(system, pool) for system, pools in new.items() for pool in pools]
            places += [(FLOOR, pool) for pool in dict.fromkeys(pool for _, pool in places)]
            found = {keys[place]: fresh.get(place[0], {}).get(place[1], {}) for place in places}
            values.keep(found)
            kept |= found
        answer: dict[str, dict[str, Any]] = {}
        for (system, pool), key in keys.items():
            if kept.get(key):
                answer.setdefault(system, {})[pool] = kept[key]
        return _records(answer)

    def _key(self, pool: str, digests: Sequence[str]) -> str:
        effect = None if self.built.cached_by == "effects" else pool.partition("/")[0]
        return content_key("values", self.built.identity, self.prints.effects(effect), self.prints.pool(pool), *digests)

    def _ask(self, outputs: Mapping[str, Mapping[str, Pictures]]) -> Mapping[str, Mapping[str, MetricValues]]:
        self.percent.asked = True
        found = self.built.metric(replace(self.request, outputs=outputs))
        for system, pools in found.items():
            for pool, values in pools.items():
                self._check(outputs, system, pool, values)
        return found

    def _check(
        self, outputs: Mapping[str, Mapping[str, Pictures]], system: str, pool: str, values: MetricValues
    ) -> None:
        if pool not in (self.request.items if system == FLOOR else outputs.get(system, {})):
            known: Iterable[str] = outputs.get(system, [*outputs, FLOOR])
            hint = nearest(system if system not in outputs else pool, known)
            raise PluginError(
                f"metric {self.built.name}: gives values for {system!r} on {pool!r}, never asked for{hint}"
            )
        count = len(self.request.items[pool])
        for name, entries in (*values.per_picture.items(), *values.tags.items()):
            if system != FLOOR and len(entries) != count:
                raise PluginError(f"metric {self.built.name}: {name!r} has {len(entries)} values for {count} pictures")


def _plain(found: Mapping[str, Mapping[str, MetricValues]]) -> dict[str, dict[str, Any]]:
    """Turn an answer into plain JSON data."""
    return {system: {pool: asdict(values) for pool, values in pools.items()} for system, pools in found.items()}


def _records(data: Mapping[str, Mapping[str, Any]]) -> Answer:
    return {system: {pool: _record(values) for pool, values in pools.items()} for system, pools in data.items()}


def _record(values: Mapping[str, Any]) -> MetricValues:
    ratios = {name: Ratio(**ratio) for name, ratio in values.get("ratios", {}).items()}
    return MetricValues(values["per_picture"], values["summary"], values["tags"], ratios)
