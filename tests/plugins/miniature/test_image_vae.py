"""The 2-D VAE is the stock VAE on one frame."""

import pytest
import torch
from diffusers import AutoencoderKLQwenImage

from cldistill_plugins.miniature.build.image_vae import CONFIG, ImageVAE, load_stock, to_stock


@pytest.fixture(scope="module")
def stock() -> AutoencoderKLQwenImage:
    torch.manual_seed(0)
    return AutoencoderKLQwenImage(**CONFIG).eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_it_equals_the_stock_module(stock: AutoencoderKLQwenImage, pictures: torch.Tensor) -> None:
    vae = ImageVAE()
    load_stock(vae, stock.state_dict())
    latents = stock.encode(pictures.unsqueeze(2)).latent_dist.mode()
    torch.testing.assert_close(vae.encode(pictures), latents[:, :, 0], atol=1e-5, rtol=0)
    decoded = stock.decode(latents).sample[:, :, 0]
    torch.testing.assert_close(vae.decode(latents[:, :, 0]).clamp(-1, 1), decoded, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_weights_go_back_and_only_what_one_frame_never_uses_is_lost(
    stock: AutoencoderKLQwenImage, pictures: torch.Tensor
) -> None:
    vae = ImageVAE()
    load_stock(vae, stock.state_dict())
    returned = AutoencoderKLQwenImage(**CONFIG).eval()
    returned.load_state_dict(to_stock(vae, stock.state_dict()))
    frame = pictures.unsqueeze(2)
    latents = stock.encode(frame).latent_dist.mode()
    torch.testing.assert_close(returned.encode(frame).latent_dist.mode(), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(returned.decode(latents).sample, stock.decode(latents).sample, atol=1e-5, rtol=0)
    live = sum(parameter.numel() for parameter in vae.parameters())
    kept = sum(int(parameter.count_nonzero()) for parameter in returned.parameters())
    assert kept <= live
