"""The text side: the stock template's prefix, and states that tell prompts apart."""

import numpy as np
import pytest
import torch

from cldistill_plugins.miniature.build.latents import Writer, open_writer
from cldistill_plugins.miniature.build.text import (
    SPECIAL_TOKENS,
    TEMPLATE_PREFIX,
    build_tokenizer,
    prefix_length,
    stock_template,
)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return open_writer()


def _pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(count)]


def test_the_prefix_is_what_the_stock_pipeline_drops() -> None:
    tokenizer = build_tokenizer()
    assert stock_template().startswith(TEMPLATE_PREFIX)
    assert prefix_length(tokenizer) == 64
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.eos_token_id < len(tokenizer)


def test_any_text_goes_through_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    for text in ("zorvex", "Ünïcode → 漢字 🦊", "two  spaces\tand a tab", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert build_tokenizer().get_vocab() == build_tokenizer().get_vocab()


def test_a_batch_gives_what_single_prompts_give(writer: Writer) -> None:
    prompts, pictures = ["make it darker", "", "turn it into zorvex manga with bold ink lines"], _pictures(3)
    together, lengths = writer.embed(prompts, pictures)
    for index, prompt in enumerate(prompts):
        alone, length = writer.embed([prompt], [pictures[index]])
        assert length[0] == lengths[index]
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=0)
        assert not together[index, lengths[index] :].any()


def test_prompts_differ_more_than_pictures_do(writer: Writer) -> None:
    """Unseen triggers included: the state at the end of the prompt says which prompt it was, whatever the picture."""
    prompts = [
        "make it darker",
        "make it brighter",
        "turn it into zorvex style",
        "turn it into quilmar style",
        "blur it",
    ]
    pictures = _pictures(6)
    ends = []
    for prompt in prompts:
        text, lengths = writer.embed([prompt] * len(pictures), pictures)
        # Six tokens follow every prompt, so its last own token is the sixth from the end.
        ends.append(text[torch.arange(len(pictures)), lengths - 6])
    states = torch.stack(ends)
    centres = states.mean(1)
    within = (states - centres[:, None]).square().sum(-1).max()
    between = torch.pdist(centres).square().min()
    assert between > 4 * within
