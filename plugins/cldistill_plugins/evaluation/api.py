"""Public names of the plugin ``evaluation``, for other built-in plugins and the examples.

A name is imported when it is first asked for: intervals and reports need numpy and pydantic, the evaluator needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cldistill_plugins.evaluation.bootstrap import (
        ONE_PICTURE,
        Interval,
        Resampled,
        mean_interval,
        paired_difference,
        resample,
    )
    from cldistill_plugins.evaluation.check import EvaluationPlan
    from cldistill_plugins.evaluation.compositions import (
        IN_TURN,
        SUMMED,
        TITLES,
        TOGETHER,
        Composed,
        CompositionOrder,
        Pair,
        compose,
    )
    from cldistill_plugins.evaluation.evaluate import evaluate_manifest
    from cldistill_plugins.evaluation.provenance import LIBRARIES, provenance
    from cldistill_plugins.evaluation.report.page import lacking
    from cldistill_plugins.evaluation.report.record import TRUTH, Evaluation, picture_path, read_evaluation
    from cldistill_plugins.evaluation.values import ValueStore

END_OF_RUN = "evaluate"
"""Name of the automatic observer that measures a run at its end."""
__all__ = [
    "END_OF_RUN",
    "IN_TURN",
    "LIBRARIES",
    "ONE_PICTURE",
    "SUMMED",
    "TITLES",
    "TOGETHER",
    "TRUTH",
    "Composed",
    "CompositionOrder",
    "Evaluation",
    "EvaluationPlan",
    "Interval",
    "Pair",
    "Resampled",
    "ValueStore",
    "compose",
    "evaluate_manifest",
    "lacking",
    "mean_interval",
    "paired_difference",
    "picture_path",
    "provenance",
    "read_evaluation",
    "resample",
]

_MODULES = ("values", "provenance", "bootstrap", "report.page", "report.record", "check", "compositions", "evaluate")


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` from the first module that defines it."""
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"cldistill_plugins.evaluation.{module}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
