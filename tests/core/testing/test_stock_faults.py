"""Faults of a base that only its family's own pipeline shows: each planted, each named by the kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from cldistill.component import BuildContext, base_model
from cldistill.records import Tensors
from cldistill.testing import ConformanceError
from cldistill.testing.conformance import Checker, read_settings, scratch_context
from cldistill.testing.stock_check import compare_with_stock
from cldistill.testing.tiny_flux import save_seeded, stock_klein, tiny_klein
from cldistill_plugins.flux2_klein.base import Flux2Klein
from cldistill_plugins.flux2_klein.plugin import Flux2KleinSettings, register_base_models

torch.set_num_threads(1)
TOKENS = 16


class WrongSign(Flux2Klein):
    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        return -super().predict(x, sigma, source, prompt)


class WholeTimestep(Flux2Klein):
    def timestep(self, sigma: Tensor) -> Tensor:
        return 1000 * super().timestep(sigma)


class ReferenceIds(Flux2Klein):
    """References lie where the picture lies."""

    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        found = dict(super().inputs(source, prompt, device))
        found["img_ids"] = found["img_ids"] * torch.tensor([0, 1, 1, 1])
        return found


class OneReference(Flux2Klein):
    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        return super().encode_source(pictures[:1])


class NoBatchNorm(Flux2Klein):
    def _std(self) -> Tensor:
        vae = self.encoders.part("vae")
        return torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)

    def latents(self, picture: Image, size: tuple[int, int]) -> Tensor:
        return super().latents(picture, size) * self._std() + self.encoders.part("vae").bn.running_mean

    def pictures(self, x0: Tensor, size: tuple[int, int]) -> list[Image]:
        return super().pictures((x0 - self.encoders.part("vae").bn.running_mean) / self._std(), size)


class Transposed(Flux2Klein):
    """Rows are taken for columns: the places of the references' tokens, and the order of latents."""

    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        return super().inputs({**source, "shapes": source["shapes"].flip(-1)}, prompt, device)


class OwnSize(Flux2Klein):
    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        return super().encode_target(picture, [picture])


class BareKeys(Flux2Klein):
    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(state)


class FixedSample(Flux2Klein):
    """A sample of the VAE's posterior, always the same one."""

    def latents(self, picture: Image, size: tuple[int, int]) -> Tensor:
        encode = self.encoders.part("vae").encode

        def sampled(pixels: Tensor) -> Any:
            found = encode(pixels)
            drawn = found.latent_dist.sample(torch.Generator().manual_seed(0))
            found.latent_dist.mode = lambda: drawn
            return found

        vae = self.encoders.part("vae")
        vae.encode = sampled
        try:
            return super().latents(picture, size)
        finally:
            vae.encode = encode


class Forgetful(Flux2Klein):
    """Its fingerprint does not know the length of prompts."""

    def hashed_options(self) -> list[Any]:
        return [pair for pair in super().hashed_options() if pair[0] != "prompt_tokens"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(tiny_klein, tmp_path_factory.mktemp("klein") / "tiny")


PICTURE = "differs from the stock pipeline's"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (WrongSign, PICTURE), (WholeTimestep, PICTURE), (ReferenceIds, PICTURE), (OneReference, "of two references differs"),
        (NoBatchNorm, PICTURE), (Transposed, PICTURE), (FixedSample, PICTURE), (OwnSize, "encode_target lays a picture"),
        (BareKeys, "export_state"), (Forgetful, "ignores the option 'prompt_tokens'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_each_fault_is_named(kind: type[Flux2Klein], said: str, folder: Path) -> None:
    (sound,) = register_base_models()

    def build(settings: Flux2KleinSettings, context: BuildContext) -> Flux2Klein:
        return kind(settings, sound.describe(settings))

    component = base_model("faulty", "a base with a fault", Flux2KleinSettings, sound.describe, build)
    settings = read_settings(
        component, {"model": str(folder), "resolution": 192, "dtype": "float32", "prompt_tokens": TOKENS}
    )
    stock = partial(stock_klein, folder, tokens=TOKENS)
    with scratch_context() as context, pytest.raises(ConformanceError, match=said):
        compare_with_stock(Checker(component), component, settings, context, stock, size=(64, 64))
