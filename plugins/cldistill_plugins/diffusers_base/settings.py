"""Options that every base over a folder in the diffusers layout has (torch-free)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cldistill.component import Settings, resolve_model
from cldistill_plugins.diffusers_base.folder import DiffusersFolder

STOCK_SIDE = 1024
"""``resolution`` of the families' stock pipelines."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTISED_BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 1 / 64}
"""Of a weight in a block; nf4 keeps a scale of one byte for every 64 of them, int8 and fp8 one for every row."""
Quantised = Literal["int8", "fp8", "nf4"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal[
    "native", "_native_cudnn", "_native_efficient", "_native_flash", "_native_math", "flash", "_flash_3", "flex", "sage",
    "xformers",
]  # fmt: skip
"""diffusers' names; all but ``native`` and those that begin with it need a package of their own."""
Size = tuple[int, int]
"""(width, height) in pixels."""
GuidanceMode = Literal["standard", "rescaled"]


def keep_package(value: object, info: ValidationInfo) -> object:
    """Leave ``package:`` references as they are written, so that an exported header holds no path of one machine."""
    return value if isinstance(value, str) and value.startswith("package:") else resolve_model(value, info)


ModelName = Annotated[str, BeforeValidator(keep_package)]
"""A hub id, a folder in the diffusers layout, or ``package:<package>/<path>``."""


class DiffusersSettings(Settings):
    """Options of a base; a family gives ``model``, ``targets`` and what differs a default of its own."""

    transformer: ClassVar[str]
    """Class that the model's ``transformer/config.json`` names."""
    parts: ClassVar[tuple[str, ...]] = ("transformer", "vae", "text_encoder", "tokenizer")
    """Subfolders that the family needs."""

    model: ModelName
    """Hub id, folder in the diffusers layout, or ``package:<package>/<path>``."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    resolution: int = Field(default=STOCK_SIDE, ge=32)
    """References and outputs have at most this value squared as their area in pixels (stock: 1024)."""
    dtype: Dtype = "bfloat16"
    """Precision of the frozen weights; below float32 the network runs under autocast."""
    quantise: Quantised | None = None
    """Keep the weights of the blocks in a byte (``int8``, ``fp8``) or half a byte (``nf4``) each, by torchao:
    ``pip install 'cldistill[quantise]'``.  They are decoded to ``dtype`` for each product, so what is saved is memory."""
    attention: Attention | None = None
    """Backend of diffusers' attention; by default torch's own choice.  Those that fetch their code from a hub are left out."""
    compiled: bool = Field(default=False, json_schema_extra={"speed": True})
    """Compile each block by ``torch.compile`` when it is first called: minutes, then fewer and larger kernels.  Teachers are
    mounted at one rank then, over all modules."""
    guidance_scale: float = Field(default=4.0, ge=1.0)
    """Guidance of the teacher inside the DMD losses (``w`` of ``u + w (c - u)``)."""
    guidance_mode: GuidanceMode = "standard"
    target_guidance_scale: float = Field(default=4.0, ge=1.0)
    """Guidance with which a teacher is sampled for targets and grids."""
    target_guidance_mode: GuidanceMode = "standard"
    targets: tuple[str, ...]
    """Modules that a slot adapts: full names, or endings such as ``to_q``."""

    @property
    def folder(self) -> DiffusersFolder:
        """The model's folder; the plugin that defines the settings ships ``configs/`` of the family's hub ids."""
        package = type(self).__module__.rpartition(".")[0]
        return DiffusersFolder(self.model, self.revision, self.transformer, self.parts, package)

    @field_validator("targets")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one module; leave `targets` out for the family's own")
        return value
