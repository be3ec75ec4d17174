"""Queries: fixed phrases, drawn by a seed, for every effect of the bank that ships."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from cldistill.errors import DataError
from cldistill_plugins.deployment.queries import (
    TEMPLATES,
    BankEffect,
    fallback,
    make_queries,
    read_bank,
    read_phrases,
)

BANK = Path(str(files("cldistill_registry"))) / "effects" / "effectbench.yaml"


def test_every_effect_of_the_bank_has_phrases_or_a_number_for_a_name() -> None:
    phrases, names = read_phrases(), [effect.name for effect in read_bank(BANK)]
    assert set(phrases) <= set(names)
    assert all(len(found) == len(set(found)) == 2 for found in phrases.values())
    assert all(name.startswith("painting-") for name in names if name not in phrases)


def test_the_seed_decides() -> None:
    bank, phrases = read_bank(BANK)[:20], read_phrases()
    queries = make_queries(bank, phrases, 200, seed=3)
    assert queries == make_queries(bank, phrases, 200, seed=3) != make_queries(bank, phrases, 200, seed=4)
    assert {query.effect for query in queries} == {effect.name for effect in bank}
    for query in queries:
        assert query.described
        assert any(template.format(phrase) == query.text for template in TEMPLATES for phrase in phrases[query.effect])


def test_an_effect_without_phrases_is_asked_for_by_name_and_prompt() -> None:
    effect = BankEffect(name="painting-07-corner", prompt="paint it")
    assert fallback(effect) == ("use painting 07 corner", "paint it, the one called painting 07 corner")
    (query,) = make_queries([effect], {}, 1)
    assert (
        not query.described and "painting 07 corner" in query.text and effect.listing == "painting 07 corner: paint it"
    )


@pytest.mark.parametrize(
    "text", ["[]", "3", "{name: x}", "- {prompt: x}", "[{name: a}, {name: a}]", "- {", "[" * 9999, "\xe4", "\0"]
)
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bank.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"bank\.yaml"):
        read_bank(tmp_path / "bank.yaml")
    for phrases in ("a: just one", text):
        (tmp_path / "phrases.yaml").write_text(phrases, encoding="latin-1")
        with pytest.raises(DataError, match="no map of effects to phrases"):
            read_phrases(tmp_path / "phrases.yaml")
