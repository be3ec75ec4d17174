"""What an adapter or collection is, from its header alone (``cldistill inspect``): no torch, no weights read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cldistill.adapters.files import FitReport, match
from cldistill.adapters.header import AdapterHeader, read_header
from cldistill.collection.index import CollectionEffect, read_index
from cldistill.errors import CollectionError
from cldistill.records import BaseDescription

SHOWN_CHARACTERS = 160
"""Longer header values are cut in the table; ``--json`` has them whole."""
SHOWN_MODULES = 5


@dataclass(frozen=True)
class BaseFit:
    """How a file lies on a base model."""

    report: FitReport
    base_modules: int
    """Linear modules of the base."""
    targets: int
    """Modules that the base adapts by default."""
    covered_targets: int
    """How many of these the file adapts."""


@dataclass(frozen=True)
class Inspection:
    """An adapter file or collection, described."""

    header: AdapterHeader
    file_bytes: int
    fit: BaseFit | None
    effects: tuple[CollectionEffect, ...]
    sampler: Mapping[str, Any]
    """``steps``, ``shift``, ``integer_timesteps``; empty unless it is a collection."""
    problem: str = ""
    """What is wrong with a collection's own header, if something is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """``lora``, ``lokr`` or both."""
        return tuple(sorted({module.kind for module in self.header.modules.values()}))

    @property
    def alphas(self) -> tuple[float, ...]:
        """The different alphas, ascending."""
        return tuple(sorted({module.alpha for module in self.header.modules.values()}))

    def to_json(self) -> str:
        """Return everything as JSON text, for scripts."""
        header = self.header
        record: dict[str, Any] = {
            "file": str(header.path),
            "bytes": self.file_bytes,
            "kind": list(self.kinds),
            "format": header.format,
            "modules": len(header.modules),
            "ranks": list(header.ranks),
            "alphas": list(self.alphas),
            "scales": list(header.scales),
            "base": None if self.fit is None else _fit_json(self.fit),
            "effects": [asdict(effect) for effect in self.effects],
            "sampler": dict(self.sampler),
            "problem": self.problem,
            "header": dict(header.metadata),
        }
        return json.dumps(record, indent=2, ensure_ascii=False)


def inspect_file(path: Path, base: BaseDescription | None = None) -> Inspection:
    """Describe an adapter file, a folder that holds one, or a collection, and how it lies on ``base``.

    A file that does not fit the base is described all the same.

    Raises:
        AdapterFormatError: if it is no adapter file that this engine can read.
    """
    header = read_header(Path(path))
    effects: tuple[CollectionEffect, ...] = ()
    sampler: dict[str, Any] = {}
    problem = ""
    if "cldistill.effects" in header.metadata:
        try:
            index = read_index(header.path)
            effects = index.effects
            sampler = {"steps": index.steps, "shift": index.shift, "integer_timesteps": index.integer_timesteps}
        except CollectionError as error:
            problem = str(error)
    fit = None if base is None else _fit(header, base)
    return Inspection(header, header.path.stat().st_size, fit, effects, sampler, problem)


def render(inspection: Inspection) -> RenderableType:
    """Lay an inspection out for a terminal."""
    parts: list[RenderableType] = [_facts(inspection)]
    if inspection.effects:
        parts.append(_effects(inspection.effects))
    if inspection.header.metadata:
        parts.append(_metadata(inspection.header.metadata))
    return Group(*parts)


def _fit(header: AdapterHeader, base: BaseDescription) -> BaseFit:
    report = match(header, base.modules, len(base.targets))
    covered = set(report.names.values()) & set(base.targets)
    return BaseFit(report, len(base.modules), len(base.targets), len(covered))


def _fit_json(fit: BaseFit) -> dict[str, Any]:
    report = fit.report
    return {
        "fits": report.fits,
        "covered": report.covered,
        "total": report.total,
        "base_modules": fit.base_modules,
        "targets": fit.targets,
        "covered_targets": fit.covered_targets,
        "unknown": list(report.unknown),
        "mismatched": {name: {"file": own, "base": theirs} for name, (own, theirs) in report.mismatched.items()},
    }


def _facts(inspection: Inspection) -> Table:
    header = inspection.header
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("file", escape(str(header.path)))
    table.add_row("size", f"{inspection.file_bytes / 1e6:,.1f} MB")
    table.add_row("kind", " and ".join({"lora": "LoRA", "lokr": "LoKr"}[kind] for kind in inspection.kinds))
    table.add_row("key format", escape(header.format))
    table.add_row("modules", str(len(header.modules)))
    table.add_row("rank", _span(header.ranks))
    table.add_row("alpha", _span(inspection.alphas))
    table.add_row("scale", _span(header.scales))
    if inspection.fit is not None:
        for name, text in _fit_rows(inspection.fit):
            table.add_row(name, escape(text))
    if inspection.sampler:
        steps, shift = inspection.sampler["steps"], inspection.sampler["shift"]
        table.add_row("sampler", f"{steps} steps, shift {shift:g}, stochastic, no guidance")
    if inspection.problem:
        table.add_row("[red]problem[/]", escape(inspection.problem))
    return table


def _fit_rows(fit: BaseFit) -> list[tuple[str, str]]:
    report = fit.report
    verdict = "fits" if report.fits else "does not fit"
    rows = [("base", f"{verdict}: {report}; {fit.covered_targets} of the base's {fit.targets} default modules")]
    if report.unknown:
        more = f" and {len(report.unknown) - SHOWN_MODULES} more" if len(report.unknown) > SHOWN_MODULES else ""
        rows.append(("not in the base", ", ".join(report.unknown[:SHOWN_MODULES]) + more))
    for name, (own, theirs) in list(report.mismatched.items())[:SHOWN_MODULES]:
        rows.append(("other shape", f"{name}: {own[0]} x {own[1]} in the file, {theirs[0]} x {theirs[1]} in the base"))
    return rows


def _effects(effects: Sequence[CollectionEffect]) -> Table:
    table = Table("effect", "trigger", "prompt", title=f"{len(effects)} effects", title_justify="left")
    for effect in effects:
        table.add_row(escape(effect.name), escape(effect.trigger), escape(effect.prompt))
    return table


def _metadata(metadata: Mapping[str, str]) -> Table:
    table = Table("key", "value", title="header", title_justify="left")
    for key, value in sorted(metadata.items()):
        text = " ".join(value.split())
        rest = len(text) - SHOWN_CHARACTERS
        if rest > 0:
            text = f"{text[:SHOWN_CHARACTERS]} ... (+{rest} characters)"
        table.add_row(escape(key), escape(text))
    return table


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
