"""`cldistill plugins NAME`: one plugin, part or command alone."""

from __future__ import annotations

import pytest

from cldistill.errors import PluginLoadError
from cldistill.testing import catalogue_with
from cldistill_plugins.schema import plugin
from cldistill_plugins.schema.installed import describe, narrowed


def names(name: str) -> list[tuple[str, list[str], list[str]]]:
    found = describe(narrowed(catalogue_with(plugin), name))
    return [
        (one["name"], [c["name"] for c in one["components"]], [c["name"] for c in one["commands"]])
        for one in found["plugins"]
    ]


def test_a_part_a_command_and_a_plugin_are_shown_alone() -> None:
    assert names("tiny-flow") == [("tiny", ["tiny-flow"], [])]
    assert names("schema") == [("cldistill_plugins.schema.plugin", [], ["schema"])]
    assert names("cldistill_plugins.schema.plugin") == [("cldistill_plugins.schema.plugin", [], ["schema", "plugins"])]


def test_a_name_that_nothing_has_comes_with_the_nearest() -> None:
    with pytest.raises(
        PluginLoadError, match="no plugin, part or command is called 'tiny-flo'; did you mean 'tiny-flow'"
    ):
        names("tiny-flo")
