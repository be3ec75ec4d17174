"""Makes the transformer twice as wide without changing what it computes (Net2Net, Chen et al., arXiv 1511.05641).

Every hidden state x becomes [x, x]. A layer norm of that is [norm x, norm x]; twice the heads give the same sums twice; so a
layer that reads x has its input columns [W/2 + d, W/2 − d], which gives the same product for any d. The random d differs for
the two copies of a row, and so their gradients differ: the copies part as soon as training begins.
"""

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from cldistill_plugins.miniature.build.assemble import build_transformer

DIFFERENCE = 0.7
"""Size of d as a share of the root mean square of W/2."""


def widened(narrow: QwenImageTransformer2DModel, heads: int, seed: int = 0) -> QwenImageTransformer2DModel:
    """The transformer of twice as many `heads` that computes what `narrow` does.

    Raises:
        ValueError: `heads` is not twice the number of the narrow one.
    """
    if heads != 2 * narrow.config.num_attention_heads:
        raise ValueError(f"a width can only be doubled here: {narrow.config.num_attention_heads} heads, not to {heads}")
    wide = build_transformer(seed, heads)
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in wide.state_dict().items()}
    state = {name: _grown(name, value, shapes[name], generator) for name, value in narrow.state_dict().items()}
    wide.load_state_dict(state)
    return wide


def _grown(name: str, value: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    value = value.float()
    if value.shape[0] != shape[0]:
        # A modulation's output is several vectors in a row, and each of them doubles by itself.
        groups = 6 if "_mod." in name else 2 if name.startswith("norm_out") else 1
        value = torch.cat([part for group in value.chunk(groups) for part in (group, group)])
    if value.ndim == 2 and value.shape[1] != shape[1]:
        half = value / 2
        size = DIFFERENCE * float(half.square().mean().sqrt())
        difference = torch.randn(half.shape, generator=generator) * size
        value = torch.cat([half + difference, half - difference], dim=1)
    return value
