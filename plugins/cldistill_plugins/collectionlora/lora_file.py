"""``lora-file``: a trained LoRA or LoKr of any common key format is the effect's teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cldistill.adapters.hub import AdapterPath
from cldistill.component import Needs, Settings
from cldistill.protocols import TeacherRequest

if TYPE_CHECKING:
    from cldistill.weights import AdapterState


class LoraFileSettings(Settings):
    """Options of ``lora-file``."""

    path: AdapterPath = Field(
        description="safetensors file, a folder with one, or OWNER/NAME[@REVISION[/FILE]] on the hub"
    )
    scale: float = Field(1.0, gt=0, description="strength: multiplies the scale that the file itself asks for")


def describe_lora_file(settings: LoraFileSettings) -> Needs:
    """Needs a file whose header fits the base."""
    return Needs(adapter=settings.path, adapter_scale=settings.scale)


def digest_of(path: Path, scale: float) -> str:
    """Return the digest of a file's adapter at a strength, without its weights: the file is read once for it."""
    from cldistill.adapters.header import find_file
    from cldistill.storage.files import file_digest
    from cldistill.weights import AdapterState

    return AdapterState({}, str(path), file_digest(find_file(path))).scaled(scale).digest


class LoraFile:
    """Implements `cldistill.protocols.TeacherSource`."""

    def __init__(self, settings: LoraFileSettings, names: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.settings = settings
        self.names = names

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return the file's adapter under the base's module names, every module of the file or an error."""
        from cldistill.adapters.files import load_adapter
        from cldistill.adapters.inject import linear_shapes

        shapes = linear_shapes(request.base.backbone)
        return load_adapter(self.settings.path, shapes, self.names).scaled(self.settings.scale)

    def digest(self) -> str:
        """Return the digest that the adapter has."""
        return digest_of(self.settings.path, self.settings.scale)
