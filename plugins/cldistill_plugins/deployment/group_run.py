"""The run of a manifest in which the interference of its effects is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cldistill.errors import ManifestError
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.models import Targets
from cldistill.progress.stages import Stages
from cldistill.records import STUDENT, EffectInfo, Route
from cldistill.training.run import Run
from cldistill.training.term_context import TermContext

STREAM = "effect"


def _nowhere(share: float) -> None:
    """Show nothing."""


@dataclass
class GroupRequest:
    """Effects to split and the run to measure them in: made by `cldistill group`, used by `LeastInterference`.

    ``assemble`` loads the base: it is called once, by the first who needs the run.
    """

    effects: Sequence[EffectInfo]
    groups: int
    assemble: Callable[[], Run]
    advance: Callable[[float], None] = _nowhere
    _run: Run | None = field(default=None, init=False, repr=False)

    def run(self) -> Run:
        """Return the measuring run."""
        if self._run is None:
            self._run = self.assemble()
        return self._run

    def update(self, effect: str, draw: int) -> TermContext:
        """Return an update that trains the student on ``batch_size`` pairs of one effect, keyed by effect and draw."""
        run = self.run()
        random = run.random.child("group", effect, draw)
        batch = run.dataset.draw(Route(STREAM, {effect: 1.0}), random.child("batch"), run.batch_size)
        return TermContext.begin(run, 0, STUDENT, batch, random)


def measuring_manifest(checked: CheckedManifest) -> CheckedManifest:
    """Cut a checked manifest down to what gradients are measured with; the after-pictures are the targets.

    Raises:
        ManifestError: an effect has no pairs, no slot is called ``student``, or no loss uses targets.
    """
    file, manifest = checked.file, checked.manifest
    for index, effect in enumerate(checked.effects):
        if effect.pairs is None:
            raise ManifestError(
                f"{file.where('effects', index)}: {effect.name!r} has no pairs, on which gradients are measured; give it "
                "`pairs:`, or group by an evaluation (--option evaluation=FOLDER)"
            )
    if STUDENT not in manifest.slots:
        raise ManifestError(
            f"{file.where('slots')}: gradients are measured in the slot {STUDENT!r}, which is not there"
        )
    losses = tuple(loss for loss in checked.losses if loss.slot == STUDENT and loss.loss.needs.targets)
    if not losses:
        raise ManifestError(
            f"{file.where('losses')}: no loss of the student uses targets, so there is nothing that effects could "
            "disagree on; add flow matching on the target (ta-fm)"
        )
    reduced = manifest.model_copy(
        update={
            "general": None, "targets": Targets.model_validate({"from": "pair"}), "samples": None, "evaluate": None,
            "slots": {STUDENT: manifest.slots[STUDENT]},
        }
    )  # fmt: skip
    return replace(
        checked,
        file=replace(file, manifest=reduced),
        losses=losses,
        slots={STUDENT: checked.slots[STUDENT]},
        teachers={effect.name: None for effect in checked.effects},
        observers=(),
        metrics=(),
    )


def measuring_run(checked: CheckedManifest, output: Path, cache: Path, stages: Stages, stop: Callable[[], bool]) -> Run:
    """Assemble the measuring run; see `measuring_manifest`."""
    from cldistill.assemble import assemble

    return assemble(measuring_manifest(checked), output, cache=cache, stages=stages, stop=stop)
