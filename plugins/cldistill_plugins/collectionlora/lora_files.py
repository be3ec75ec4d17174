"""``lora-files``: several adapters with strengths of their own, added up, are the effect's teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from cldistill.adapters.hub import AdapterPath
from cldistill.component import Needs, RunOutline, Settings
from cldistill.errors import AdapterFormatError
from cldistill.protocols import TeacherRequest
from cldistill_plugins.collectionlora.lora_file import digest_of

if TYPE_CHECKING:
    from cldistill.weights import AdapterState, LokrWeights, LoraWeights


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError("must not be 0: leave the file out instead")
    return value


class WeighedFile(Settings):
    """One of the files."""

    path: AdapterPath = Field(
        description="safetensors file, a folder with one, or OWNER/NAME[@REVISION[/FILE]] on the hub"
    )
    scale: Annotated[float, Field(allow_inf_nan=False), AfterValidator(_not_zero)] = Field(
        1.0,
        description="strength: multiplies the scale that the file itself asks for; below 0 it takes the effect away",
    )


class LoraFilesSettings(Settings):
    """Options of ``lora-files``."""

    files: tuple[WeighedFile, ...] = Field(min_length=1, description="the files, each a `path` and its `scale`")


def describe_lora_files(settings: LoraFilesSettings, outline: RunOutline) -> Needs:
    """Needs files whose headers fit the base: of the first the engine sees to it."""
    from cldistill.adapters.files import fit

    first, *others = settings.files
    for other in others:
        if outline.base is not None and other.path.exists():
            fit(other.path, outline.base.modules, outline.base.adapter_names)
    return Needs(adapter=first.path, adapter_scale=first.scale, files=tuple(other.path for other in others))


class LoraFiles:
    """Implements `cldistill.protocols.TeacherSource`."""

    def __init__(self, settings: LoraFilesSettings, names: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.settings = settings
        self.names = names

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return the sum of the files' adapters under the base's module names.

        Raises:
            AdapterFormatError: a file cannot be used, or two of them adapt one module and one of the two is a LoKr.
        """
        from cldistill.adapters.files import load_adapter
        from cldistill.adapters.inject import linear_shapes

        shapes = linear_shapes(request.base.backbone)
        return added([load_adapter(file.path, shapes, self.names).scaled(file.scale) for file in self.settings.files])

    def digest(self) -> str:
        """Return the digest that the sum has."""
        return "+".join(digest_of(file.path, file.scale) for file in self.settings.files)


def added(states: Sequence[AdapterState]) -> AdapterState:
    """Return the adapter whose differences are the sums of the others': ranks add up, nothing is approximated."""
    from cldistill.weights import AdapterState

    first, *others = states
    if not others:
        return first
    modules: dict[str, LoraWeights | LokrWeights] = {}
    for name in dict.fromkeys(name for state in states for name in state.modules):
        parts = [(state.source, state.modules[name]) for state in states if name in state.modules]
        modules[name] = parts[0][1] if len(parts) == 1 else _sum(name, parts)
    return AdapterState(modules, " + ".join(s.source for s in states), "+".join(s.digest for s in states))


def _sum(name: str, parts: Sequence[tuple[str, LoraWeights | LokrWeights]]) -> LoraWeights:
    """Put the factors side by side: ``sum_i s_i B_i A_i = [s_1 B_1, s_2 B_2, ...] [A_1; A_2; ...]``, in fp32."""
    import torch

    from cldistill.weights import LoraWeights

    loras = [weights for _, weights in parts if isinstance(weights, LoraWeights)]
    if len(loras) < len(parts):
        source = next(source for source, weights in parts if not isinstance(weights, LoraWeights))
        raise AdapterFormatError(
            f"{source}: is a LoKr in module {name!r}, which another file adapts as well; `cldistill convert` makes a LoRA of it"
        )
    down = torch.cat([weights.down.float() for weights in loras])
    up = torch.cat([weights.scale * weights.up.float() for weights in loras], dim=1)
    return LoraWeights(down, up, float(down.shape[0]))
