"""Discovery: every entry point in isolation, and every way in which a plugin can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from cldistill.component import Needs, Settings, loss_term, metric
from cldistill.errors import PluginLoadError
from cldistill.hookspecs import PluginHooks
from cldistill.markers import hookimpl
from cldistill.plugins import HOOK_KINDS, HOOKS, Owner, discover, register

Install = Callable[..., EntryPoint]

GOOD = """
    from cldistill.component import Needs, Settings, loss_term
    from cldistill.markers import hookimpl

    @hookimpl
    def register_loss_terms():
        return [loss_term("{name}", "a loss", Settings, lambda s: Needs(), lambda s, c: None)]
"""


def a_loss(name: str = "mine") -> object:
    return loss_term(name, "a loss", Settings, lambda s: Needs(), lambda s, c: pytest.fail("built"))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one plugin, really on ``sys.path`` with its metadata."""

    def make(name: str, module: str, code: str, dist: str = "some-dist", version: str = "1.2") -> EntryPoint:
        folder = tmp_path / dist
        info = folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(dedent(code))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[cldistill]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(folder))
        return next(iter(distribution(dist).entry_points))

    return make


# --- discovery


def test_an_installed_plugin_is_found_with_its_owner(install: Install) -> None:
    install("wobble", "wobble_plugin", GOOD.format(name="wobble"))
    found = next(plugin for plugin in discover().loaded if plugin.owner.plugin == "wobble")
    assert found.owner == Owner("wobble", "some-dist", "1.2", "wobble_plugin")
    assert [(c.kind, c.name) for c in found.components] == [("loss_term", "wobble")]


def test_broken_plugins_are_reported_and_hurt_no_other(install: Install) -> None:
    points = [
        install("b-exits", "exits", "raise SystemExit(3)", "exits", "0.1"),
        install("c-imports", "imports", "import no_such_module_at_all", "imports", "0.2"),
        install("d-good", "good", GOOD.format(name="good"), "good", "0.3"),
        install("a-raises", "raises", "raise RuntimeError('boom')", "raises", "0.4"),
    ]
    found = discover(points, disabled=())
    assert [plugin.owner.plugin for plugin in found.loaded] == ["d-good"]
    assert [(f.name, f.distribution, f.version) for f in found.failures] == [
        ("a-raises", "raises", "0.4"), ("b-exits", "exits", "0.1"), ("c-imports", "imports", "0.2"),
    ]  # fmt: skip
    assert str(found.failures[0]) == "plugin 'a-raises' of raises 0.4: RuntimeError: boom"


def test_disabled_plugins_are_not_even_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    point = install("trap", "trap", "raise RuntimeError('imported')")
    monkeypatch.setenv("CLDISTILL_DISABLE_PLUGINS", "other, trap ,")
    found = discover([point])
    assert (found.loaded, found.failures, found.disabled) == ((), (), ("other", "trap"))


def test_two_entry_points_of_one_name_are_both_kept(install: Install) -> None:
    points = [
        install("same", "second", GOOD.format(name="second"), "z-dist"),
        install("same", "first", GOOD.format(name="first"), "a-dist"),
    ]
    owners = [(plugin.owner.distribution, plugin.components[0].name) for plugin in discover(points, ()).loaded]
    assert owners == [("a-dist", "first"), ("z-dist", "second")]


def test_the_built_in_plugins_load() -> None:
    found = discover(disabled=())
    assert [str(failure) for failure in found.failures if failure.distribution == "cldistill"] == []
    kinds = {(c.kind, c.name) for plugin in found.loaded for c in plugin.components}
    assert {
        ("base_model", "qwen-image-edit"), ("teacher_source", "lora-file"), ("teacher_source", "from-pairs"),
        ("teacher_source", "base"), ("stream_router", "pdsr"), ("prompt_isolator", "aop"), ("loss_term", "bs-dmd"),
        ("loss_term", "ts-dmd"), ("loss_term", "ta-fm"), ("loss_term", "fake-score"), ("observer", "tensorboard"),
    } <= kinds  # fmt: skip


# --- hooks


def test_hooks_and_kinds_agree_with_the_specs() -> None:
    specs = {name for name in vars(PluginHooks) if not name.startswith("_")}
    assert set(HOOKS) == specs


@pytest.mark.parametrize("hook", HOOK_KINDS)
def test_every_hook_collects_its_kind(hook: str) -> None:
    kind = HOOK_KINDS[hook]
    component = SimpleNamespace()

    def implementation() -> list[object]:
        return [component]

    import dataclasses

    base = a_loss()
    component = dataclasses.replace(base, kind=kind)  # type: ignore[type-var, assignment]
    plugin = SimpleNamespace(**{hook: hookimpl(implementation)})
    assert [(c.kind, c.name) for c in register(plugin).components] == [(kind, "mine")]


def refused(plugin: object) -> str:
    with pytest.raises(PluginLoadError) as caught:
        register(plugin)
    return str(caught.value)


class Unknown:
    @hookimpl
    def register_losses(self) -> list[object]:
        return []


class Argument:
    @hookimpl
    def register_loss_terms(self, config: object) -> list[object]:
        return []


class Default:
    @hookimpl
    def register_loss_terms(self, config: object = None) -> list[object]:
        return []


class Unmarked:
    @hookimpl
    def register_metrics(self) -> list[object]:
        return []

    def register_loss_terms(self) -> list[object]:
        return [a_loss()]


class Empty:
    pass


class ReturnsNone:
    @hookimpl
    def register_loss_terms(self) -> None:
        return None


class ReturnsOther:
    @hookimpl
    def register_loss_terms(self) -> list[object]:
        return ["bs-dmd"]


class WrongKind:
    @hookimpl
    def register_loss_terms(self) -> list[object]:
        return [metric("m", "", Settings, lambda s: Needs(), lambda s, c: pytest.fail("built"))]


class WrongSettings:
    @hookimpl
    def register_loss_terms(self) -> list[object]:
        return [loss_term("m", "", dict, lambda s: Needs(), lambda s, c: pytest.fail("built"))]  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (Unknown(), "register_losses"),
        (Argument(), "config"),
        (Default(), "register_loss_terms: arguments with defaults (config) are never filled; remove them"),
        (Unmarked(), "register_loss_terms lacks the marker @hookimpl"),
        (Empty(), "it implements no hook; hooks: register_base_models"),
        (ReturnsNone(), "register_loss_terms returned None; it must return a sequence of components"),
        (ReturnsOther(), "register_loss_terms returned 'bs-dmd', which is no cldistill.component.Component"),
        (WrongKind(), "register_loss_terms returned 'm', which is a metric, not a loss_term"),
        (WrongSettings(), "the settings of 'm' must derive from cldistill's Settings"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_plugin_can_do_wrong(plugin: object, expected: str) -> None:
    assert expected in refused(plugin)
