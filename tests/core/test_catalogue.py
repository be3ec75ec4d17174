"""The catalogue: names, owners, clashes and what is missing."""

from __future__ import annotations

import pytest

from cldistill.catalogue import Catalogue
from cldistill.component import Needs, Settings, loss_term, metric
from cldistill.errors import PluginLoadError
from cldistill.plugins import LoadedPlugin, Owner, PluginFailure, PluginSet


def plugin(distribution: str, *names: str) -> LoadedPlugin:
    losses = tuple(loss_term(n, "", Settings, lambda s: Needs(), lambda s, c: pytest.fail("built")) for n in names)
    return LoadedPlugin(Owner(f"{distribution}-plugin", distribution, "1.0"), losses)


def message(catalogue: Catalogue, name: str) -> str:
    with pytest.raises(PluginLoadError) as caught:
        catalogue.get("loss_term", name)
    return str(caught.value)


def test_a_component_comes_with_its_owner() -> None:
    catalogue = Catalogue(PluginSet((plugin("a", "one", "two"),)))
    entry = catalogue.get("loss_term", "two")
    assert (entry.component.name, str(entry.owner)) == ("two", "plugin 'a-plugin' of a 1.0")
    assert catalogue.names("loss_term") == ("one", "two")
    assert catalogue.names("metric") == ()


def test_one_name_may_stand_for_several_kinds() -> None:
    other = metric("one", "", Settings, lambda s: Needs(), lambda s, c: pytest.fail("built"))
    catalogue = Catalogue(PluginSet((plugin("a", "one"), LoadedPlugin(Owner("m", "m", "1"), (other,)))))
    assert catalogue.get("metric", "one").component is other
    assert catalogue.clashes() == ()


def test_a_clash_names_both_owners_and_hurts_only_who_names_it() -> None:
    catalogue = Catalogue(PluginSet((plugin("a", "one", "two"), plugin("b", "one"))))
    text = message(catalogue, "one")
    assert "'one' is registered more than once, by plugin 'a-plugin' of a 1.0 and plugin 'b-plugin' of b 1.0" in text
    assert catalogue.clashes() == (text,)
    assert catalogue.get("loss_term", "two").owner.distribution == "a"


def test_a_missing_name_gets_the_nearest_or_all() -> None:
    catalogue = Catalogue(PluginSet((plugin("a", "bs-dmd", "ta-fm"),)))
    assert message(catalogue, "bs-dmb") == "no loss term is called 'bs-dmb'; did you mean 'bs-dmd'?"
    assert message(catalogue, "zzz") == "no loss term is called 'zzz'; valid: bs-dmd, ta-fm"
    assert message(Catalogue(PluginSet()), "zzz") == "no loss term is called 'zzz'; none is installed"


def test_a_missing_name_quotes_the_first_failure() -> None:
    failures = tuple(PluginFailure(name, f"{name}-dist", "2.0", ImportError("no lpips")) for name in ("p", "q"))
    assert message(Catalogue(PluginSet((), failures)), "zzz").splitlines()[1] == (
        "A plugin that might offer it failed to load: plugin 'p' of p-dist 2.0: ImportError: no lpips "
        "(and 1 more: see `cldistill plugins`)"
    )
