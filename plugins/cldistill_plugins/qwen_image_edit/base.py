"""The base model that the engine sees: implements `cldistill.protocols.BaseModel`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from cldistill.collection.card import Usage, UsageRequest
from cldistill.protocols import GuidanceMode
from cldistill.records import Tensors
from cldistill_plugins.qwen_image_edit import guidance, loading, predict, usage
from cldistill_plugins.qwen_image_edit.description import describe_base
from cldistill_plugins.qwen_image_edit.encode import Encoders
from cldistill_plugins.qwen_image_edit.geometry import Geometry
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings


class QwenImageEdit:
    """Qwen-Image-Edit-2509/2511 or anything in the same layout.

    Transformer, VAE and text encoder are each read when they are first used; the transformer stays frozen.
    Encodings are on the CPU; `predict` brings them to the latent's device.
    """

    name: str = "qwen-image-edit"

    def __init__(self, settings: QwenImageEditSettings, device: str = "cpu", weights: bool = True) -> None:
        description = describe_base(settings)
        self.settings = settings
        self.adapter_targets: tuple[str, ...] = description.targets
        self.blocks: Mapping[str, int] = description.blocks
        self.guidance_scale: float = settings.guidance_scale
        self.guidance_mode: GuidanceMode = settings.guidance_mode
        self.target_guidance_scale: float = settings.target_guidance_scale
        self.target_guidance_mode: GuidanceMode = settings.target_guidance_mode
        self.resolution: int = settings.resolution
        self._device = device
        self._dtype = loading.torch_dtype(settings)
        self._weights = weights
        self._folder = loading.fetch(settings) if weights else Path(settings.model)
        self.fingerprint: str = loading.fingerprint(self._folder, settings)
        self._backbone: nn.Module | None = None
        self._geometry = Geometry(settings.resolution, settings.vl_resolution)
        self._encoders = Encoders(self._folder, settings, self._geometry)
        self._encoders.to(device)

    @property
    def backbone(self) -> nn.Module:
        """The transformer, read on first use."""
        if self._backbone is None:
            if self._weights:
                self._backbone = loading.load_backbone(self._folder, self.settings).to(self._device)
            else:
                self._backbone = loading.backbone_structure(self.settings)
        return self._backbone

    @backbone.setter
    def backbone(self, module: nn.Module) -> None:
        self._backbone = module

    def to(self, device: str) -> None:
        """Move what is loaded, and what will be."""
        self._device = device
        self._encoders.to(device)
        if self._backbone is not None and self._weights:
            self._backbone.to(device)

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        """Encode one item's references: ``latents`` ``[L_ref, C]`` and the token grids of output and references."""
        return self._encoders.source(pictures)

    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Encode an after-picture, resized to the geometry of its references: ``[L, C]``."""
        return self._encoders.target(picture, pictures)

    def encode_prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt with its references by the VL encoder: ``embeds`` ``[T, D]``."""
        return self._encoders.prompt(prompt, pictures)

    def latent_shape(self, source: Tensors) -> tuple[int, ...]:
        """Return ``(L, C)`` of the output that belongs to an encoded source."""
        rows, columns = source["shapes"][0].tolist()
        return int(rows * columns), int(source["latents"].shape[-1])

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        """Return rows and columns of the output and of each reference."""
        return tuple(int(side) for side in source["shapes"].flatten().tolist())

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        """Stack encoded sources or prompts; raises `cldistill.errors.DataError` for sources of different sizes."""
        return predict.collate(rows)

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        """Return the velocity ``[B, L, C]`` in fp32 under the active adapter."""
        rounded = self.settings.round_timesteps
        return predict.velocity(self.backbone, x, sigma, source, prompt, self._dtype, rounded)

    def features(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, at: str) -> Tensor:
        """Return what the block ``at`` gives for the noised tokens, ``[B, L, D]`` in fp32, under the active adapter."""
        rounded = self.settings.round_timesteps
        return predict.features(self.backbone, at, x, sigma, source, prompt, self._dtype, rounded)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        """Combine two velocities: plain guidance, or the stock pipeline's, rescaled per token."""
        combine = guidance.rescaled if mode == "rescaled" else guidance.standard
        return combine(conditional, unconditional, scale)

    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        """Decode clean latents ``[B, L, C]`` to pictures of the output size."""
        rows, columns = source["shapes"][0][0].tolist()
        multiple = self._geometry.multiple
        return self._encoders.decode(x0, (columns * multiple, rows * multiple))

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text."""
        return tuple(self._encoders.tokenizer()(text).input_ids)

    def load_encoders(self) -> None:
        """Bring VAE and text encoder to memory."""
        self._encoders.load_vae()
        self._encoders.load_text_encoder()

    def drop_encoders(self) -> None:
        """Release the text encoder; the VAE stays for `decode`."""
        self._encoders.drop_text_encoder()

    def enable_gradient_checkpointing(self, run: Callable[..., Any]) -> None:
        """Checkpoint each block through ``run(function, *args)``, which pins the active adapter for the recompute."""
        backbone: Any = self.backbone
        backbone.enable_gradient_checkpointing(lambda block, *args: run(block.__call__, *args))

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the keys that stock diffusers and ComfyUI both load: ``transformer.<module>.lora_A.weight``."""
        return {f"transformer.{name}": tensor for name, tensor in state.items()}

    def export_metadata(self) -> dict[str, str]:
        """Return architecture, base, revision, and the options that differ from the defaults (never a local path)."""
        options = self.settings.model_dump(mode="json", exclude_defaults=True)
        model = self.settings.model
        if Path(model).is_absolute():
            options.pop("model")
            model = Path(model).name
        else:
            options["model"] = model
        return {
            "modelspec.architecture": "Qwen-Image-Edit-Plus/lora",
            "modelspec.implementation": "https://github.com/huggingface/diffusers",
            "cldistill.base": model,
            "cldistill.base_plugin": self.name,
            "cldistill.base_revision": self.settings.revision or self._commit(),
            "cldistill.base_fingerprint": self.fingerprint,
            "cldistill.base_options": json.dumps(options, sort_keys=True),
        }

    def usage(self, request: UsageRequest) -> Usage:
        """Return how stock diffusers and ComfyUI run a LoRA of this base."""
        return usage.usage(self.settings, request)

    def _commit(self) -> str:
        """Return the commit of a hub snapshot (its folder's name); ``""`` for any other folder."""
        return self._folder.name if self._folder.parent.name == "snapshots" else ""
