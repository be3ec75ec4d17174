"""HED-VGG LPIPS: a learned perceptual distance whose weights install from a package registry.

LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1) over VGG16 features, with one difference that the name states: the
convolutions are those of HED (edge detection, Xie & Tu 2015), not those of the ImageNet classifier, which no registry
ships.  Figures are therefore not comparable to LPIPS figures in papers.

LPIPS is a squared Euclidean distance: with unit-normalised features ``y_l`` (B, C_l, H_l, W_l) and heads ``w_l``,

    d(a, b) = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (y_l(a) - y_l(b))^2 = |g(a) - g(b)|^2
    with g_l = sqrt(w_l / (H_l W_l)) y_l.

``distances`` compares every output with every truth at the price of one pass over each and a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hed_vgg_weights import HedVggWeights, load_weights

_CAFFE_MEAN_BGR = (104.00699, 116.66877, 122.67892)
_EPSILON = 1e-10
BATCH = 4
"""Pictures that go through the network at once: their activations at 128x128 still fit in a CPU's caches."""


class HedVggLpips(nn.Module):
    """The distance, frozen and without gradients.

    Pictures are float tensors (B, 3, H, W), RGB in [-1, 1]; H and W at least 16.
    """

    def __init__(self, weights: HedVggWeights | None = None) -> None:
        """Args: weights: read from the installed packages when None (see :func:`load_weights`)."""
        super().__init__()
        loaded = weights or load_weights()
        self._counts = tuple(len(block) for block in loaded.blocks)
        self.channels = tuple(head.numel() for head in loaded.heads)
        """Channels of the five blocks."""
        flat = [pair for block in loaded.blocks for pair in block]
        for i, (kernel, bias) in enumerate(flat):
            # Channels-last kernels are a fifth faster on CPUs without AVX-512.
            self.register_buffer(f"kernel{i}", kernel.contiguous(memory_format=torch.channels_last))
            self.register_buffer(f"bias{i}", bias)
        for i, head in enumerate(loaded.heads):
            self.register_buffer(f"root_head{i}", head.sqrt())
        self.register_buffer("mean", torch.tensor(_CAFFE_MEAN_BGR))

    @classmethod
    def from_files(cls, hed: Path, heads: Path) -> HedVggLpips:
        """The distance with the HED weights (.h5) and LPIPS heads (.pth) of two given files."""
        return cls(load_weights(hed, heads))

    @torch.inference_mode()
    def distances(self, outputs: Tensor, truths: Tensor, centre: Tensor) -> Tensor:
        """Distances between all ``outputs`` (N, 3, H, W) and all ``truths`` (M, 3, H, W) of one picture: (N, M).

        Squared distances come from a matrix product, ``|a|^2 + |b|^2 - 2 a.b``.  All features are taken relative to
        those of ``centre`` (1, 3, H, W), the unedited picture: that keeps ``|a|`` as small as the edit, and rounding
        (about 1e-6) far below any distance that matters.  Features of the truths and of a few outputs are in memory.
        """
        origin = self.features(centre)
        b = self.features(truths).sub_(origin)
        rows = []
        for chunk in outputs.split(BATCH):  # type: ignore[no-untyped-call]
            a = self.features(chunk).sub_(origin)
            rows.append(_norms(a)[:, None] + _norms(b)[None] - 2 * (a @ b.T))
        return torch.cat(rows).clamp_(min=0.0)

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """Flat feature vectors ``g`` (B, D), B at least 1, float32: squared distances between rows are HED-VGG LPIPS.

        At 128x128 D is 1,998,848: 8 MB a picture, so keep one picture's truths at a time, not a data set's.

        Raises:
            ValueError: not (B, 3, H, W), or a side under 16.
        """
        found = None
        for start in range(0, len(pictures), BATCH):
            levels = list(self.levels(pictures[start : start + BATCH]))
            if found is None:
                found = torch.empty((len(pictures), sum(level.shape[1] for level in levels)), device=pictures.device)
            torch.cat(levels, dim=1, out=found[start : start + BATCH])
        assert found is not None
        return found

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """HED-VGG LPIPS between pictures of equal shape (B, 3, H, W): (B,), 0 for equal pictures."""
        if a.shape != b.shape:
            raise ValueError(f"pictures to compare must have one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
        return (self.features(a) - self.features(b)).square().sum(dim=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Same as :meth:`distance`."""
        return self.distance(a, b)

    @torch.inference_mode()
    def levels(self, pictures: Tensor) -> Iterator[Tensor]:
        """Yield ``g_l`` of the five blocks, (B, H_l * W_l * C_l) with the channels innermost.

        Raises:
            ValueError: not (B, 3, H, W), or a side under 16.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < 16:
            raise ValueError(f"pictures must be (B, 3, H, W) with sides of at least 16, not {tuple(pictures.shape)}")
        mean = self.get_buffer("mean")
        x = (pictures.to(mean).flip(1) + 1) * 127.5 - mean.view(1, 3, 1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        conv = 0
        for block, count in enumerate(self._counts):
            if block:
                x = F.max_pool2d(x, 2)
            for _ in range(count):
                x = F.conv2d(x, self.get_buffer(f"kernel{conv}"), self.get_buffer(f"bias{conv}"), padding=1).relu_()
                conv += 1
            yield _weighted(x.permute(0, 2, 3, 1), self.get_buffer(f"root_head{block}"))


@torch.inference_mode()
def _weighted(x: Tensor, root_head: Tensor) -> Tensor:
    """``g_l`` of one block: activations (B, H, W, C) to (B, H*W*C)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(_EPSILON)
    weighted: Tensor = (x / norm).mul_(root_head / float(x.shape[1] * x.shape[2]) ** 0.5)
    return weighted.flatten(1)


def _norms(features: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(features, dim=1).square()
    return norms


def pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Distances between all rows of ``a`` (N, D) and ``b`` (M, D): (N, M).

    Differences, not the |a|^2 + |b|^2 - 2ab identity, which loses the small distances to rounding.
    """
    return torch.stack([(b - row).square().sum(dim=1) for row in a])
