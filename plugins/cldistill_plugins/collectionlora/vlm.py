"""Captions by a vision-language model behind any OpenAI-compatible endpoint (paper section 3.2).

Two of the effect's pairs and its teacher's prompt go in, one prompt comes out.  Answers are cached under the content
that they depend on, so a run asks once and a resumed or repeated run not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.items import drawn_by_name, open_picture, pairs_of
from cldistill.errors import EndpointError
from cldistill.records import EffectInfo, Item
from cldistill.storage.files import atomic_write_text, partial_path, sha256_file
from cldistill.storage.untrusted import parse_json
from cldistill_plugins.endpoint.api import SIDE, ChatQuestion, Endpoint, MalformedAnswerError, without_thoughts

if TYPE_CHECKING:
    from PIL.Image import Image

PAIRS = 2
LONGEST = 800
"""Characters of a usable caption: the text encoder's window is what a longer one would waste."""
HELP = "check prompts.options, or use captioner: template, which needs no endpoint"
INSTRUCTIONS = """\
You write prompts for an image-editing model. You see before/after pairs of one visual effect, and the prompt that the \
effect was first made with. Write one prompt that asks for this effect on any other picture.
- Say concretely what changes: style, material, colours, light, texture, background, what is added.
- Call what is pictured "the subject": the effect must not be tied to the animals, people or things of these pairs.
- Mention viewpoint or framing only if it is the same in all of the after pictures.
- Answer with the prompt alone: English, one or two sentences, no quotation marks, no introduction."""


@dataclass(frozen=True)
class VlmCaptioner:
    """Asks ``endpoint``; keeps the answers in ``cache``."""

    endpoint: Endpoint
    cache: Path

    def caption(self, effect: EffectInfo) -> str:
        """Return the cached caption of an effect, or ask for it.  Raises `EndpointError` without a usable answer."""
        pairs = sample_pairs(effect)
        path = self.cache / f"{self._key(effect, pairs)}.json"
        known = _read(path)
        if known is not None:
            return known
        answer = self.endpoint.ask(_question(effect, pairs).messages(), clean_caption, f"effect {effect.name!r}")
        return self._keep(path, effect, answer)

    def preview(self, effect: EffectInfo) -> str:
        """Return the cached caption, or say who will write it."""
        known = _read(self.cache / f"{self._key(effect, sample_pairs(effect))}.json")
        return known or f"(a caption that {self.endpoint.model} will write for: {effect.prompt})"

    def _key(self, effect: EffectInfo, pairs: Sequence[Item]) -> str:
        """Hash all that the answer depends on; the address is not part of it, the same model may move."""
        pictures = [[sha256_file(path) for path in _pictures(pair)] for pair in pairs]
        parts = [INSTRUCTIONS, SIDE, self.endpoint.model, self.endpoint.temperature, effect.prompt, pictures]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _keep(self, path: Path, effect: EffectInfo, caption: str) -> str:
        """Store an answer unless another process was faster: all ranks must train on the same caption."""
        record = {"caption": caption, "effect": effect.name, "model": self.endpoint.model, "prompt": effect.prompt}
        mine = partial_path(path)
        atomic_write_text(mine, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        if path.exists() and _read(path) is None:
            path.unlink()
        try:
            path.hardlink_to(mine)  # unlike a rename, this leaves a faster process's answer in place
            mine.unlink()
        except FileExistsError:
            mine.unlink()
        except OSError:  # a file system without links
            mine.replace(path)
        return _read(path) or caption


def sample_pairs(effect: EffectInfo) -> list[Item]:
    """Return two of the effect's pairs, always the same ones: those whose names hash lowest."""
    if effect.pairs is None:
        raise EndpointError(
            f"effect {effect.name!r} has no pairs, and the vlm captioner looks at two: give the effect `pairs`, "
            f"write its caption yourself (prompts.options.captions: {{{effect.name}: …}}), or use captioner: template"
        )
    return drawn_by_name(pairs_of(effect), PAIRS)


def clean_caption(answer: str) -> str:
    """Return the prompt inside a model's answer: without thoughts, fences, labels, quotation marks and line breaks.

    Raises `MalformedAnswerError` where nothing usable is left.
    """
    text = re.sub(r"^\s*```\w*\n?|```\s*$", "", without_thoughts(answer))
    text = re.sub(r"^\s*\W*(?:edit(?:ing)? )?prompt\W*:\W*", "", text, flags=re.IGNORECASE)
    text = " ".join(text.split()).strip("\"'“”‘’`* ")
    if not text:
        raise MalformedAnswerError("the answer holds no text")
    if len(text) > LONGEST:
        raise MalformedAnswerError(f"the answer has {len(text)} characters, more than a prompt of {LONGEST}")
    return text


def _question(effect: EffectInfo, pairs: Sequence[Item]) -> ChatQuestion:
    parts: list[str | Image] = [f"The effect was made with: {effect.prompt}"]
    for number, pair in enumerate(pairs, start=1):
        for path, when in zip(_pictures(pair), ["before"] * len(pair.sources) + ["after"], strict=True):
            parts += [f"Pair {number}, {when}:", open_picture(path)]
    return ChatQuestion(INSTRUCTIONS, parts)


def _pictures(pair: Item) -> list[Path]:
    assert pair.target is not None, "a captioner is given complete pairs only"
    return [*pair.sources, pair.target]


def _read(path: Path) -> str | None:
    """Return a cached caption; None where there is none, or the file is damaged."""
    try:
        caption = parse_json(path.read_bytes())["caption"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return caption if isinstance(caption, str) and caption else None
