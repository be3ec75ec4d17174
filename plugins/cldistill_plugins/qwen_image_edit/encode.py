"""Pictures and prompts to tensors and back, by the stock pipeline's own helpers."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from PIL.Image import Image
from torch import Tensor
from transformers import Qwen2Tokenizer

from cldistill.records import Tensors
from cldistill_plugins.qwen_image_edit import loading
from cldistill_plugins.qwen_image_edit.geometry import Geometry, Size
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

DECODE_PIXELS = 1024 * 1024
"""The VAE decodes as many pictures at once as have this many pixels together."""


class Encoders:
    """VAE and text encoder of one base, each loaded when first needed, inside a stock pipeline without transformer.

    Everything returned is on the CPU, in the base's dtype: ready for the cache.
    """

    def __init__(self, folder: Path, settings: QwenImageEditSettings, geometry: Geometry) -> None:
        self._folder = folder
        self._settings = settings
        self._geometry = geometry
        self._device = "cpu"
        self._stock = QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=None,
            text_encoder=None,
            tokenizer=None,
            processor=None,
            transformer=None,
        )

    @property
    def text_encoder_loaded(self) -> bool:
        """Whether the text encoder is in memory."""
        return self._stock.text_encoder is not None

    def to(self, device: str) -> None:
        """Move what is loaded, and what will be."""
        self._device = device
        for part in (self._stock.vae, self._stock.text_encoder):
            if part is not None:
                part.to(device)

    def load_vae(self) -> AutoencoderKLQwenImage:
        """Return the VAE, loading it if need be."""
        if self._stock.vae is None:
            self._stock.register_modules(vae=loading.load_vae(self._folder, self._settings).to(self._device))
        return self._stock.vae

    def tokenizer(self) -> Qwen2Tokenizer:
        """Return the tokenizer, loading it if need be; it is small and stays."""
        if self._stock.tokenizer is None:
            self._stock.register_modules(tokenizer=loading.load_tokenizer(self._folder))
        return self._stock.tokenizer

    def load_text_encoder(self) -> None:
        """Load text encoder, tokenizer and processor, if they are not."""
        if self._stock.text_encoder is not None:
            return
        self._stock.register_modules(
            processor=loading.load_processor(self._folder, self.tokenizer()),
            text_encoder=loading.load_text_encoder(self._folder, self._settings).to(self._device),
        )

    def drop_text_encoder(self) -> None:
        """Release the text encoder's memory; the VAE stays for `decode`."""
        self._stock.register_modules(text_encoder=None, processor=None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def source(self, pictures: Sequence[Image]) -> Tensors:
        """Encode references: ``latents`` ``[L_ref, C]``, ``shapes`` ``[1 + n, 2]`` (rows, columns; output first)."""
        output = self._geometry.output_size(pictures)
        sizes = [self._geometry.vae_size(picture) for picture in pictures]
        latents = torch.cat([self._latents(picture, size) for picture, size in zip(pictures, sizes, strict=True)])
        shapes = torch.tensor([self._geometry.tokens(size) for size in (output, *sizes)])
        return {"latents": latents, "shapes": shapes}

    @torch.no_grad()
    def target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Encode an after-picture, resized to the output size of its references: ``[L, C]`` in fp32."""
        return self._latents(picture, self._geometry.output_size(pictures)).float()

    def _latents(self, picture: Image, size: Size) -> Tensor:
        vae = self.load_vae()
        width, height = size
        pixels = self._stock.image_processor.preprocess(picture, height, width).unsqueeze(2)
        encoded = self._stock._encode_vae_image(pixels.to(self._device, vae.dtype), generator=None)
        rows, columns = encoded.shape[-2:]
        packed: Tensor = self._stock._pack_latents(encoded, 1, encoded.shape[1], rows, columns)
        return packed[0].cpu()

    @torch.no_grad()
    def prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt with its references: ``embeds`` ``[T, D]``."""
        self.load_text_encoder()
        resized = []
        for picture in pictures:
            width, height = self._geometry.vl_size(picture)
            resized.append(self._stock.image_processor.resize(picture, height, width))
        embeds, _ = self._stock.encode_prompt(prompt=[prompt], image=resized, device=torch.device(self._device))
        return {"embeds": embeds[0].cpu()}

    @torch.no_grad()
    def decode(self, x0: Tensor, size: Size) -> list[Image]:
        """Decode latents ``[B, L, C]`` of one size to pictures."""
        width, height = size
        count = max(1, DECODE_PIXELS // (width * height))
        return [picture for chunk in torch.split(x0, count) for picture in self._decode(chunk, width, height)]

    def _decode(self, x0: Tensor, width: int, height: int) -> list[Image]:
        vae = self.load_vae()
        packed = x0.to(self._device, vae.dtype)
        latents = self._stock._unpack_latents(packed, height, width, self._stock.vae_scale_factor)
        mean, std = (_channels(values, latents) for values in (vae.config.latents_mean, vae.config.latents_std))
        # the stock pipeline multiplies by 1 / (1 / std), which differs from std in the last bit
        pixels = vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0][:, :, 0]
        pictures: list[Image] = self._stock.image_processor.postprocess(pixels, output_type="pil")
        return pictures


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1).to(like.device, like.dtype)
