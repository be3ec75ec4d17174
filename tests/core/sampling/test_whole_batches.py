"""Batches are sampled whole, in the same company, whatever a killed run left of one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from cldistill.data.dataset import Example
from cldistill.records import Tensors
from cldistill.sampling.image_generator import SAMPLE_BATCH, ImageGenerator, SamplingConfig


class Together(ImageGenerator):
    """Samples in numbers: each says how many there were beside it."""

    def _sample(self, config: SamplingConfig, examples: Sequence[Example]) -> tuple[Tensor, Tensors]:
        return torch.full((len(examples), 1), float(len(examples))), {}


def test_only_batches_that_lack_something_are_sampled_and_those_whole() -> None:
    generator = Together(*[cast(Any, None)] * 3)
    examples = [cast(Any, SimpleNamespace(batch_key=(1,), shape=(1,)))] * (2 * SAMPLE_BATCH + 3)
    config = cast(Any, None)
    unbroken = {
        i: float(v) for chunk, x0, _ in generator.latents(config, examples) for i, v in zip(chunk, x0, strict=True)
    }
    assert len(unbroken) == len(examples)
    wanted = {SAMPLE_BATCH + 5, 2 * SAMPLE_BATCH}
    again = {
        i: float(v)
        for chunk, x0, _ in generator.latents(config, examples, wanted)
        for i, v in zip(chunk, x0, strict=True)
    }
    assert again == {index: value for index, value in unbroken.items() if index >= SAMPLE_BATCH}
    assert not list(generator.latents(config, examples, ()))
