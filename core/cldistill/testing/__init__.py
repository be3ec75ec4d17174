"""A public kit for plugin authors: a tiny base, fake parts, and checks of what each kind of part promises.

* `check_loss_term`, `check_base_model`, `check_teacher_source`, `check_stream_router`, `check_prompt_isolator`,
  `check_metric`, `check_observer`: call one in a test of yours; what it raises says what to change.
* `update_context`: a real update to call a loss term in.  `TinyBase`: a base model that trains in milliseconds.
* `run_manifest`: a whole run on it, from manifest to exported collection, with your part swapped in.
* `catalogue_with`, `plugin_environment`: plugins in a test that are not installed.
* `ChatServer`: an OpenAI-compatible endpoint on loopback, for parts that ask one.

`cldistill.testing.tiny` and `tiny_flux` (imported by their own names) build tiny pipelines of the real classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cldistill.testing.adapters import random_adapter, randomise_slot
    from cldistill.testing.base_model_check import check_base_model
    from cldistill.testing.chat_server import ChatServer, completion
    from cldistill.testing.conformance import ConformanceError, check_component
    from cldistill.testing.contexts import ObservedContext, tiny_batch, tiny_dataset, tiny_run, update_context
    from cldistill.testing.environment import catalogue_with, plugin_environment
    from cldistill.testing.loss_term_check import check_loss_term
    from cldistill.testing.metric_check import check_metric, metric_request
    from cldistill.testing.observer_check import check_observer
    from cldistill.testing.pictures import picture, write_general, write_pairs, write_pictures
    from cldistill.testing.prompt_isolator_check import check_prompt_isolator
    from cldistill.testing.runs import FinishedRun, run_manifest
    from cldistill.testing.stock_check import StockPicture, StockRequest
    from cldistill.testing.stream_router_check import check_stream_router, route_request
    from cldistill.testing.teacher_source_check import check_teacher_source, teacher_request
    from cldistill.testing.tiny_base import TinyBase
    from cldistill.testing.tiny_base_settings import TinyBaseSettings
    from cldistill.testing.tiny_parts import fake_teacher

__all__ = [
    "ChatServer",
    "ConformanceError",
    "FinishedRun",
    "ObservedContext",
    "StockPicture",
    "StockRequest",
    "TinyBase",
    "TinyBaseSettings",
    "catalogue_with",
    "check_base_model",
    "check_component",
    "check_loss_term",
    "check_metric",
    "check_observer",
    "check_prompt_isolator",
    "check_stream_router",
    "check_teacher_source",
    "completion",
    "fake_teacher",
    "metric_request",
    "picture",
    "plugin_environment",
    "random_adapter",
    "randomise_slot",
    "route_request",
    "run_manifest",
    "teacher_request",
    "tiny_batch",
    "tiny_dataset",
    "tiny_run",
    "update_context",
    "write_general",
    "write_pairs",
    "write_pictures",
]

_MODULES = (
    "adapters", "base_model_check", "chat_server", "loss_term_check",
    "metric_check", "observer_check", "prompt_isolator_check", "stock_check", "stream_router_check", "teacher_source_check",
    "conformance", "contexts", "environment", "pictures", "runs", "tiny_base", "tiny_base_settings", "tiny_parts",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` when it is first asked for: ``tiny-base`` must be described without torch."""
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"{__name__}.{module}")).get(name)
            if found is not None and found.__module__ == f"{__name__}.{module}":
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
