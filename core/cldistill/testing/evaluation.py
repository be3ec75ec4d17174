"""A small evaluation folder with drawn pictures: what a report or a blind study is made from, without any model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps, ImageStat
from PIL.Image import Image, Resampling

from cldistill.storage.untrusted import file_stem
from cldistill.testing.pictures import picture

EFFECTS: Mapping[str, tuple[str, bool, Callable[[Image], Image]]] = {
    "ink": ("draw it with ink", False, lambda p: ImageOps.autocontrast(p.convert("L").filter(ImageFilter.FIND_EDGES))),
    "old-photo": ("apply the style", False, lambda p: ImageOps.colorize(p.convert("L"), "#2b1a0b", "#f6e3c0")),
    "poster": ("apply the style", False, lambda p: ImageOps.posterize(p, 2)),
    "negative": ("turn day into night", False, ImageOps.invert),
    "mirror": ("mirror it", False, ImageOps.mirror),
    "oil-paint": (
        'oil painting, "thick" <strokes> & knife\'s edge',
        True,
        lambda p: p.filter(ImageFilter.ModeFilter(7)),
    ),
    "vivid": ("vivid colours", True, lambda p: ImageEnhance.Color(p).enhance(2.5)),
    "grey": ("black and white", False, lambda p: p.convert("L")),
}
"""``{name: (prompt, stochastic, what it does)}``."""
METRICS = {
    "bcr": {"title": "bad cases", "better": "lower", "component": "bad-cases", "percent": True},
    "truth_distance": {"title": "distance to the truth", "better": "lower", "component": "distance", "percent": False},
    "detail": {"title": "high-frequency energy", "better": None, "component": "detail", "percent": False},
}  # fmt: skip
FAMILIES = ("blurred", "another-effect", "unchanged")
"""Kinds of bad output, whose names a metric may give to bad cases."""


def scene(seed: int, size: int) -> Image:
    """Draw a landscape with a sun and a house, ``size`` x ``size``; every seed another one."""
    dice = random.Random(seed)
    made = picture(seed, (size, size))
    draw = ImageDraw.Draw(made)

    def colour() -> tuple[int, int, int]:
        return dice.randrange(256), dice.randrange(256), dice.randrange(256)

    x, y, r = (dice.uniform(0.15, 0.75) * size for _ in range(3))
    draw.ellipse((x - r / 4, y / 2 - r / 4, x + r / 4, y / 2 + r / 4), fill=colour())
    draw.polygon(((0, size), (0, size * 0.7), (x, size * 0.55), (size, size * 0.75), (size, size)), fill=colour())
    draw.rectangle((size - x, size * 0.55, size - x + size / 4, size * 0.85), fill=colour(), outline="black", width=2)
    return made


def write_evaluation(
    folder: Path,
    effects: Sequence[str] = tuple(EFFECTS),
    systems: Sequence[str] = ("base", "ours"),
    pictures: int = 3,
    size: int = 64,
    failing: float = 0.25,
    **changes: Any,
) -> Path:
    """Write ``report.json`` and ``pictures/`` as ``cldistill eval`` does; ``changes`` replace top-level keys.

    Effects beyond `EFFECTS` (any other name) do what one of those does.  A share ``failing`` of the outputs is bad:
    blurred, another effect's, or the source itself.
    """
    keys = [f"scene-{index}" for index in range(pictures)]
    scenes = {key: scene(index, size) for index, key in enumerate(keys)}
    for key, shown in scenes.items():
        _save(shown, folder / "pictures" / "source" / f"{key}.webp")
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    failures: dict[str, dict[str, dict[str, str]]] = {}
    for place, effect in enumerate(effects):
        truths = {key: _effect(effect, place)[2](shown).convert("RGB") for key, shown in scenes.items()}
        for key, truth in truths.items():
            _save(truth, folder / "pictures" / "truth" / file_stem(effect) / f"{key}.webp")
        for rank, system in enumerate(systems):
            dice = random.Random(f"{effect}/{system}")
            rows = values.setdefault(system, {}).setdefault(effect, {name: [] for name in METRICS})
            for key, shown in scenes.items():
                family = dice.choice(FAMILIES) if dice.random() < failing / (rank + 1) else None
                made = _made(family, shown, truths[key], dice)
                _save(made, folder / "pictures" / system / file_stem(effect) / f"{key}.webp")
                rows["bcr"].append(float(family is not None))
                rows["truth_distance"].append(_distance(made, truths[key]))
                rows["detail"].append(_detail(made) / max(_detail(truths[key]), 1e-6))
                if family is not None:
                    failures.setdefault(system, {}).setdefault(effect, {})[key] = family
    report = _report(effects, systems, keys, values) | {"failures": failures} | changes
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return folder


def _effect(name: str, place: int) -> tuple[str, bool, Callable[[Image], Image]]:
    return EFFECTS.get(name) or list(EFFECTS.values())[place % len(EFFECTS)]


def _save(shown: Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.save(path, lossless=True, method=0)


def _made(family: str | None, source: Image, truth: Image, dice: random.Random) -> Image:
    if family == "blurred":
        return truth.filter(ImageFilter.GaussianBlur(3))
    if family == "another-effect":
        return _effect(dice.choice(list(EFFECTS)), 0)[2](source).convert("RGB")
    if family == "unchanged":
        return source
    small = truth.resize((max(truth.width * 3 // 4, 1), max(truth.height * 3 // 4, 1)), Resampling.LANCZOS)
    return ImageEnhance.Brightness(small.resize(truth.size)).enhance(dice.uniform(0.9, 1.1))


def _distance(one: Image, other: Image) -> float:
    return fmean(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 255


def _detail(shown: Image) -> float:
    return fmean(ImageStat.Stat(shown.filter(ImageFilter.FIND_EDGES)).mean) / 255


def _interval(values: Sequence[float]) -> dict[str, Any]:
    """Bootstrap a mean over ``values``; 95 %."""
    dice = random.Random(0)
    drawn = sorted(fmean(dice.choices(values, k=len(values))) for _ in range(200))
    return {"mean": fmean(values), "low": drawn[5], "high": drawn[194], "n": len(values)}


def _report(
    effects: Sequence[str], systems: Sequence[str], keys: Sequence[str], values: Mapping[str, Any]
) -> dict[str, Any]:
    summary = {
        system: {m: _interval([v for e in effects for v in values[system][e][m]]) for m in METRICS}
        for system in systems
    }
    first, last = summary[systems[0]], summary[systems[-1]]
    return {
        "format": 1, "name": "drawn scenes", "created": "2026-10-08T12:00:00+00:00",
        "command": "cldistill eval drawn.yaml --output evaluation", "seed": 0,
        "versions": {"cldistill": "0.1.0", "torch": "2.9.0"},
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11.9", "platform": "Linux"},
        "effects": [
            {
                "name": name, "prompt": _effect(name, i)[0], "student_prompt": f"zq{i}x {_effect(name, i)[0]}",
                "trigger": f"zq{i}x", "stochastic": _effect(name, i)[1],
            }
            for i, name in enumerate(effects)
        ],
        "pictures": list(keys),
        "systems": [
            {"name": name, "title": name.capitalize(), "evaluations": 80 // 10**bool(i), "steps": 40 // 5 ** bool(i)}
            for i, name in enumerate(systems)
        ],
        "metrics": METRICS,
        "not_measured": [{"component": "a-judge", "reason": "its weights are not on this machine"}],
        "values": values, "general": {"items": []}, "summary": summary,
        "per_effect": {
            s: {e: {m: _interval(values[s][e][m]) for m in METRICS} for e in effects} for s in systems
        },
        "floors": {"bcr": {"mean": 0.01, "low": 0.0, "high": 0.02, "n": 100}},
        "comparisons": [
            {
                "a": systems[-1], "b": systems[0], "metric": m, "effects": len(effects), "n": first[m]["n"],
                "mean": last[m]["mean"] - first[m]["mean"], "low": last[m]["low"] - first[m]["high"],
                "high": last[m]["high"] - first[m]["low"], "clear": m == "bcr",
            }
            for m in METRICS
        ],
        "not_run": [{"what": "180 effects", "why": "one night on two cores", "cost": "about 9 h"}],
        "curves": [
            {
                "title": "Bad cases while training", "x": "generator steps", "y": "bad cases",
                "lines": [
                    {"name": name, "points": [[x, 0.9 / (1 + x / (100 + 60 * i))] for x in range(0, 601, 50)]}
                    for i, name in enumerate(systems)
                ],
            }
        ],
    }  # fmt: skip
