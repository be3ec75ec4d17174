"""Loading adapters as a deployment does: read the file, fit it to the base, mount it; and timing that."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cldistill.adapters.files import load_adapter
from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.catalogue import load_catalogue
from cldistill.collection.index import CollectionIndex
from cldistill.component import RunOutline
from cldistill.protocols import BaseModel
from cldistill.storage.untrusted import file_stem


class Mounts:
    """One base, one place for an adapter; a file is read only if another one is mounted."""

    def __init__(self, base: BaseModel, names: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """``names``: as `cldistill.records.BaseDescription.adapter_names`, for files of the family's own trainers."""
        self._shapes, self._names = linear_shapes(base.backbone), names
        self._slots = AdapterSlots(base.backbone)
        self._slots.add_teacher(base.adapter_targets)  # wrapped once, before anything is timed
        self._mounted: Path | None = None

    def need(self, file: Path) -> float | None:
        """See that ``file`` is mounted; return the seconds that it took, None where it was already."""
        if file == self._mounted:
            return None
        started = time.perf_counter()
        self._slots.mount(load_adapter(file, self._shapes, self._names))
        taken = time.perf_counter() - started
        self._mounted = file
        return taken

    def forget(self) -> None:
        """Empty the place: the next file is read again."""
        self._slots.mount(None)
        self._mounted = None

    def release(self) -> None:
        """Give the backbone back as it was."""
        self._slots.release()


def family_names(index: CollectionIndex, model: str | None) -> Mapping[str, tuple[str, ...]]:
    """Return what files of the family's own trainers call the modules of a collection's base; ``model`` as for `build_base`."""
    component = load_catalogue().get("base_model", index.base_plugin).component
    options = {**index.base_options, **({} if model is None else {"model": model})}
    settings = component.settings.model_validate(options, context={"root": Path.cwd()})
    described = component.needs(settings, RunOutline()).base
    return described.adapter_names if described is not None else {}


def effect_files(
    base: BaseModel, effects: Sequence[str], folder: Path | None, scratch: Path, rank: int
) -> tuple[Mapping[str, Path], int]:
    """Return each effect's own LoRA file, and how many of them are stand-ins.

    ``folder`` may hold ``<effect>.safetensors``.  For an effect without a file one with random numbers is written to
    ``scratch``, of ``rank`` and on all default targets: what a load costs depends on the size and not on the numbers.
    """
    files: dict[str, Path] = {}
    stand_ins = 0
    for name in effects:
        own = folder / f"{file_stem(name)}.safetensors" if folder is not None else None
        if own is not None and own.is_file():
            files[name] = own
            continue
        files[name] = scratch / f"{file_stem(name)}.safetensors"
        save_adapter(files[name], base, random_weights(base, rank, seed=stand_ins), rank, float(rank))
        stand_ins += 1
    return files, stand_ins


def random_weights(base: BaseModel, rank: int, seed: int) -> dict[str, torch.Tensor]:
    """Return ``<module>.lora_A.weight`` ``[rank, in]`` and ``<module>.lora_B.weight`` ``[out, rank]`` of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in base.adapter_targets:
        module = base.backbone.get_submodule(name)
        assert isinstance(module, torch.nn.Linear), "adapters cover linear modules"
        for part, shape in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
            weights[f"{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator)
    return weights
