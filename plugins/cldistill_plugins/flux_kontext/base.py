"""``flux-kontext``: what FLUX.1-Kontext does otherwise than other bases over a folder of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL.Image import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from cldistill.collection.card import Usage, UsageRequest
from cldistill.records import Tensors
from cldistill_plugins.diffusers_base.api import STOCK_SIDE, DiffusersBase, Size, script_usage


class FluxKontext(DiffusersBase):
    """References at the sizes that the model was trained on, scaled where ``resolution`` is not the stock 1024.

    The stock pipeline takes one reference; further ones follow it at times 2, 3, ...
    """

    name: str = "flux-kontext"
    architecture = "flux-1-kontext/lora"
    transformer = FluxTransformer2DModel
    pipeline = FluxKontextPipeline
    classes: ClassVar[Mapping[str, Any]] = {
        "vae": AutoencoderKL, "text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel,
        "tokenizer": CLIPTokenizer, "tokenizer_2": T5TokenizerFast,
    }  # fmt: skip

    def size(self, picture: Image) -> Size:
        """Return the preferred size of the nearest aspect."""
        aspect, scale = picture.width / picture.height, self.resolution / STOCK_SIDE / self.multiple
        size = min(PREFERRED_KONTEXT_RESOLUTIONS, key=lambda size: (abs(aspect - size[0] / size[1]), size))
        width, height = (max(1, int(side * scale)) * self.multiple for side in size)
        return width, height

    def latents(self, picture: Image, size: Size) -> Tensor:
        """Encode a picture, resized: ``[L, C]``."""
        stock = self.encoders.stock
        resized = stock.image_processor.resize(picture, size[1], size[0])
        encoded = self.encoded(stock.image_processor.preprocess(resized, size[1], size[0]))
        packed: Tensor = stock._pack_latents(encoded, *encoded.shape)
        return packed[0].cpu()

    def prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt: T5's ``embeds`` ``[prompt_tokens, D]``, and CLIP's ``pooled`` ``[768]``."""
        embeds, pooled, _ = self.encoders.stock.encode_prompt(
            prompt, None, device=torch.device(self._device), max_sequence_length=self.settings.prompt_tokens
        )
        return {"embeds": embeds[0].cpu(), "pooled": pooled[0].cpu()}

    def pictures(self, x0: Tensor, size: Size) -> list[Image]:
        """Decode latents ``[B, L, C]`` of one size."""
        vae, stock = self.encoders.part("vae"), self.encoders.stock
        latents = stock._unpack_latents(x0, size[1], size[0], stock.vae_scale_factor)
        return self.shown(latents / vae.config.scaling_factor + vae.config.shift_factor)

    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        """Return the pooled prompt, the embedded guidance, and the places of text and picture tokens."""
        places = [
            torch.cartesian_prod(torch.tensor([time]), torch.arange(int(rows)), torch.arange(int(columns)))
            for time, (rows, columns) in enumerate(self.grids(source)[0])
        ]
        guidance = torch.full([len(prompt["embeds"])], self.settings.embedded_guidance, device=device)
        backbone: Any = self.backbone
        return {
            "pooled_projections": prompt["pooled"].to(device, self.dtype),
            "guidance": guidance if backbone.config.guidance_embeds else None,
            "img_ids": torch.cat(places).to(device, self.dtype),
            "txt_ids": torch.zeros(prompt["embeds"].shape[1], 3, device=device, dtype=self.dtype),
        }

    def usage(self, request: UsageRequest) -> Usage | None:
        """Return how stock diffusers runs a LoRA of this base."""
        guidance = f"guidance_scale={self.settings.embedded_guidance}"
        licences = {"black-forest-labs/FLUX.1-Kontext-dev": "non-commercial."}
        shape = "\n    width=image.width,\n    height=image.height,"  # else the output is square
        shape += "" if self.resolution == STOCK_SIDE else f"\n    max_area={self.resolution}**2,"
        return script_usage(self.settings, request, "FluxKontextPipeline", guidance, licences, arguments=shape)
