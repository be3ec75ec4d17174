"""A trained run, opened again so that something can be measured in it: its networks as a checkpoint left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cldistill.assemble import assemble
from cldistill.catalogue import Catalogue
from cldistill.errors import CheckpointError, DataError, nearest
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import CheckedManifest
from cldistill.prepare import Rows
from cldistill.progress.stages import Stages
from cldistill.records import STUDENT, Route
from cldistill.training import checkpoint
from cldistill.training.checkpoint import Checkpoint
from cldistill.training.run import Run
from cldistill.training.term_context import TermContext

MANIFEST = "manifest.resolved.yaml"
STREAM = "effect"


@dataclass
class OpenedRun:
    """A run whose slots hold the weights of one of its checkpoints: those in training, not their average."""

    run: Run
    step: int
    """Generator steps that the checkpoint has seen."""
    effects: tuple[str, ...]
    """The effects that can be measured."""
    pairs: int
    """Training pairs that each of them has here."""
    notes: tuple[str, ...] = ()
    """Reservations about the run, shown to the reader of a measurement."""

    def update(self, effect: str, pair: int, copies: int = 1) -> TermContext:
        """Return an update of the student on ``copies`` copies of one training pair.

        Several copies let one call of a network compare as many noise levels.  Effect and pair key all that is drawn.
        """
        run = self.run
        random = run.random.child("opened", effect, pair)
        examples = [run.dataset.pools[effect][pair]] * copies
        batch = run.dataset.collate(Route(STREAM, {effect: 1.0}), examples, str(run.accelerator.device))
        return TermContext.begin(run, self.step, STUDENT, batch, random)


def open_run(
    folder: Path, *, effects: Sequence[str] | int | None = None, pairs: int = 1, step: int | None = None,
    trained: Sequence[str] = (), cache: Path | None = None, stages: Stages | None = None, catalogue: Catalogue | None = None,
) -> OpenedRun:  # fmt: skip
    """Open the run in ``folder`` for measuring; nothing is written there.

    Args:
        folder: What ``cldistill run --output`` wrote.
        effects: Names, or how many (spread evenly over the manifest's list); None: all.
        pairs: Training pairs an effect, spread evenly over those that it has.  Only their targets are sampled, if the
            cache of encodings has not kept them.
        step: Which checkpoint; None: the newest that is whole.
        trained: Slots without which there is nothing to measure.

    Raises:
        CheckpointError: there is no run, or no such checkpoint, in the folder.
        DataError: an effect that the run does not have, or that has too few pairs; a slot that it does not have, or that
            the checkpoint was saved before the first step of.  Said before anything is loaded.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CheckpointError(f"{folder} holds no run ({MANIFEST} is missing): give the --output of a `cldistill run`")
    notes: list[str] = []
    found = _checkpoint(folder / "checkpoints", step, notes)
    checked = _for_measuring(check_manifest(str(manifest), catalogue=catalogue))
    for name in trained:
        _must_be_trained(checked, name, found.step)
    names = _chosen([effect.name for effect in checked.effects if effect.pairs is not None], effects)
    run = assemble(checked, folder, cache=cache, stages=stages, choose=lambda rows: _some(rows, names, pairs))
    for config in run.slot_configs:
        run.slots.load(config.name, found.load(config.name))
    if found.meta.get("manifest") != run.manifest_digest:
        notes.append(
            f"the checkpoint of step {found.step} was saved by another version of cldistill or its manifest, or with other "
            "teachers or pictures than are there now"
        )
    return OpenedRun(run, found.step, tuple(names), pairs, tuple(notes))


def _for_measuring(checked: CheckedManifest) -> CheckedManifest:
    """Leave out whoever would watch, show or evaluate; none of that is part of a run's digest."""
    manifest = checked.manifest.model_copy(update={"samples": None, "evaluate": None, "observers": ()})
    return replace(checked, file=replace(checked.file, manifest=manifest), observers=(), metrics=())


def _must_be_trained(checked: CheckedManifest, name: str, step: int) -> None:
    slots = checked.manifest.slots
    if name not in slots:
        raise DataError(f"the run {checked.manifest.name!r} has no slot {name!r}{nearest(name, slots)}")
    begins = slots[name].from_step
    if step <= begins:
        raise DataError(
            f"at step {step} the slot {name!r} of {checked.manifest.name!r} has not been trained yet (it begins after step "
            f"{begins}): choose a later checkpoint"
        )


def _checkpoint(root: Path, step: int | None, notes: list[str]) -> Checkpoint:
    if step is None:
        found = checkpoint.latest(root, warn=notes.append)
        if found is None:
            raise CheckpointError(f"{root} holds no checkpoint yet")
        return found
    folder = root / f"step-{step:06d}"
    if not folder.is_dir():
        held = sorted(path.name.removeprefix("step-").lstrip("0") for path in root.glob("step-*"))
        raise CheckpointError(f"{root} holds no checkpoint of step {step}; it has {', '.join(held) or 'none'}")
    try:
        found = checkpoint.read(folder)
        found.verify()
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return found


def _chosen(known: Sequence[str], wanted: Sequence[str] | int | None) -> list[str]:
    if wanted is None or isinstance(wanted, int):
        if not known:
            raise DataError("no effect of this run has pairs, on which it could be measured")
        return [known[index] for index in _spread(len(known), len(known) if wanted is None else wanted)]
    for name in wanted:
        if name not in known:
            raise DataError(f"the run has no effect {name!r} with pairs{nearest(name, known)}")
    return list(wanted)


def _some(rows: Rows, names: Sequence[str], pairs: int) -> Rows:
    """Narrow the pools to some pairs of the chosen effects."""
    for name in names:
        if len(rows[name]) < pairs:
            raise DataError(f"the effect {name!r} has {len(rows[name])} pairs, but {pairs} were asked for")
    return {name: [rows[name][i] for i in _spread(len(rows[name]), pairs)] for name in names}


def _spread(length: int, wanted: int) -> list[int]:
    """Return ``wanted`` (at most ``length``) indices, evenly spread: 2 of 20 are 0 and 10."""
    number = min(length, wanted)
    return [index * length // number for index in range(number)]
