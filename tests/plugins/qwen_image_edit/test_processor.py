"""The prompt processor gives what transformers' own gives, bit for bit, and needs no torchvision."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2Tokenizer, Qwen2VLProcessor

from cldistill.errors import OptionsError
from cldistill_plugins.qwen_image_edit.processor import PictureConfig, PromptProcessor, read_picture_config


def load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)


def processor(folder: Path) -> PromptProcessor:
    return PromptProcessor(load_tokenizer(folder), read_picture_config(folder))


SIZES = [(56, 56), (61, 130), (448, 384), (20, 300), (1000, 700), (8, 8)]
TEXT = "<|im_start|>user\nPicture 1: <|vision_start|><|image_pad|><|vision_end|>"


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SIZES)
def test_one_picture_equals_the_stock_processor(folder: Path, size: tuple[int, int]) -> None:
    stock = Qwen2VLProcessor.from_pretrained(folder, subfolder="processor", local_files_only=True)
    text = [TEXT + "make it darker<|im_end|>"]
    expected = stock(text=text, images=[photo(*size)], padding=True, return_tensors="pt")
    found = processor(folder)(text, [photo(*size)], padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"):
        assert torch.equal(found[name], expected[name]), name
        assert found[name].dtype == expected[name].dtype


def test_two_pictures_of_two_sizes_keep_their_order(folder: Path) -> None:
    stock = Qwen2VLProcessor.from_pretrained(folder, subfolder="processor", local_files_only=True)
    text, pictures = (
        [TEXT + "and 2: <|vision_start|><|image_pad|><|vision_end|> mix"],
        [photo(90, 60), photo(60, 90, 1)],
    )
    expected = stock(text=text, images=pictures, padding=True, return_tensors="pt")
    found = processor(folder)(text, pictures, padding=True, return_tensors="pt")
    for name in ("input_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(found[name], expected[name]), name


def test_a_prompt_without_pictures_is_its_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    found = PromptProcessor(tokenizer, PictureConfig())(["darker"], padding=True, return_tensors="pt")
    assert set(found) == {"input_ids", "attention_mask"}
    assert torch.equal(found["input_ids"], tokenizer(["darker"], return_tensors="pt")["input_ids"])


def test_the_config_is_read_as_either_transformers_writes_it(folder: Path, tmp_path: Path) -> None:
    new = read_picture_config(folder)
    assert (new.min_pixels, new.max_pixels) == (56 * 56, 384 * 384)
    told = json.loads((folder / "processor/processor_config.json").read_text())["image_processor"]
    size = told.pop("size")
    (tmp_path / "processor").mkdir()
    old = told | {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    (tmp_path / "processor/preprocessor_config.json").write_text(json.dumps(old))
    assert read_picture_config(tmp_path) == new
    shutil.rmtree(tmp_path / "processor")
    with pytest.raises(OptionsError, match=r"has no processor/processor_config\.json"):
        read_picture_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", r"processor_config\.json is not JSON .*fetch it again"),
        (b"\xff{}", r"processor_config\.json is not JSON .*fetch it again"),
        (b"[" * 200_000, r"processor_config\.json is not JSON .*nested too deeply.*fetch it again"),
        (b"[]", r"processor_config\.json holds no JSON object; fetch it again"),
        (b'{"image_processor": 5}', r"its processor/ cannot be used .*fetch it again"),
        (b'{"size": "large"}', r"its processor/ cannot be used .*fetch it again"),
        (b'{"patch_size": "x"}', r"(?s)its processor/ cannot be used .*patch_size.*fetch it again"),
        (b'{"merge_size": -2}', r"(?s)its processor/ cannot be used .*merge_size.*fetch it again"),
        (b'{"image_mean": [0.5]}', r"(?s)its processor/ cannot be used .*image_mean.*fetch it again"),
    ],
)
def test_a_damaged_config_is_refused(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "processor").mkdir()
    (tmp_path / "processor/processor_config.json").write_bytes(text)
    with pytest.raises(OptionsError, match=told) as error:
        read_picture_config(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_picture_that_is_a_line_is_refused(folder: Path) -> None:
    with pytest.raises(OptionsError, match="a picture of 2000 x 5 is too long"):
        processor(folder)([TEXT], [photo(2000, 5)], padding=True, return_tensors="pt")


@pytest.mark.slow(9)
def test_the_base_is_loaded_without_torchvision() -> None:
    """`pip install cldistill` brings none: the CPU build of torch, for one, has no torchvision beside it."""
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import cldistill_plugins.qwen_image_edit.base, cldistill.runner, cldistill.collection.collection\n"
        "import cldistill.testing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
