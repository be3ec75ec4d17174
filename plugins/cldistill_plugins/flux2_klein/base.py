"""``flux2-klein``: what FLUX.2-klein does otherwise than other bases over a folder of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from PIL.Image import Image, Resampling
from torch import Tensor
from transformers import Qwen2TokenizerFast, Qwen3ForCausalLM

from cldistill.collection.card import Usage, UsageRequest
from cldistill.records import Tensors
from cldistill_plugins.diffusers_base.api import STOCK_SIDE, DiffusersBase, Size, script_usage


class Flux2Klein(DiffusersBase):
    """Pictures as the stock pipeline takes them: shrunk to ``resolution`` squared, never enlarged, cropped to whole tokens."""

    name: str = "flux2-klein"
    architecture = "flux-2-klein/lora"
    transformer = Flux2Transformer2DModel
    pipeline = Flux2KleinPipeline
    classes: ClassVar[Mapping[str, Any]] = {
        "vae": AutoencoderKLFlux2, "text_encoder": Qwen3ForCausalLM, "tokenizer": Qwen2TokenizerFast,
    }  # fmt: skip

    def size(self, picture: Image) -> Size:
        """Return the size of a reference, whole tokens."""
        width, height = (
            max(self.multiple, side // self.multiple * self.multiple) for side in self._shrunk(picture).size
        )
        return width, height

    def latents(self, picture: Image, size: Size) -> Tensor:
        """Encode a picture: cropped where that gives the size, else (an after-picture of another size) resized to it."""
        stock, shown = self.encoders.stock, self._shrunk(picture)
        if self.size(picture) != size or min(shown.size) < self.multiple:
            shown = picture.resize(size, Resampling.LANCZOS)
        pixels = stock.image_processor.preprocess(shown, height=size[1], width=size[0], resize_mode="crop")
        packed: Tensor = stock._pack_latents(self.encoded(pixels))
        return packed[0].cpu()

    def prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt by three layers of Qwen3: ``embeds`` ``[prompt_tokens, D]``, padding and all."""
        embeds, _ = self.encoders.stock.encode_prompt(
            prompt, device=torch.device(self._device), max_sequence_length=self.settings.prompt_tokens
        )
        return {"embeds": embeds[0].cpu()}

    def pictures(self, x0: Tensor, size: Size) -> list[Image]:
        """Decode latents ``[B, L, C]``: their batch norm undone first."""
        vae, stock = self.encoders.part("vae"), self.encoders.stock
        rows, columns = size[1] // self.multiple, size[0] // self.multiple
        latents = x0.transpose(1, 2).reshape(len(x0), -1, rows, columns)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(latents.device, latents.dtype)
        std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).to(
            latents.device, latents.dtype
        )
        return self.shown(stock._unpatchify_latents(latents * std + mean))

    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        """Return the places of text and picture tokens: references lie at times 10, 20, ..."""
        stock = self.encoders.stock
        output, *references = (torch.empty(1, 1, *shape, device="meta") for shape in self.grids(source)[0])
        places = torch.cat([stock._prepare_latent_ids(output), stock._prepare_image_ids(references)], dim=1)
        return {"img_ids": places.to(device), "txt_ids": stock._prepare_text_ids(prompt["embeds"][:1]).to(device)}

    def usage(self, request: UsageRequest) -> Usage | None:
        """Return how stock diffusers runs a LoRA of this base."""
        family = "black-forest-labs/FLUX.2-klein-base-"
        licences = {family + "4B": "Apache-2.0.", family + "9B": "non-commercial."}
        small = f"image = pipe.image_processor._resize_if_exceeds_area(image, {self.resolution}**2)\n"
        return script_usage(
            self.settings, request, "Flux2KleinPipeline", "guidance_scale=1.0", licences,
            before="" if self.resolution == STOCK_SIDE else small,
        )  # fmt: skip

    def _shrunk(self, picture: Image) -> Image:
        shown: Image = self.encoders.stock.image_processor._resize_if_exceeds_area(picture, self.resolution**2)
        return shown
