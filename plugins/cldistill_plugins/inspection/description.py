"""The description that ``cldistill inspect`` shows of an adapter or collection, from its header alone, without torch."""

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
from cldistill.adapters.header import read_header
from cldistill.adapters.hub import pinned
from cldistill.collection.index import read_index
from cldistill.errors import CldistillError, readable
from cldistill.records import BaseDescription

SHOWN_CHARACTERS = 160
"""Longer header values are cut in the table; ``--json`` has them whole."""
SHOWN_MODULES, SHOWN_ROWS = 5, 200
LOOKED_AT = 10_000
KINDS = {"lora": "LoRA", "lokr": "LoKr"}


@dataclass(frozen=True)
class Inspection:
    """An adapter file or collection, described: made by `inspect_file`, shown by `render` or as JSON."""

    record: Mapping[str, Any]
    """Everything as plain data, as ``--json`` gives it."""
    fit: FitReport | None
    """Its fit to the base, where one was named."""

    def to_json(self) -> str:
        """Return everything as JSON text, for scripts."""
        return json.dumps(self.record, indent=2, ensure_ascii=False)


def inspect_file(path: Path, base: BaseDescription | None = None) -> Inspection:
    """Describe an adapter file, a folder that holds one, or a collection, and how it lies on ``base``.

    A file that does not fit the base is described all the same.

    Raises:
        AdapterFormatError: if it is no adapter file that this engine can read.
    """
    header = read_header(Path(path))
    header.require_finite()
    modules = header.modules.values()
    record: dict[str, Any] = {
        "file": pinned(header.path),
        "bytes": header.path.stat().st_size,
        "kind": sorted({module.kind for module in modules}),
        "format": header.format,
        "modules": len(modules),
        "left_out": header.left_out,
        "ranks": list(header.ranks),
        "alphas": sorted({module.alpha for module in modules}),
        "scales": list(header.scales),
        "base": None,
        "effects": [],
        "sampler": {},
        "problem": "",
        "header": dict(header.metadata),
    }
    if "cldistill.effects" in header.metadata:
        try:
            index = read_index(header.path)
            record["effects"] = [asdict(effect) for effect in index.effects]
            record["sampler"] = {
                n: v for n, v in asdict(index.schedule).items() if n != "terminal"
            }  # teachers have one
        except CldistillError as error:
            record["problem"] = str(error)
    fit = None if base is None else match(header, base.modules, base.adapter_names)
    if base is not None and fit is not None:
        record["base"] = {
            "fits": fit.fits,
            "covered": fit.covered,
            "total": fit.total,
            "base_modules": len(base.modules),
            "targets": len(base.targets),
            "covered_targets": len(set(fit.modules) & set(base.targets)),
            "unknown": list(fit.unknown),
            "mismatched": {name: {"file": own, "base": theirs} for name, (own, theirs) in fit.mismatched.items()},
        }
    return Inspection(record, fit)


def render(inspection: Inspection) -> RenderableType:
    """Lay an inspection out for a terminal."""
    record = inspection.record
    parts: list[RenderableType] = [_facts(inspection)]
    if record["effects"]:
        title = f"{len(record['effects'])} effects"
        parts.append(_table(title, ("effect", "trigger", "prompt"), [[*e.values()][:3] for e in record["effects"]]))
    if record["header"]:
        rows = [(_cut(key), _cut(value)) for key, value in sorted(record["header"].items())[:SHOWN_ROWS]]
        parts.append(_table("header", ("key", "value"), rows))
    return Group(*parts)


def _facts(inspection: Inspection) -> Table:
    record, sampler = inspection.record, inspection.record["sampler"]
    rows = [
        ("file", record["file"]),
        ("size", f"{record['bytes'] / 1e6:,.1f} MB"),
        ("kind", " and ".join(KINDS[kind] for kind in record["kind"])),
        ("key format", record["format"]),
        ("modules", str(record["modules"])),
        *([("left out", f"its text encoder's part, {record['left_out']} tensors")] if record["left_out"] else []),
        ("rank", _span(record["ranks"])),
        ("alpha", _span(record["alphas"])),
        ("scale", _span(record["scales"]) + (" (those with alpha 0 do nothing)" if 0.0 in record["scales"] else "")),
    ]
    if inspection.fit is not None:
        rows += _fit_rows(inspection.fit, record["base"])
    if sampler:
        rows.append(("sampler", f"{sampler['steps']} steps, shift {sampler['shift']:g}, stochastic, no guidance"))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(name, escape(readable(text)))
    if record["problem"]:
        table.add_row("[red]problem[/]", escape(record["problem"]))
    return table


def _fit_rows(fit: FitReport, base: Mapping[str, Any]) -> list[tuple[str, str]]:
    verdict = "fits" if fit.fits else "does not fit"
    rows = [("base", f"{verdict}: {fit}; {base['covered_targets']} of the base's {base['targets']} default modules")]
    if fit.unknown:
        more = f" and {len(fit.unknown) - SHOWN_MODULES} more" if len(fit.unknown) > SHOWN_MODULES else ""
        rows.append(("not in the base", ", ".join(fit.unknown[:SHOWN_MODULES]) + more))
    for name, (own, theirs) in list(fit.mismatched.items())[:SHOWN_MODULES]:
        rows.append(("other shape", f"{name}: {own[0]} x {own[1]} in the file, {theirs[0]} x {theirs[1]} in the base"))
    return rows


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(readable(text)) for text in row))
    return table


def _cut(value: str) -> str:
    text = " ".join(value[:LOOKED_AT].split())
    rest = len(text) + max(0, len(value) - LOOKED_AT) - SHOWN_CHARACTERS
    return f"{text[:SHOWN_CHARACTERS]} ... (+{rest} characters)" if rest > 0 else text


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
