"""The miniature's text side: a byte-level BPE, a tiny Qwen2.5-VL and the stock processor around both.

The tokenizer learns from the stock prompt template, so the template's prefix is exactly the 64 tokens that
`QwenImageEditPlusPipeline` drops. The encoder stays as it is drawn: two random layers already give every prompt its own
states, and the transformer learns to read them. What matters is the scale of the draw: with the usual 0.02 all prompts would
look alike.
"""

import ast
import inspect
import json
import math
from itertools import chain, pairwise

import torch
from diffusers import QwenImageEditPlusPipeline
from tokenizers import Tokenizer, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from cldistill_plugins.miniature.instructions import INSTRUCTIONS

WIDTH = 64
AREA = 56
"""Pixels a side of what the vision tower sees: four tokens."""
VOCABULARY = 1536
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TEMPLATE_PREFIX = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), "
    "then explain how the user's text instruction should alter or modify the image. Generate a new image that meets the "
    "user's requirements while maintaining consistency with the original input where appropriate.<|im_end|>\n<|im_start|>user\n"
)
"""The text that the stock pipeline puts before the pictures and the prompt, and then cuts off as 64 tokens."""
_WORDS = """
a an the this that of in on with and or to into from as by for at it its is are be my your his her their our all every
picture image photo photograph drawing painting portrait scene subject person people man woman child face cat dog animal bird
style effect filter look mood version turn make change convert transform render redraw draw paint repaint edit apply add give
put show keep remove replace use create generate restyle cartoon manga comic anime pencil pen ink crayon chalk charcoal
sketch watercolour watercolor oil pastel acrylic mosaic tile stained glass halftone poster print engraving woodcut etching
linocut stipple dots lines strokes brush stencil pixel pixelated low poly polygon geometric abstract cubist impressionist
expressionist pointillism pop art retro vintage old neon glow fire flame ice snow rain gold golden silver bronze metal stone
wood paper cardboard cloth fabric felt knitted wool clay plastic toy marble frame border hat crown glasses scarf costume
colour color colours colors colourful bright dark light pale soft hard bold thick thin fine rough smooth flat deep warm cold
hot cool red orange yellow green blue purple violet pink brown black white grey gray sepia negative inverted solarized twirl
swirl weave woven ripple wave fog haze mist shadow sun moon star night day city forest sea sky mountain garden background
foreground sharp blurred grainy noise texture pattern striped checked random hand drawn digital modern classic famous artist
century early late very more less much slightly strongly only just like looks looking same identity details composition pose
expression preserving preserved while without changing everything else high quality photorealistic realistic illustration
"""


def build_tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE of at most 1,536 tokens, trained on the stock template, the instructions and words of the trade."""
    blank = Qwen2Tokenizer()
    own: Tokenizer = blank.backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner = Tokenizer(own.model)
    learner.normalizer, learner.pre_tokenizer = own.normalizer, own.pre_tokenizer
    learner.train_from_iterator(_corpus(), trainer)
    tokenizer = Qwen2Tokenizer(
        vocab=learner.get_vocab(),
        merges=_merges(learner),
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=1024,
    )
    return tokenizer


def _corpus() -> list[str]:
    wordings = list(chain.from_iterable(instruction.wordings for instruction in INSTRUCTIONS.values()))
    template = TEMPLATE_PREFIX
    for token in SPECIAL_TOKENS:
        template = template.replace(token, "\n")
    words = _WORDS.split()
    spaced = [f"{first} {second}" for first, second in pairwise(words)]
    frame = ["system\n", "user\n", "assistant\n", "Picture 1: Picture 2: "]
    return [template] * 50 + frame * 20 + wordings * 4 + words * 2 + spaced * 2


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    merges: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges]


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2VLProcessor:
    """The stock processor, its pictures always 56×56 pixels: 16 patches, four tokens."""
    size = {"shortest_edge": AREA * AREA, "longest_edge": AREA * AREA}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
    )


def build_text_encoder(tokenizer: Qwen2Tokenizer, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """A random Qwen2.5-VL of 0.3 M parameters whose last states tell prompts apart."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    end = ids["<|endoftext|>"]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        bos_token_id=end, eos_token_id=end, pad_token_id=end, tie_word_embeddings=True,
    )  # fmt: skip
    encoder = Qwen2_5_VLForConditionalGeneration(config).eval().requires_grad_(False)
    encoder.generation_config.bos_token_id = encoder.generation_config.eos_token_id = end
    encoder.generation_config.pad_token_id = end
    _draw(encoder, torch.Generator().manual_seed(seed))
    return encoder


@torch.no_grad()
def _draw(encoder: nn.Module, generator: torch.Generator) -> None:
    """Unit-variance embeddings and variance-keeping layers.

    A picture's token is a fixed random word plus a quarter of its size from the pixels: the norms scale every token to one
    size, so without the fixed part pictures would drown the prompt.
    """
    for name, parameter in encoder.named_parameters():
        if name.endswith("merger.mlp.2.bias"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            continue
        if parameter.ndim < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        embedding = "embed_tokens" in name or "lm_head" in name
        spread = 1.0 if embedding else 1 / math.sqrt(parameter[0].numel())
        if "merger.mlp.2" in name:
            spread *= 0.25
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def prefix_length(tokenizer: Qwen2Tokenizer) -> int:
    """Return the number of tokens of the template's prefix; the stock pipeline cuts off 64."""
    return len(tokenizer(TEMPLATE_PREFIX)["input_ids"])


def stock_template() -> str:
    """The prompt template as the installed pipeline holds it, `{}` where pictures and prompt go."""
    source = inspect.getsource(QwenImageEditPlusPipeline.__init__)
    line = next(line for line in source.splitlines() if "self.prompt_template_encode =" in line)
    template: str = ast.literal_eval(line.split("=", 1)[1].strip())
    return template
