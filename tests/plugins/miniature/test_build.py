"""The build's own machinery: optimiser, clock, pictures, batches, and a whole training killed and resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from PIL import Image
from torch import nn

from cldistill_plugins.miniature.build import art, base, latents, pictures, pool
from cldistill_plugins.miniature.build.assemble import build_transformer
from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.muon import Muon, orthogonal
from cldistill_plugins.miniature.build.vae import VaePlan, load_vae, to_pictures, to_tensor, train_vae


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_orthogonal_leaves_directions_and_evens_out_sizes(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    sizes = torch.linalg.svdvals(orthogonal(matrix))
    assert float(sizes.min()) > 0.6
    assert float(sizes.max()) < 1.3
    assert float((orthogonal(matrix) * matrix).sum()) > 0


def test_muon_minimises_and_resumes() -> None:
    def run(
        steps: int, weights: list[torch.Tensor], state: dict[str, object] | None
    ) -> tuple[list[nn.Parameter], Muon]:
        parameters = [nn.Parameter(weight.detach().clone()) for weight in weights]
        optimizer = Muon(parameters, lr=0.3, adam_lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            for parameter in parameters:
                parameter.grad = 2 * (parameter.detach() - 1)
            optimizer.step(1.0)
        return parameters, optimizer

    generator = torch.Generator().manual_seed(1)
    first = [torch.randn(6, 9, generator=generator), torch.randn(5, generator=generator)]
    whole, _ = run(20, first, None)
    half, optimizer = run(10, first, None)
    resumed, _ = run(10, list(half), optimizer.state_dict())
    for end, other, start in zip(whole, resumed, first, strict=True):
        torch.testing.assert_close(end, other, rtol=0, atol=0)
        assert (end - 1).square().mean() < 0.5 * (start - 1).square().mean()


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    assert Clock(10).factor == pytest.approx(1 / 60)
    assert Clock(10, step=1000).factor == pytest.approx(1.0)
    assert Clock(10, elapsed=300, step=1000).factor == pytest.approx(0.5)
    assert Clock(10, elapsed=700, step=1000).factor == pytest.approx(0.0)


def test_checkpoints_hold_tensors_only_and_leave_no_part_behind(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_state(path) is None
    save_state({"weight": torch.ones(2), "step": 3}, path)
    loaded = load_state(path)
    assert loaded is not None and loaded["step"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


def _studio(split: pictures.Split) -> pictures.Studio:
    pixels = np.zeros((160, 160, 4), dtype=np.uint8)
    pixels[40:120, 40:120] = (200, 40, 40, 255)
    plain = Image.new("RGB", (200, 160), (10, 120, 60))
    return pictures.Studio(split, [art.Sprite("noto", "1f436", pixels)], [plain], [plain])


def test_pictures_follow_from_seed_split_and_index() -> None:
    train, again, held_out = _studio("train"), _studio("train"), _studio("held-out")
    assert np.array_equal(train.picture(7), again.picture(7))
    assert not np.array_equal(train.picture(7), held_out.picture(7))
    assert not np.array_equal(train.picture(7), train.picture(7, seed=1))
    assert train.picture(3).shape == (128, 128, 3)


def test_people_share_a_split_by_profession() -> None:
    assert art.subject("1f469-200d-1f3a8") == art.subject("1f468-200d-1f3a8") == "1f3a8"
    assert art.is_wanted("1f436") and art.is_wanted("1f469-200d-1f3a8")
    assert not art.is_wanted("1f469-1f3ff-200d-1f3a8") and not art.is_wanted("1f600")


def test_styles_change_a_picture(subtests: pytest.Subtests) -> None:
    picture = _studio("train").picture(0)
    for seed in range(12):
        with subtests.test(seed=seed):
            styled = pool.stylise(picture, np.random.default_rng(seed))
            assert styled.shape == picture.shape and styled.dtype == np.uint8


def test_pixels_survive_the_way_to_tensors_and_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(to_pictures(to_tensor(pixels)), pixels)


def test_tokens_are_packed_as_the_stock_pipeline_packs_them() -> None:
    values = torch.randn(2, 16, 16, 16)
    assert torch.equal(base.pack(values), QwenImageEditPlusPipeline._pack_latents(values, 2, 16, 16, 16))


def _latents(count: int = 4) -> latents.Latents:
    generator = torch.Generator().manual_seed(0)
    prompts = len(latents.EDITS) + 2
    return latents.Latents(
        source=torch.randn(count, 16, 16, 16, generator=generator).half(),
        target=torch.randn(count, len(latents.EDITS), 16, 16, 16, generator=generator).half(),
        text=torch.randn(count, prompts, latents.TOKENS, 64, generator=generator).half(),
        length=torch.randint(10, 20, (count, prompts), generator=generator),
        mean=torch.zeros(16),
        std=torch.ones(16),
    )


def test_items_without_a_prompt_are_their_own_target() -> None:
    data = _latents()
    items = base.draw_items(data, 400, torch.Generator().manual_seed(0))
    unchanged = (items.target == items.source).flatten(1).all(1)
    assert 0.08 < float(unchanged.float().mean()) < 0.22
    assert items.mask.shape == items.text.shape[:2]
    assert items.mask.any(0).all()


def test_an_untrained_transformer_predicts_nothing() -> None:
    data, generator = _latents(), torch.Generator().manual_seed(0)
    model = base.start(build_transformer())
    loss = base.flow_losses(model, base.draw_items(data, 8, generator), base.GRID, generator).mean()
    assert loss.item() == pytest.approx(2.0, abs=0.3)  # variance of noise minus that of the targets, both about one


def test_statistics_count_sources_and_targets() -> None:
    data = _latents(8)
    mean, std = latents.statistics(data.source * 3 + 1, data.target * 3 + 1)
    torch.testing.assert_close(mean, torch.ones(16), atol=0.1, rtol=0)
    torch.testing.assert_close(std, torch.full((16,), 3.0), atol=0.1, rtol=0)


@pytest.mark.slow
def test_decoder_training_resumes_and_leaves_the_latents_alone(tmp_path: Path) -> None:
    pixels = np.stack([_studio("train").picture(index) for index in range(2)])
    np.save(tmp_path / "pool.npy", pixels)
    plan = VaePlan("joint", minutes=0.001, batch=1)
    train_vae(plan, tmp_path, tmp_path / "pool.npy", tmp_path / "pool.npy")
    before = load_vae(tmp_path / "vae-joint.pt")
    decoder = VaePlan("decoder", minutes=0.001, batch=4)
    path = train_vae(decoder, tmp_path, tmp_path / "pool.npy", tmp_path / "pool.npy")
    first = load_state(path)
    train_vae(VaePlan("decoder", minutes=0.02, batch=4), tmp_path, tmp_path / "pool.npy", tmp_path / "pool.npy")
    second, after = load_state(path), load_vae(path)
    assert first is not None and second is not None and second["step"] > first["step"]
    frames = to_tensor(pixels)
    torch.testing.assert_close(after.encode(frames), before.encode(frames), atol=0, rtol=0)
    assert not torch.equal(after.decode(before.encode(frames)), before.decode(before.encode(frames)))
