"""Public names of ``diffusers_base``, for bases over a folder in the diffusers layout; imports no torch until asked for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cldistill_plugins.diffusers_base.describe import describe_folder, family_names, resolve_targets, weight_bytes
from cldistill_plugins.diffusers_base.flux import ATTENTION, FluxSettings, flux_base, flux_names
from cldistill_plugins.diffusers_base.folder import DiffusersFolder, fingerprint, read_config
from cldistill_plugins.diffusers_base.script import SCRIPT, base_expression, pipeline_script, script_usage
from cldistill_plugins.diffusers_base.settings import (
    DTYPE_BYTES,
    STOCK_SIDE,
    DiffusersSettings,
    Dtype,
    GuidanceMode,
    ModelName,
    Size,
)

if TYPE_CHECKING:
    from cldistill_plugins.diffusers_base.base import DiffusersBase
    from cldistill_plugins.diffusers_base.encoders import Encoders, quiet

__all__ = [
    "ATTENTION", "DTYPE_BYTES", "SCRIPT", "STOCK_SIDE", "DiffusersBase", "DiffusersFolder", "DiffusersSettings", "Dtype",
    "Encoders", "FluxSettings", "GuidanceMode", "ModelName", "Size", "base_expression", "describe_folder", "family_names",
    "fingerprint", "flux_base", "flux_names", "pipeline_script", "quiet", "read_config", "resolve_targets", "script_usage",
    "weight_bytes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name == "DiffusersBase":
        from cldistill_plugins.diffusers_base.base import DiffusersBase

        return DiffusersBase
    if name in ("Encoders", "quiet"):
        from cldistill_plugins.diffusers_base import encoders

        return getattr(encoders, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
