"""The shortened convolutions of the VAE give the stock VAE's numbers."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage

from cldistill.testing.tiny import tiny_pipeline
from cldistill_plugins.qwen_image_edit.single_frame import SingleFrameConv3d, shorten


def _vae(folder: Path) -> AutoencoderKLQwenImage:
    tiny_pipeline(folder)
    vae = AutoencoderKLQwenImage.from_pretrained(folder, subfolder="vae")
    return vae.requires_grad_(False).eval()


def test_one_frame_gives_the_stock_numbers_both_ways(tmp_path: Path) -> None:
    vae = _vae(tmp_path / "tiny")
    pictures = torch.rand(2, 3, 1, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = vae.encode(pictures).latent_dist.mode()
    decoded = vae.decode(latents).sample
    shorten(vae)
    assert any(isinstance(module, SingleFrameConv3d) for module in vae.modules())
    torch.testing.assert_close(vae.encode(pictures).latent_dist.mode(), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vae.decode(latents).sample, decoded, atol=1e-5, rtol=1e-4)


def test_several_frames_still_go_the_long_way(tmp_path: Path) -> None:
    vae = _vae(tmp_path / "tiny")
    frames = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = vae.encode(frames).latent_dist.mode()
    shorten(vae)
    torch.testing.assert_close(vae.encode(frames).latent_dist.mode(), latents, atol=1e-5, rtol=1e-4)


def test_names_of_weights_stay(tmp_path: Path) -> None:
    vae = _vae(tmp_path / "tiny")
    names = set(vae.state_dict())
    shorten(vae)
    assert set(vae.state_dict()) == names
