"""Checks before a weight is read: the systems' files are there and fit the base, and names are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cldistill.adapters.files import fit
from cldistill.errors import CldistillError, ManifestError, nearest
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.messages import show
from cldistill.manifest.models import TEACHER, Evaluate, EvaluatedSystem, NotRun

FILES = (("adapter", "adapter"), ("beside", "with"))
"""Field and key of what a system mounts from files."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The systems that will be evaluated and those that cannot be, made by `enter` and carried out by the evaluator."""

    evaluate: Evaluate
    systems: tuple[EvaluatedSystem, ...]
    not_run: tuple[NotRun, ...]


def enter(checked: CheckedManifest, *, skip_missing: bool = False) -> EvaluationPlan:
    """Return the systems that can be evaluated: those of ``evaluate.systems``, or those that a run measures at its end.

    With ``skip_missing`` a system whose adapter is not there is reported as not run instead of refused.

    Raises:
        ManifestError: no ``evaluate:``, a file that is missing or does not fit the base, or an unknown name.
    """
    evaluate = checked.manifest.evaluate
    if evaluate is None:
        raise ManifestError(
            f"{checked.file.source}: has no `evaluate:`; it says on which pictures, and by which metrics"
        )
    if not evaluate.systems:
        return _default(checked, evaluate)
    systems, not_run, problems = [], list(evaluate.not_run), []
    for index, system in enumerate(evaluate.systems):
        absent = [key for name, key in FILES if isinstance(path := getattr(system, name), Path) and not path.exists()]
        if absent and skip_missing:
            not_run.append(_skipped(system))
            continue
        problems += [line for name, key in FILES for line in _file(checked, index, key, getattr(system, name))]
        systems.append(system)
    problems += _names(checked, evaluate)
    if not systems and not problems:
        problems.append(f"{checked.file.where('evaluate', 'systems')}: none of them can be run yet")
    if problems:
        raise ManifestError("\n".join(problems))
    return EvaluationPlan(evaluate, tuple(systems), tuple(not_run))


def _file(checked: CheckedManifest, index: int, key: str, path: object) -> list[str]:
    """Return what is wrong with one of a system's files."""
    if not isinstance(path, Path):
        return []
    where = checked.file.where("evaluate", "systems", index, key)
    if not path.exists():
        return [
            f"{where}: no such file or folder ({show(str(path))}); train it first, or leave such systems out with "
            "--skip-missing"
        ]
    try:
        fit(path, checked.description.modules, checked.description.adapter_names)
    except CldistillError as error:
        return [f"{where}: {error}"]
    return []


def _names(checked: CheckedManifest, evaluate: Evaluate) -> list[str]:
    """Return what is wrong with the names in ``compare`` and ``stochastic``."""
    systems, effects = [system.name for system in evaluate.systems], [effect.name for effect in checked.effects]
    problems = [
        f"{checked.file.where('evaluate', 'compare', index)}: there is no system {name!r}{nearest(name, systems)}"
        for index, pair in enumerate(evaluate.compare)
        for name in pair
        if name not in systems
    ]
    problems += [
        f"{checked.file.where('evaluate', 'systems', index, 'effects', place)}: there is no effect {name!r}"
        f"{nearest(name, effects)}"
        for index, system in enumerate(evaluate.systems)
        for place, name in enumerate(system.effects or ())
        if name not in effects
    ]
    return problems + [
        f"{checked.file.where('evaluate', 'stochastic', index)}: there is no effect {name!r}{nearest(name, effects)}"
        for index, name in enumerate(evaluate.stochastic or ())
        if name not in effects
    ]


def _skipped(system: EvaluatedSystem) -> NotRun:
    files = [str(path.name) for name, _ in FILES if isinstance(path := getattr(system, name), Path)]
    names = ", ".join(_run_of(path) for name, _ in FILES if isinstance(path := getattr(system, name), Path))
    return NotRun(what=system.title or system.name, why=f"not trained yet: {names or ', '.join(files)}")


def _run_of(path: Path) -> str:
    """Name the run that a collection belongs to: ``runs/x/collection`` is ``x``."""
    return path.parent.name if path.name == "collection" else path.name


def _default(checked: CheckedManifest, evaluate: Evaluate) -> EvaluationPlan:
    """The systems that a run measures; its own student only where it has been trained."""
    student = Path("runs", checked.manifest.name, "collection").absolute()
    if student.exists():
        return EvaluationPlan(evaluate, systems_of_run(checked, evaluate, student), evaluate.not_run)
    why = f"runs/{checked.manifest.name} holds no collection: cldistill run {checked.file.source}"
    not_run = (*evaluate.not_run, NotRun(what=f"student@{checked.manifest.sampler.steps}", why=why))
    return EvaluationPlan(evaluate, systems_of_run(checked, evaluate), not_run)


def systems_of_run(
    checked: CheckedManifest, evaluate: Evaluate, student: Path | None = None
) -> tuple[EvaluatedSystem, ...]:
    """Return base, teachers at their own and at the student's steps, and the student, whose collection is given, last.

    There are no teachers where no effect has one: the bare base is not shown for them.
    """
    few = checked.manifest.sampler.steps
    own = dict.fromkeys((evaluate.teacher_steps, few)) if any(checked.teachers.values()) else {}
    systems = [_system("base", "bare base", None, few)]
    systems += [_system(f"teacher@{n}", f"own LoRAs in {n} steps", TEACHER, n) for n in own]
    if student is not None:
        systems.append(_system(f"student@{few}", f"one LoRA in {few} steps", student, few))
    return tuple(systems)


def _system(name: str, title: str, adapter: Path | str | None, steps: int) -> EvaluatedSystem:
    told = {"name": name, "title": title, "adapter": adapter, "steps": steps}
    return EvaluatedSystem.model_validate(told | {"prompts": "student" if isinstance(adapter, Path) else "teacher"})


def teachers_asked_for(systems: Sequence[EvaluatedSystem], effects: Sequence[str]) -> set[str]:
    """Return those of ``effects`` whose own LoRA some system makes pictures with."""
    asked = [system.effects for system in systems if system.adapter == TEACHER]
    return {name for name in effects if any(only is None or name in only for only in asked)}
