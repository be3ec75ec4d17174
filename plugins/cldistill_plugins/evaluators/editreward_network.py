"""EditReward's network: Qwen2.5-VL without its vocabulary head, and two small heads that read the reward token.

Each head answers a prompt of its own with ``(mean, log sigma)`` of a Gaussian reward; the score is the mean of both means
(its authors' ``ranknet_multi_head`` with ``pooling_strategy: mean``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from cldistill.errors import NotMeasured

from .editreward_prompts import TOKEN, RewardPrompts
from .models import unusable

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = 256 * 28 * 28
"""Every picture is brought to this area before the model sees it: 256 tokens."""
FACTOR = 28
"""Pixels a side of one token: patches of 14, merged two by two."""
OLD_NAMES = {
    "visual.": "model.visual.",
    "model.layers.": "model.language_model.layers.",
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.norm.": "model.language_model.norm.",
}
"""Beginnings of names that older versions of transformers wrote -> today's."""


class RewardNetwork(nn.Module):
    """Backbone and heads; the names of its tensors are those of the published checkpoint."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__()
        self.model = Qwen2_5_VLModel(config)
        width = config.text_config.hidden_size
        self.rm_heads = nn.ModuleDict({f"head_{index}": _head(width) for index in range(2)})

    def forward(self, inputs: dict[str, Tensor], head: int, token: int) -> Tensor:
        """Return ``(mean, log sigma)``, ``[2]`` in fp32, of one unpadded sequence ``input_ids [1, T]`` with its pictures.

        Positions count plainly through text and pictures: the model was trained so, without Qwen's positions in space.
        """
        ids = inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, 1, -1)
        hidden = self.model(
            input_ids=ids,
            position_ids=positions,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
            use_cache=False,
        ).last_hidden_state
        found: Tensor = self.rm_heads[f"head_{head}"](hidden[ids == token].float())[0]
        return found


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


@dataclass(frozen=True)
class Scorer:
    """A loaded network with its processor and prompts."""

    network: RewardNetwork
    processor: Any
    prompts: RewardPrompts
    device: str

    @property
    def token(self) -> int:
        """Id of the reward token."""
        return int(self.processor.tokenizer.convert_tokens_to_ids(TOKEN))

    @torch.no_grad()
    def score(self, source: Image, edited: Image, instruction: str) -> float:
        """Return the reward of an edit: unbounded, in practice between -3 and 2."""
        pictures = [_resized(source), _resized(edited)]
        means = [
            float(self.network(self._inputs(pictures, text), head, self.token)[0])
            for head, text in enumerate(self.prompts.texts(instruction.replace(TOKEN, "")))
        ]
        return sum(means) / len(means)

    def _inputs(self, pictures: list[Image], text: str) -> dict[str, Tensor]:
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
        chat = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        made = self.processor(text=[chat], images=pictures, do_resize=False, return_tensors="pt")
        return {name: value.to(self.device) for name, value in made.items()}


def _resized(picture: Image) -> Image:
    """Return a picture of `PIXELS`, as far as both sides can be multiples of `FACTOR`."""
    height, width = smart_resize(picture.height, picture.width, FACTOR, PIXELS, PIXELS)
    return picture.convert("RGB").resize((width, height), _bicubic())


def _bicubic() -> Any:
    from PIL.Image import Resampling

    return Resampling.BICUBIC


def load_scorer(
    weights: Path, base: Path, dtype: Literal["bfloat16", "float32"], prompts: RewardPrompts, device: str
) -> Scorer:
    """Load the network: every tensor from the checkpoint, none drawn.

    Raises:
        NotMeasured: a file is missing or does not fit.
    """
    from accelerate import init_empty_weights
    from tokenizers import AddedToken

    try:
        processor = AutoProcessor.from_pretrained(base, local_files_only=True)
        processor.tokenizer.add_tokens([AddedToken(TOKEN, special=True, normalized=False)], special_tokens=True)
        config = Qwen2_5_VLConfig.from_pretrained(base, local_files_only=True)
        if config.model_type != "qwen2_5_vl":
            raise NotMeasured(f"the base in {base} is a {config.model_type}; only Qwen2.5-VL is read")
        config.text_config.vocab_size = len(processor.tokenizer)
        with init_empty_weights(include_buffers=False):
            network = RewardNetwork(config)
        network.load_state_dict(_state(weights, getattr(torch, dtype)), strict=True, assign=True)
    except NotMeasured:
        raise
    except Exception as error:  # whatever the libraries make of files that are not theirs
        raise unusable(weights, error) from error
    return Scorer(network.to(device).eval().requires_grad_(False), processor, prompts, device)


def _state(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read a checkpoint, in safetensors or as ``model.pth``, under today's names and without the vocabulary head."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    if not state:
        if not (folder / "model.pth").is_file():
            raise NotMeasured(f"{folder} holds neither safetensors nor model.pth")
        state = torch.load(folder / "model.pth", map_location="cpu", weights_only=True, mmap=True)
        state = state.get("model", state)  # type: ignore[assignment]
    kept = {_today(name): value for name, value in state.items() if not name.startswith("lm_head.")}
    return {name: value.to(torch.float32 if name.startswith("rm_heads.") else dtype) for name, value in kept.items()}


def _today(name: str) -> str:
    old = next((old for old in OLD_NAMES if name.startswith(old)), None)
    return name if old is None else OLD_NAMES[old] + name.removeprefix(old)
