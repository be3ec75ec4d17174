"""An evaluation folder as it is read: ``report.json``, checked, and the pictures that lie beside it.

```
FOLDER/report.json
FOLDER/pictures/source/<key>.webp              what was edited (of the general pool: source/general/<key>.webp)
FOLDER/pictures/truth/<effect>/<key>.webp      a true output, where one is known
FOLDER/pictures/<system>/<effect>/<key>.webp   what a system made of it
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cldistill.errors import DataError, UnsafePathError
from cldistill.manifest.messages import first_problem
from cldistill.records import GENERAL, HELD_PAIRS
from cldistill.storage.untrusted import file_stem, leads_out, plain

FORMAT = 1
SOURCE, TRUTH = "source", "truth"


class _ReportPart(BaseModel):
    """Keys that a later writer adds are no reason to refuse a report."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class IntervalEntry(_ReportPart):
    """A mean with its bootstrap interval over ``n`` pictures; ``None`` where nothing could be measured."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


class EffectRow(_ReportPart):
    """One effect of the evaluated bank."""

    name: str
    prompt: str = ""
    student_prompt: str = ""
    trigger: str = ""
    stochastic: bool | None = None


class SystemRow(_ReportPart):
    """One system: a row of the paper's tables."""

    name: str
    title: str = ""
    evaluations: int | None = None
    steps: int | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """The name for people."""
        return self.title or self.name


class MetricRow(_ReportPart):
    """One metric: a column of the tables."""

    title: str
    better: Literal["lower", "higher"] | None = None
    component: str = ""
    percent: bool = False


class NotMeasuredRow(_ReportPart):
    """A metric that the manifest asked for and that could not look."""

    component: str
    reason: str


class NotRunRow(_ReportPart):
    """Something that the recipe names and nobody ran."""

    what: str
    why: str
    cost: str = ""


class ComparisonEntry(_ReportPart):
    """The paired difference ``a - b`` of one metric, over the effects that both know."""

    a: str
    b: str
    metric: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    effects: int | Sequence[str] | str = ""
    clear: bool = False
    ratio: IntervalEntry | None = None
    """``a / b`` of the means; its upper bound is ``None`` where ``b`` may be zero."""


class CurveLine(_ReportPart):
    """One line of a curve: points ``(x, y)``."""

    name: str
    points: Sequence[tuple[float, float | None]]


class Curve(_ReportPart):
    """One plot of several lines over a common axis."""

    title: str
    x: str = ""
    y: str = ""
    lines: Sequence[CurveLine]


class GeneralPool(_ReportPart):
    """The pictures of the general pool, in the order of its values, and what was asked of each."""

    items: Sequence[str] = ()
    prompts: Mapping[str, str] = {}


Values = Mapping[str, Mapping[str, Mapping[str, Sequence[float | None]]]]


class Evaluation(_ReportPart):
    """``report.json``: every name in it is one of ``effects``, ``systems``, ``metrics`` and ``pictures``."""

    format: Literal[1]
    name: str
    created: str = ""
    command: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = {}
    machine: Mapping[str, str | int | float | None] = {}
    effects: Sequence[EffectRow]
    pictures: Sequence[str]
    held_pairs: Mapping[str, Sequence[str]] = {}
    """Effect -> its pairs that were held out of training; their pictures stand under the pool ``<effect>/pairs``."""
    systems: Sequence[SystemRow]
    metrics: Mapping[str, MetricRow]
    not_measured: Sequence[NotMeasuredRow] = ()
    values: Values = {}
    """``{system: {effect: {metric: [value a picture]}}}``; the pool ``general`` has its own pictures."""
    general: GeneralPool = Field(default_factory=GeneralPool)
    summary: Mapping[str, Mapping[str, IntervalEntry]] = {}
    per_effect: Mapping[str, Mapping[str, Mapping[str, IntervalEntry]]] = {}
    floors: Mapping[str, IntervalEntry] = {}
    failures: Mapping[str, Mapping[str, Mapping[str, str]]] = {}
    comparisons: Sequence[ComparisonEntry] = ()
    not_run: Sequence[NotRunRow] = ()
    curves: Sequence[Curve] = ()

    @property
    def families(self) -> dict[str, str]:
        """Every family of failures that a metric gave a bad case, with its title for people."""
        found = {name for effects in self.failures.values() for keys in effects.values() for name in keys.values()}
        return {name: name.replace("-", " ").capitalize() for name in sorted(found)}

    def keys_of(self, pool: str) -> Sequence[str]:
        """Return the pictures of an effect, of its held-out pairs or of the general pool, in the order of their values."""
        effect, _, probe = pool.partition("/")
        if probe == HELD_PAIRS:
            return self.held_pairs.get(effect, ())
        return self.general.items if pool == GENERAL else self.pictures


def read_evaluation(folder: Path) -> Evaluation:
    """Read and check the ``report.json`` of an evaluation folder.

    Raises:
        DataError: it is not there, no JSON, of another shape, or its lists do not have one value a picture.
    """
    file = folder / "report.json"
    if not file.is_file():
        raise DataError(f"{folder} is no evaluation folder: it has no report.json. `cldistill eval` makes one.")
    try:
        found = Evaluation.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(_describe(file, error)) from error
    for system, pools in found.values.items():
        for pool, metrics in pools.items():
            for metric, values in metrics.items():
                if len(values) != len(found.keys_of(pool)):
                    raise DataError(
                        f"{file}: values.{system}.{pool}.{metric} has {len(values)} values for "
                        f"{len(found.keys_of(pool))} pictures. Evaluate again; the file was not written as one piece."
                    )
    return found


def _describe(file: Path, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["loc"] == ("format",) or first["type"] == "missing":
        return (
            f"{file}: {first_problem(error)}. This is not a report of `cldistill eval` in format {FORMAT} "
            "(a run whose manifest has no `evaluate:` reports nothing but its own figures)."
        )
    return f"{file}: {first_problem(error)}"


def pool_folder(pool: str) -> Path:
    """Return the folder of an effect's pictures, or of a probe's (``<effect>/<probe>``), inside that of a system."""
    return Path(*map(file_stem, pool.split("/")))


def picture_path(folder: Path, column: str, effect: str, key: str) -> Path:
    """Return where a picture lies; ``column`` is `SOURCE`, `TRUTH` or a system.

    Raises:
        UnsafePathError: the names lead out of the folder, which they can in somebody else's report.
    """
    place = (SOURCE,) if column == SOURCE and effect != GENERAL else (column, pool_folder(effect))
    written = str(Path("pictures", *place, f"{key}.webp"))
    if leads_out(written) or "\0" in written:  # a picture of one's own may have any other name
        raise UnsafePathError(f"{folder}: its report names {written!r:.200}, which is no path inside this folder")
    return plain(folder / written, folder)
