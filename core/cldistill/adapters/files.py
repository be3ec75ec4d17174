"""Adapter files fitted to a base, and loaded: what ``check`` saw in the header is what the run mounts.

Key formats: diffusers, ai-toolkit, kohya and musubi-tuner, Lightning, DiffSynth, peft, OneTrainer, and LoKr under
each of its prefixes.  Nothing is ever skipped: a file loads with every module that it holds, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.adapters.header import AdapterHeader, ModuleHeader, read_header
from cldistill.adapters.keys import ModuleNames
from cldistill.errors import AdapterFormatError, nearest
from cldistill.storage.files import file_digest
from cldistill.weights import AdapterState, LokrWeights, LoraWeights

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, int]]
"""Module name -> (out_features, in_features)."""
Names = Mapping[str, tuple[str, ...]]  # as `cldistill.records.BaseDescription.adapter_names`

SHOWN = 3
"""Modules quoted in an error; a file of another model is wrong in hundreds."""


@dataclass(frozen=True)
class FitReport:
    """The match of an adapter file with a base: made by `match`, shown by ``check`` and ``inspect``."""

    names: Mapping[str, Mapping[str, int]]
    """Module in the file -> module of the base and its rows; or several, whose rows it holds one after the other."""
    total: int
    """Modules in the file."""
    unknown: tuple[str, ...]
    """Modules of the file that the base does not have."""
    mismatched: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
    """Module -> (its shape in the file, its shape in the base), both ``(out_features, in_features)``."""
    scales: tuple[float, ...]
    ranks: tuple[int, ...]
    left_out: int = 0
    """Tensors of a text encoder's part, which nothing mounts."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules of the base, in the order of the file."""
        return tuple(name for names in self.names.values() for name in names)

    @property
    def covered(self) -> int:
        """Modules that will be mounted."""
        return len(self.names)

    @property
    def fits(self) -> bool:
        """Return whether every module of the file will be mounted."""
        return self.covered == self.total

    def scaled(self, factor: float) -> FitReport:
        """Return the report of the same file mounted at ``factor`` times its strength."""
        return replace(self, scales=tuple(factor * scale for scale in self.scales))

    def __str__(self) -> str:
        """Return e.g. ``840/840 modules, scale 1.0``."""
        low, high = self.scales[0], self.scales[-1]
        scale = f"{low:g}" if low != round(low, 1) else f"{low:.1f}"
        span = f"{scale} to {high:g}" if high != low else scale
        nothing = ", of which those with alpha 0 do nothing" if 0.0 in self.scales else ""
        beside = f"; its text encoder's part ({self.left_out} tensors) is left out" if self.left_out else ""
        return f"{self.covered}/{self.total} modules, scale {span}{nothing}{beside}"


def match(header: AdapterHeader, shapes: Shapes, others: Names | None = None) -> FitReport:
    """Match the file's modules with a base's, by name and shape; never raises for a misfit (see `fit`)."""
    others = others or {}
    lookup = ModuleNames((*shapes, *others))
    names: dict[str, dict[str, int]] = {}
    unknown: list[str] = []
    mismatched: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
    for name, module in header.modules.items():
        found = lookup.resolve(module.raw)
        parts = () if found is None else (found,) if found in shapes else others[found]
        whole = (sum(shapes[part][0] for part in parts), shapes[parts[0]][1]) if parts else (0, 0)
        if found is None:
            unknown.append(name)
        elif whole != module.shape:
            mismatched[found] = (module.shape, whole)
        else:
            names[name] = {part: shapes[part][0] for part in parts}
    return FitReport(
        names, len(header.modules), tuple(unknown), mismatched, header.scales, header.ranks, header.left_out
    )


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter file whose header was read, and whose modules all have their place in a base: made by `fit`."""

    header: AdapterHeader
    report: FitReport


def fit(path: Path, shapes: Shapes, others: Names | None = None) -> FittedAdapter:
    """Match a file with a base's modules (``shapes``), from its header alone.

    Raises:
        AdapterFormatError: see `cldistill.adapters.header.read_header`; or not every module of the file has its place (names
            file, module and both shapes), or a number in it is NaN or infinite.
    """
    header = read_header(path)
    report = match(header, shapes, others)
    _require(header, shapes, report)
    header.require_finite()
    return FittedAdapter(header, report)


def load_adapter(path: Path, shapes: Shapes, others: Names | None = None) -> AdapterState:
    """Load an adapter file under the names of the base's modules; raises `AdapterFormatError` as `fit` does."""
    return load_fitted(fit(path, shapes, others))


def load_fitted(fitted: FittedAdapter) -> AdapterState:
    """Load the weights of a file that was fitted, under the names of the base's modules."""
    from safetensors import safe_open

    header, report = fitted.header, fitted.report
    with safe_open(header.path, framework="pt") as file:
        modules: dict[str, LoraWeights | LokrWeights] = {}
        for name, module in header.modules.items():
            whole = _weights(module, {part: file.get_tensor(key) for part, key in module.keys.items()})
            rows = report.names[name]
            modules |= zip(rows, split_rows(whole, rows.values()) if len(rows) > 1 else [whole], strict=True)
    assert len(modules) == len(report.modules), "two modules of the file were fitted to one of the base"
    return AdapterState(modules, str(header.path), file_digest(header.path))


def _weights(module: ModuleHeader, tensors: Mapping[str, Tensor]) -> LoraWeights | LokrWeights:
    if module.kind == "lora":
        return LoraWeights(tensors["down"], tensors["up"], module.alpha)
    return LokrWeights(_factor(tensors, "lokr_w1"), _factor(tensors, "lokr_w2"), module.scale)


def split_rows(weights: LoraWeights | LokrWeights, rows: Iterable[int]) -> list[LoraWeights | LokrWeights]:
    """Split a module's weights into those of ``rows`` output features each, exactly (`_require` saw that a LoKr can be)."""
    ends = list(accumulate(rows, initial=0))
    if isinstance(weights, LoraWeights):
        return [replace(weights, up=weights.up[start:end]) for start, end in pairwise(ends)]
    inner = weights.w2.shape[0]
    return [replace(weights, w1=weights.w1[start // inner : end // inner]) for start, end in pairwise(ends)]


def _factor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Multiply a decomposed Kronecker factor out, in fp32 as peft does."""
    if name in tensors:
        return tensors[name]
    return tensors[f"{name}_a"].float() @ tensors[f"{name}_b"].float()


def _require(header: AdapterHeader, shapes: Shapes, report: FitReport) -> None:
    where = header.path
    if report.unknown:
        first = report.unknown[0]
        names = ", ".join(map(repr, report.unknown[:SHOWN]))
        raise AdapterFormatError(
            f"{where}: {len(report.unknown)} of {report.total} modules are not in the base, the first: {names}"
            f"{nearest(first, shapes)}. The file ({header.format}) was trained for another model, or adapts its text "
            "encoder; give an adapter that was trained on this base"
        )
    if report.mismatched:
        name, (own, base) = next(iter(report.mismatched.items()))
        raise AdapterFormatError(
            f"{where}: {len(report.mismatched)} of {report.total} modules have another shape than the base's, "
            f"the first: {name!r} is {own[0]} x {own[1]} (out x in) in the file and {base[0]} x {base[1]} in the base. "
            "The file was trained on another size of model; give an adapter that was trained on this base"
        )
    for name, rows in report.names.items():
        if len(rows) > 1 and any(count % header.modules[name].inner_rows for count in rows.values()):
            text = f"{name!r} is a LoKr over {len(rows)} modules of the base; only a plain LoRA can be split among them"
            raise AdapterFormatError(f"{where}: {text}")
    taken = report.modules
    twice = sorted({name for name in taken if taken.count(name) > 1}) if len(set(taken)) < len(taken) else []
    if twice:
        raise AdapterFormatError(f"{where}: several modules of the file are the base's {twice[0]!r}; save each once")
