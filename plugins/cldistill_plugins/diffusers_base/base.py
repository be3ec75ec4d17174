"""The common part of bases over a pipeline folder: implements `cldistill.protocols.BaseModel` but for a family's own part."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from cldistill.component import Needs
from cldistill.errors import DataError, OptionsError
from cldistill.protocols import GuidanceMode
from cldistill.records import Tensors
from cldistill_plugins.diffusers_base.encoders import Encoders, quiet, read_model
from cldistill_plugins.diffusers_base.folder import fingerprint
from cldistill_plugins.diffusers_base.quantised import loading_config, require_torchao
from cldistill_plugins.diffusers_base.settings import DiffusersSettings, Size

DECODE_PIXELS = 1024 * 1024
"""The VAE decodes as many pictures at once as have this many pixels together."""
NOT_ENCODED = {
    "model", "revision", "targets", "quantise", "attention", "compiled", "guidance_scale", "guidance_mode",
    "target_guidance_scale", "target_guidance_mode",
}  # fmt: skip
"""Options that change neither an encoding nor an unguided prediction: every other one is in the fingerprint, and
``quantise`` and ``attention`` where they are given."""
GRAPHS = 32
"""Graphs of one block that torch may make; 8 is its own limit."""


class DiffusersBase(ABC):
    """A transformer of diffusers whose tokens are the noised picture's and then its references'.

    An encoded source holds ``latents`` ``[L_ref, C]`` and ``shapes`` ``[1 + n, 2]`` (rows and columns of tokens, the
    output's first); an encoded prompt ``embeds`` ``[T, D]`` and what else a family needs.  All are on the CPU, in the
    base's dtype: ready for the cache.  A family gives the class attributes and the abstract methods.
    """

    name: str
    architecture: ClassVar[str]
    """``modelspec.architecture`` of an exported LoRA."""
    transformer: ClassVar[Any]
    """diffusers' class of the backbone."""
    pipeline: ClassVar[Any]
    """diffusers' class of the pipeline."""
    classes: ClassVar[Mapping[str, Any]]
    """Subfolder -> class of VAE, tokenizers and text encoders."""
    block_lists: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    """Lists of blocks in the transformer, in the order in which they run."""
    compiler: ClassVar[str] = "inductor"
    """Backend of ``torch.compile``, where the option ``compiled`` asks for it."""
    multiple: ClassVar[int] = 16
    """Pixels that a latent token covers."""

    def __init__(
        self, settings: DiffusersSettings, needs: Needs,
        device: str = "cpu", weights: bool = True,
    ) -> None:  # fmt: skip
        description = needs.base
        assert description is not None
        self.settings: Any = settings
        self.adapter_targets: tuple[str, ...] = description.targets
        self.blocks: Mapping[str, int] = description.blocks
        self.guidance_scale: float = settings.guidance_scale
        self.guidance_mode: GuidanceMode = settings.guidance_mode
        self.target_guidance_scale: float = settings.target_guidance_scale
        self.target_guidance_mode: GuidanceMode = settings.target_guidance_mode
        self.resolution: int = settings.resolution
        self.prompt_sees_pictures: bool = description.prompt_sees_pictures
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.compiled: bool = settings.compiled
        self._device = device
        self._weights = weights
        if weights and settings.quantise is not None:
            require_torchao()
        self._folder = settings.folder.fetch() if weights else Path(settings.model)
        hashed = [*self.hashed_options(), *filter(None, (settings.quantise, settings.attention))]
        self.fingerprint: str = fingerprint(self._folder, settings.parts, hashed)
        self._backbone: nn.Module | None = None
        self._grids = WeakIdKeyDictionary()
        self.encoders = self.make_encoders()
        self.encoders.to(device)
        if settings.attention is not None:  # now, not when everything is encoded
            self._require_attention(settings.attention)

    @abstractmethod
    def size(self, picture: Image) -> Size:
        """Return the size at which a reference is encoded, whole tokens."""

    def sizes(self, pictures: Sequence[Image]) -> list[Size]:
        """Return the sizes of the output, by default that of the first reference, and of each reference."""
        own = [self.size(picture) for picture in pictures]
        return [own[0], *own]

    @abstractmethod
    def latents(self, picture: Image, size: Size) -> Tensor:
        """Encode a picture at a size by the mode of the VAE's posterior: ``[L, C]`` on the CPU, rows first."""

    @abstractmethod
    def prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt: ``embeds`` ``[T, D]``, on the CPU."""

    @abstractmethod
    def pictures(self, x0: Tensor, size: Size) -> list[Image]:
        """Decode latents ``[B, L, C]`` of one size, on the base's device and in the VAE's dtype."""

    @abstractmethod
    def inputs(self, source: Tensors, prompt: Tensors, device: torch.device) -> Mapping[str, Any]:
        """Return the transformer's arguments beside tokens, timestep and ``encoder_hidden_states``."""

    def encoded(self, pixels: Tensor) -> Tensor:
        """Return the VAE's latents of preprocessed pixels, normalised as the stock pipeline does."""
        found: Tensor = self.encoders.stock._encode_vae_image(
            pixels.to(self._device, self.encoders.part("vae").dtype), generator=None
        )
        return found

    def shown(self, latents: Tensor) -> list[Image]:
        """Return the pictures of the VAE's latents, of each the only frame where it is a VAE of films."""
        pixels = self.encoders.part("vae").decode(latents, return_dict=False)[0]
        flat = pixels[:, :, 0] if pixels.dim() == 5 else pixels
        found: list[Image] = self.encoders.stock.image_processor.postprocess(flat, output_type="pil")
        return found

    def make_encoders(self) -> Encoders:
        """Make the holder of VAE and text encoders."""
        return Encoders(self._folder, self.dtype, self.pipeline, self.classes)

    def config_changes(self) -> dict[str, Any]:
        """Return entries of the transformer's config that options set."""
        return {}

    def hashed_options(self) -> list[Any]:
        """Return the options that are part of the fingerprint."""
        return sorted(self.settings.model_dump(mode="json", exclude=NOT_ENCODED).items())

    def tokens(self, x: Tensor, source: Tensors) -> Tensor:
        """Return what the transformer reads: noised tokens, then the references'; in the weights' own precision."""
        return torch.cat([x, source["latents"].to(x.device, x.dtype)], dim=1).to(self.dtype)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the transformer's ``timestep``: ``t = 1000 sigma`` in the base's dtype, then divided, as stock does.

        In bf16 the stock pipelines thus see .9570 for .9545; training must see the same.
        """
        return (sigma * 1000).to(self.dtype) / 1000

    @property
    def backbone(self) -> nn.Module:
        """The transformer, read on first use, frozen and in eval mode."""
        if self._backbone is None:
            self._backbone = self._read_backbone() if self._weights else self._structure()
        return self._backbone

    @backbone.setter
    def backbone(self, module: nn.Module) -> None:
        self._backbone = module

    @quiet()
    def _read_backbone(self) -> nn.Module:
        quantised: dict[str, Any] = {}
        if self.settings.quantise is not None:
            quantised["quantization_config"] = loading_config(self.settings.quantise, self.block_lists)
        model = read_model(
            self.transformer, self._folder, "transformer", dtype=self.dtype, **quantised, **self.config_changes()
        )
        return self._hastened(model.to(self._device))

    def _hastened(self, model: Any) -> nn.Module:
        """Let a transformer attend by the backend and compile its blocks as the options say."""
        if self.settings.attention is not None:
            model.set_attention_backend(self.settings.attention)
        if self.compiled:
            # Graphs of a block: one for each slot, with and without gradients, the teacher's and the bare base's.
            torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
            model.compile_repeated_blocks(backend=self.compiler)
        found: nn.Module = model
        return found

    def _require_attention(self, backend: str) -> None:
        """Raise OptionsError for a backend that diffusers does not know, or that lacks its package or device."""
        model: Any = self._structure()
        try:
            model.set_attention_backend(backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise OptionsError(f"base.options.attention: {error}") from error
        model.reset_attention_backend()

    def _structure(self) -> nn.Module:
        """Build the transformer from its config alone, on the meta device: modules and shapes, no weights."""
        with torch.device("meta"):
            model = self.transformer.from_config(self.settings.folder.config() | self.config_changes())
        structure: nn.Module = model.to(self.dtype).requires_grad_(False).eval()
        return structure

    def to(self, device: str) -> None:
        """Move what is loaded, and what will be."""
        self._device = device
        self.encoders.to(device)
        if self._backbone is not None and self._weights:
            self._backbone.to(device)

    @torch.no_grad()
    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        """Encode one item's references: ``latents`` ``[L_ref, C]`` and the token grids of output and references."""
        if not pictures:
            raise DataError("an item needs at least one reference picture")
        output, *sizes = self.sizes(pictures)
        latents = torch.cat([self.latents(picture, size) for picture, size in zip(pictures, sizes, strict=True)])
        shapes = [(height // self.multiple, width // self.multiple) for width, height in (output, *sizes)]
        return {"latents": latents, "shapes": torch.tensor(shapes)}

    @torch.no_grad()
    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Encode an after-picture at the output size of its references: ``[L, C]`` in fp32."""
        return self.latents(picture, self.sizes(pictures)[0]).float()

    @torch.no_grad()
    def encode_prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode a prompt, with its references where the family's encoder sees them: ``embeds`` ``[T, D]``."""
        self.encoders.load_text()
        return self.prompt(prompt, pictures)

    def latent_shape(self, source: Tensors) -> tuple[int, ...]:
        """Return ``(L, C)`` of the output that belongs to an encoded source."""
        rows, columns = source["shapes"][0].tolist()
        return int(rows * columns), int(source["latents"].shape[-1])

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        """Return rows and columns of the output and of each reference."""
        return tuple(int(side) for side in source["shapes"].flatten().tolist())

    def grids(self, source: Tensors) -> list[list[list[int]]]:
        """Return rows and columns of the grids of a collated source, ``[B][1 + n][2]``.

        They are read once a batch, not at every call: on a GPU a read waits for all that was asked for before it.
        """
        shapes = source["shapes"]
        if shapes not in self._grids:
            self._grids[shapes] = shapes.tolist()
        found: list[list[list[int]]] = self._grids[shapes]
        return found

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        """Stack encoded sources, or prompts padded to the longest (``mask`` ``[B, T]``, absent where none is padded).

        Raises `DataError` where the sources of one batch differ in size or number: their tokens cannot be stacked.
        """
        return _collate_prompts(rows) if "embeds" in rows[0] else _collate_sources(rows)

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        """Return the velocity ``[B, L, C]`` in fp32 under the active adapter."""
        device = x.device
        # float32 says nothing about autocast: the run's own mixed precision, if any, stays in force
        with nullcontext() if self.dtype == torch.float32 else torch.autocast(device.type, self.dtype):
            output: Tensor = self.backbone(
                hidden_states=self.tokens(x, source),
                timestep=self.timestep(sigma.to(device)),
                encoder_hidden_states=prompt["embeds"].to(device, self.dtype),
                return_dict=False,
                **self.inputs(source, prompt, device),
            )[0]
        return output[:, : x.shape[1]].float()

    def features(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, at: str) -> Tensor:
        """Return what the block ``at`` gives for the noised tokens, ``[B, L, D]`` in fp32, under the active adapter.

        A block of two streams returns its text and its picture tokens, one of a single stream both in one row; the
        blocks behind it are left out.  What a hook sees is also what leaves a checkpointed block.
        """
        backbone: Any = self.backbone
        name, _, number = at.rpartition(".")
        lists = {kind: getattr(backbone, kind) for kind in self.block_lists}
        seen: list[Any] = []
        handle = lists[name][int(number)].register_forward_hook(lambda block, arguments, output: seen.append(output))
        place = self.block_lists.index(name)
        for index, (kind, blocks) in enumerate(lists.items()):
            keep = len(blocks) if index < place else int(number) + 1 if index == place else 0
            setattr(backbone, kind, blocks[:keep])
        try:
            self.predict(x, sigma, source, prompt)
        finally:
            for kind, blocks in lists.items():
                setattr(backbone, kind, blocks)
            handle.remove()
        rows = seen[0][1] if isinstance(seen[0], tuple) else seen[0][:, prompt["embeds"].shape[1] :]
        noised: Tensor = rows[:, : x.shape[1]].float()
        return noised

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        """Return ``u + w (c - u)``; ``rescaled`` gives each token its conditional norm (diffusers' Qwen pipelines).

        Plain guidance is the same on ``v`` and on ``x0 = x - sigma v``, affine in ``v``.
        """
        combined = unconditional + scale * (conditional - unconditional)
        if mode == "standard":
            return combined
        norm = torch.norm(conditional, dim=-1, keepdim=True)
        rescaled: Tensor = combined * (norm / torch.norm(combined, dim=-1, keepdim=True))
        return rescaled

    @torch.no_grad()
    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        """Decode clean latents ``[B, L, C]`` to pictures of the output size."""
        rows, columns = self.grids(source)[0][0]
        size = int(columns * self.multiple), int(rows * self.multiple)
        vae = self.encoders.part("vae")
        chunks = torch.split(x0, max(1, DECODE_PIXELS // (size[0] * size[1])))
        return [shown for chunk in chunks for shown in self.pictures(chunk.to(self._device, vae.dtype), size)]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text."""
        return tuple(self.encoders.part("tokenizer")(text).input_ids)

    def load_encoders(self) -> None:
        """Bring VAE and text encoders to memory."""
        self.encoders.part("vae")
        self.encoders.load_text()

    def drop_encoders(self) -> None:
        """Release the text encoders; the VAE stays for `decode`."""
        self.encoders.drop_text()

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
        snapshot = self._folder.parent.name == "snapshots"
        return {
            "modelspec.architecture": self.architecture,
            "modelspec.implementation": "https://github.com/huggingface/diffusers",
            "cldistill.base": model,
            "cldistill.base_plugin": self.name,
            "cldistill.base_revision": self.settings.revision or (self._folder.name if snapshot else ""),
            "cldistill.base_fingerprint": self.fingerprint,
            "cldistill.base_options": json.dumps(options, sort_keys=True),
        }


def _collate_sources(rows: Sequence[Tensors]) -> Tensors:
    first = rows[0]["shapes"]
    for row in rows[1:]:
        if row["shapes"].shape != first.shape or not torch.equal(row["shapes"], first):
            raise DataError(
                f"pictures of one batch must have the same aspect and number of references, got token grids "
                f"{first.tolist()} and {row['shapes'].tolist()}; use batch_size: 1 or crop the pictures to one aspect"
            )
    return {name: torch.stack([row[name] for row in rows]) for name in ("latents", "shapes")}


def _collate_prompts(rows: Sequence[Tensors]) -> Tensors:
    embeds = [row["embeds"] for row in rows]
    stacked = nn.utils.rnn.pad_sequence(embeds, batch_first=True)
    lengths = torch.tensor([len(row) for row in embeds], device=stacked.device)
    others = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "embeds"}
    if bool((lengths == stacked.shape[1]).all()):
        return {"embeds": stacked, **others}
    mask = torch.arange(stacked.shape[1], device=stacked.device) < lengths[:, None]
    return {"embeds": stacked, "mask": mask, **others}
