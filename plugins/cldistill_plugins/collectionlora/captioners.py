"""Captions that need no network: the teacher's prompt, with generic words for the subject (paper section 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter
from typing import Protocol

from cldistill.records import EffectInfo

FIELDS = ("name", "prompt")
ONE = "man|woman|boy|girl|lady|guy|gentleman|child|kid|baby|cat|kitten|dog|puppy|bird|horse|rabbit|animal|pet"
MANY = "men|women|boys|girls|ladies|guys|children|kids|babies|cats|kittens|dogs|puppies|birds|horses|animals|pets"
_SUBJECT = re.compile(rf"\b(the|this|that|these|those|my|our|your)\s+(?:{ONE}|({MANY}))\b", re.IGNORECASE)


class Captioner(Protocol):
    """Writes what the student is told about an effect, without the trigger."""

    def caption(self, effect: EffectInfo) -> str:
        """Return the caption of one effect."""

    def preview(self, effect: EffectInfo) -> str:
        """Return the caption as far as it is known without asking anybody."""


@dataclass(frozen=True)
class TemplateCaptioner:
    """Fills ``template``, which may hold ``{prompt}`` and ``{name}``: offline and deterministic."""

    template: str = "{prompt}"

    def caption(self, effect: EffectInfo) -> str:
        """Return the filled template on one line."""
        return " ".join(self.template.format(name=effect.name, prompt=generic(effect.prompt)).split())

    def preview(self, effect: EffectInfo) -> str:
        """Same as `caption`."""
        return self.caption(effect)


def generic(prompt: str) -> str:
    """Call the subject of a prompt "the subject", so that an effect learned on cats is not asked for as one of cats.

    Only definite words are replaced: "the cat" is what the pictures show, "a cat" may be what they turn into.
    """

    def replace(match: re.Match[str]) -> str:
        article = "The" if match[1][0].isupper() else "the"
        return f"{article} subjects" if match[2] else f"{article} subject"

    return _SUBJECT.sub(replace, prompt)


def check_template(template: str) -> str:
    """Return the template if it can be filled; raises ValueError with the fields that there are."""
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}") from None
    unknown = [field for field in fields if field not in FIELDS]
    if unknown or not fields:
        raise ValueError(f"{template!r} must hold {{prompt}} or {{name}}, and no other fields")
    return template
