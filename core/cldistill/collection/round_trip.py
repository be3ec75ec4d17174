"""The round trip of an export: what was written is read back, counted, mounted and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cldistill.adapters.files import load_adapter
from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import TEACHER
from cldistill.data.dataset import on_device
from cldistill.errors import CollectionError
from cldistill.precision import NONE, precision_of
from cldistill.records import Tensors
from cldistill.storage.tensors import content_key

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill.adapters.slots import AdapterSlots
    from cldistill.protocols import BaseModel
    from cldistill.storage.tensors import TensorCache

EFFECT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Allowed error, as a share of what the adapter changes at all, by the file's precision."""
FLOOR = {torch.float32: 1e-5}
HALF_FLOOR = 1e-2
"""Allowed error as a share of the output itself: the rounding of the backbone's own precision."""


@dataclass(frozen=True)
class FixedProbe:
    """A fixed input: a collated source and prompt (batch axis first) and the shape of one latent without it."""

    source: Tensors
    prompt: Tensors
    shape: tuple[int, ...]


def fixed_probe(base: BaseModel, prompt: str, cache: TensorCache) -> FixedProbe:
    """Encode a fixed picture and ``prompt``, or find them in the cache; what must be encoded loads the base's encoders."""
    picture, key = gradient_picture(base.resolution), ("probe", base.fingerprint)
    source = cache.get(content_key(*key), lambda: base.encode_source([picture]))
    text = cache.get(content_key(*key, prompt), lambda: base.encode_prompt(prompt, [picture]))
    return FixedProbe(base.collate([source]), base.collate([text]), base.latent_shape(source))


def gradient_picture(side: int) -> Image:
    """Return a square picture whose channels run in different directions."""
    from PIL import Image as Pillow

    ramp = Pillow.linear_gradient("L")
    channels = (ramp, ramp.transpose(Pillow.Transpose.ROTATE_90), Pillow.radial_gradient("L"))
    return Pillow.merge("RGB", channels).resize((side, side))


@torch.no_grad()
def check_round_trip(file: Path, base: BaseModel, slots: AdapterSlots, slot: str, probe: FixedProbe) -> float:
    """Mount ``file`` in the teacher slot and compare with ``slot``; return the error as a share of its effect.

    The teacher slot is empty afterwards.

    Raises:
        CollectionError: modules are missing, or the outputs differ by more than the file's precision explains.
    """
    names = set(slots.targets(slot))
    shapes = linear_shapes(base.backbone)
    state = load_adapter(file, {name: shapes[name] for name in names})
    if set(state.modules) != names:
        raise CollectionError(f"{file}: holds {len(state.modules)} of the slot's {len(names)} modules")
    bare = _output(base, slots, None, probe)
    ours = _output(base, slots, slot, probe)
    slots.mount(state)
    try:
        theirs = _output(base, slots, TEACHER, probe)
    finally:
        slots.mount(None)
    written = next(iter(state.modules.values()))
    precision = next(tensor.dtype for tensor in vars(written).values() if isinstance(tensor, Tensor))
    computed = next(base.backbone.parameters()).dtype if precision_of(base) == NONE else torch.bfloat16
    return _compare(file, ours, theirs, bare, precision, computed)


def _compare(
    file: Path, ours: Tensor, theirs: Tensor, bare: Tensor, precision: torch.dtype, backbone: torch.dtype
) -> float:
    change, error = float((ours - bare).norm()), float((ours - theirs).norm())
    allowed = EFFECT_TOLERANCE.get(precision, 5e-2) * change + FLOOR.get(backbone, HALF_FLOOR) * float(bare.norm())
    if not error <= allowed:
        raise CollectionError(
            f"{file}: read back, the adapter gives another output than the trained one (difference {error:.3g}, of "
            f"which its precision explains {allowed:.3g}); nothing was exported"
        )
    return error / change if change else 0.0


def _output(base: BaseModel, slots: AdapterSlots, slot: str | None, probe: FixedProbe) -> Tensor:
    device = next(base.backbone.parameters()).device
    noise = torch.randn((1, *probe.shape), generator=torch.Generator().manual_seed(0)).to(device)
    source, prompt = on_device(probe.source, device), on_device(probe.prompt, device)
    with slots.scope(slot):
        return base.predict(noise, torch.tensor([0.7], device=device), source, prompt).float()
