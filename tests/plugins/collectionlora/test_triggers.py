"""Trigger words: from the name alone, pronounceable, and told apart before and after tokenisation."""

from __future__ import annotations

import re

import pytest

from cldistill.errors import OptionsError
from cldistill_plugins.collectionlora.triggers import (
    CODAS,
    ENDINGS,
    ONSETS,
    UNFORTUNATE,
    VOWELS,
    assign_triggers,
    check_distinct,
    trigger_word,
)

NAMES = [f"effect-{number}" for number in range(500)]


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_words_are_pinned() -> None:
    """These went into people's collections: they must never change."""
    assert trigger_word("manga-tone") == "vullodiz"
    assert trigger_word("gold-frame") == "jogbudek"
    assert trigger_word("gold-frame", skip=1) == "sirpamix"


def test_adding_removing_and_reordering_effects_changes_no_word() -> None:
    few, many = assign_triggers(NAMES[:50], {}), assign_triggers(list(reversed(NAMES)), {})
    assert {name: many[name] for name in few} == few


def test_words_are_pronounceable_and_different() -> None:
    syllables = re.compile(rf"[{ONSETS}][{VOWELS}][{CODAS}][{ONSETS}][{VOWELS}][{ONSETS}][{VOWELS}][{ENDINGS}]")
    words = [trigger_word(name) for name in NAMES]
    assert all(syllables.fullmatch(word) for word in words)
    assert len(set(words)) == len(words)


def test_unfortunate_words_are_passed_over() -> None:
    words = [trigger_word(f"{number}") for number in range(5000)]
    assert not [word for word in words if any(part in word for part in UNFORTUNATE)]


def test_a_chosen_word_wins() -> None:
    assert assign_triggers(["a", "b"], {"b": "zorvex"}) == {"a": trigger_word("a"), "b": "zorvex"}


def test_a_collision_names_both_effects_and_a_way_out() -> None:
    with pytest.raises(OptionsError) as error:
        assign_triggers(["a", "b"], {"b": trigger_word("a")})
    text = str(error.value)
    assert "'a' and 'b'" in text and f"triggers: {{a: {trigger_word('a', 1)}}}" in text


@pytest.mark.parametrize("inner", ["zorv", "vex", "ORVE", "Zorvex"])
def test_a_word_inside_another_is_refused(inner: str) -> None:
    with pytest.raises(OptionsError, match="cannot be told apart"):
        assign_triggers(["a", "b"], {"a": "zorvex", "b": inner})


def test_a_trigger_for_an_unknown_effect_names_the_nearest() -> None:
    with pytest.raises(OptionsError, match=r"triggers.mangatone: there is no effect .* did you mean 'manga-tone'"):
        assign_triggers(["manga-tone", "gold-frame"], {"mangatone": "zorvex"})


def test_equal_tokens_are_refused_although_the_words_differ() -> None:
    check_distinct({"a": "zorvex", "b": "lumkidaz"}, letters)
    with pytest.raises(OptionsError, match="'zorvex' and 'lumkidaz' cannot be told apart"):
        check_distinct({"a": "zorvex", "b": "lumkidaz"}, lambda text: [0])  # one unknown token for everything


def test_the_form_inside_a_sentence_counts_too() -> None:
    """Distinct at the start of a prompt, but the tokenizer knows neither with a space before it."""

    def tokenize(text: str) -> list[int]:
        return [7] if text.startswith(" ") else letters(text)

    with pytest.raises(OptionsError, match="cannot be told apart"):
        check_distinct({"a": "zorvex", "b": "lumkidaz"}, tokenize)


def test_tokens_in_the_middle_of_another_are_refused() -> None:
    tokens = {"aa": (1, 2, 3, 4), "bb": (2, 3)}
    with pytest.raises(OptionsError, match="effects 'y' and 'x'"):
        check_distinct({"x": "aa", "y": "bb"}, lambda text: tokens[text.strip()])


def test_a_word_that_the_tokenizer_drops_is_refused() -> None:
    with pytest.raises(OptionsError, match="sees nothing in its trigger 'zorvex'"):
        check_distinct({"a": "zorvex"}, lambda text: [])
