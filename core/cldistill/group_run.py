"""The measuring run of ``cldistill group``: the manifest's base, prompts and pairs, and the student's slot, nothing else.

Neither teachers nor general instructions are touched: gradients are compared on the pairs, before hours of training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.errors import ManifestError
from cldistill.manifest.checked import STUDENT, CheckedManifest
from cldistill.manifest.models import Targets
from cldistill.progress.stages import Stages

if TYPE_CHECKING:
    from cldistill.training.run import Run


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
    losses = tuple(loss for loss in checked.losses if loss.slot == STUDENT and loss.part.needs.targets)
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
        teachers={effect.name: None for effect in checked.effects},
        observers=(),
        metrics=(),
    )


def measuring_run(checked: CheckedManifest, output: Path, cache: Path, stages: Stages, stop: Callable[[], bool]) -> Run:
    """Assemble the measuring run; see `measuring_manifest`."""
    from cldistill.assemble import assemble

    return assemble(measuring_manifest(checked), output, cache=cache, stages=stages, stop=stop)
