"""The base model that the engine sees: implements `cldistill.protocols.BaseModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from PIL.Image import Image
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from cldistill.collection.card import Usage, UsageRequest
from cldistill.component import Needs
from cldistill.records import Tensors
from cldistill_plugins.diffusers_base.api import DiffusersBase, Encoders
from cldistill_plugins.qwen_image_edit import single_frame, usage
from cldistill_plugins.qwen_image_edit.description import describe_base
from cldistill_plugins.qwen_image_edit.geometry import Geometry, Size
from cldistill_plugins.qwen_image_edit.processor import PromptProcessor, read_picture_config
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

HASHED = ("resolution", "vl_resolution", "dtype", "zero_cond_t", "round_timesteps")


class QwenEncoders(Encoders):
    """The stock parts, with a VAE that takes the short way for pictures and a processor that needs no torchvision."""

    def load(self, name: str) -> Any:
        """Read a part."""
        if name == "processor":
            return PromptProcessor(self.part("tokenizer"), read_picture_config(self.folder))
        part = super().load(name)
        if name == "vae":
            single_frame.shorten(part)
        return part


class QwenImageEdit(DiffusersBase):
    """Qwen-Image-Edit-2509/2511 or anything in the same layout."""

    name: str = "qwen-image-edit"
    architecture = "Qwen-Image-Edit-Plus/lora"
    transformer = QwenImageTransformer2DModel
    pipeline = QwenImageEditPlusPipeline
    classes: ClassVar[Mapping[str, Any]] = {
        "vae": AutoencoderKLQwenImage,
        "text_encoder": Qwen2_5_VLForConditionalGeneration,
        "tokenizer": Qwen2Tokenizer,
        "processor": PromptProcessor,
    }
    block_lists = ("transformer_blocks",)

    def __init__(self, settings: QwenImageEditSettings, device: str = "cpu", weights: bool = True) -> None:
        self.geometry = Geometry(settings.resolution, settings.vl_resolution)
        super().__init__(settings, Needs(base=describe_base(settings)), device, weights)

    def make_encoders(self) -> Encoders:
        """Make the holder of VAE and text encoder."""
        return QwenEncoders(self._folder, self.dtype, self.pipeline, self.classes)

    def config_changes(self) -> dict[str, Any]:
        """Return the config's ``zero_cond_t`` where the option sets it."""
        return {} if self.settings.zero_cond_t is None else {"zero_cond_t": self.settings.zero_cond_t}

    def hashed_options(self) -> list[Any]:
        """Return the options of the fingerprint, in the order that caches know."""
        return [getattr(self.settings, name) for name in HASHED]

    def tokens(self, x: Tensor, source: Tensors) -> Tensor:
        """Return noised and reference tokens in the precision of ``x``: autocast rounds them."""
        return torch.cat([x, source["latents"].to(x.device, x.dtype)], dim=1)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return ``t / 1000``, rounded as stock does unless the option says otherwise."""
        return super().timestep(sigma) if self.settings.round_timesteps else (sigma * 1000).float() / 1000

    def size(self, picture: Image) -> Size:
        """Return the stock size of a reference, by area."""
        return self.geometry.vae_size(picture)

    def sizes(self, pictures: Sequence[Image]) -> list[Size]:
        """Return the sizes of the output, which is like the last reference, and of each reference."""
        return [self.geometry.output_size(pictures), *map(self.size, pictures)]

    def latents(self, picture: Image, size: Size) -> Tensor:
        """Encode a picture at a size: ``[L, C]``."""
        stock, (width, height) = self.encoders.stock, size
        encoded = self.encoded(stock.image_processor.preprocess(picture, height, width).unsqueeze(2))
        rows, columns = encoded.shape[-2:]
        packed: Tensor = stock._pack_latents(encoded, 1, encoded.shape[1], rows, columns)
        return packed[0].cpu()

    def prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt with its references by the VL encoder: ``embeds`` ``[T, D]``."""
        stock, resized = self.encoders.stock, []
        for picture in pictures:
            width, height = self.geometry.vl_size(picture)
            resized.append(stock.image_processor.resize(picture, height, width))
        embeds, _ = stock.encode_prompt(prompt=[prompt], image=resized, device=torch.device(self._device))
        return {"embeds": embeds[0].cpu()}

    def pictures(self, x0: Tensor, size: Size) -> list[Image]:
        """Decode latents ``[B, L, C]`` of one size."""
        vae, stock = self.encoders.part("vae"), self.encoders.stock
        width, height = size
        latents = stock._unpack_latents(x0, height, width, stock.vae_scale_factor)
        mean, std = (_channels(values, latents) for values in (vae.config.latents_mean, vae.config.latents_std))
        # the stock pipeline multiplies by 1 / (1 / std), which differs from std in the last bit
        return self.shown(latents / (1.0 / std) + mean)

    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        """Return the token grids and the mask of padded prompts."""
        shapes = [[(1, rows, columns) for rows, columns in item] for item in self.grids(source)]
        mask = prompt.get("mask")
        return {"img_shapes": shapes, "encoder_hidden_states_mask": None if mask is None else mask.to(device)}

    def usage(self, request: UsageRequest) -> Usage:
        """Return how stock diffusers and ComfyUI run a LoRA of this base."""
        return usage.usage(self.settings, request)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1).to(like.device, like.dtype)
