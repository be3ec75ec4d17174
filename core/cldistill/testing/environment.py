"""Plugins in a test that are not installed: in a catalogue of the test's own, or found as installed ones are."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from cldistill.catalogue import Catalogue
from cldistill.component import Component
from cldistill.plugins import LoadedPlugin, Owner, PluginSet, discover, register
from cldistill.storage.untrusted import GROUP

TINY_PLUGIN = "cldistill.testing.tiny_plugin"


def catalogue_with(*parts: Component[Any, Any] | ModuleType, installed: bool = False) -> Catalogue:
    """Return a catalogue of the kit's own parts and ``parts``: components, or plugin modules, which are registered.

    Installed plugins are left out, so that a test sees the same parts everywhere, unless ``installed`` is True.
    """
    modules = [part for part in parts if isinstance(part, ModuleType)]
    components = tuple(part for part in parts if not isinstance(part, ModuleType))
    loaded = [
        register(importlib.import_module(TINY_PLUGIN), Owner("tiny", "cldistill.testing", "0")),
        *(register(module, Owner(module.__name__, "a test", "0")) for module in modules),
        *([LoadedPlugin(Owner("components", "a test", "0"), components)] if components else []),
    ]
    found = discover() if installed else PluginSet()
    return Catalogue(PluginSet((*found.loaded, *loaded), found.failures, found.disabled))


@contextmanager
def plugin_environment(
    plugins: Mapping[str, str], paths: Sequence[Path | str] = (), *, distribution: str = "a-plugin-under-test"
) -> Iterator[dict[str, str]]:
    """Make uninstalled plugins look installed inside the block, the kit's own included.

    ``plugins`` maps entry-point names to modules, as under ``[project.entry-points.cldistill]``; ``paths`` are the source
    folders that they lie in.  Yields the environment in which a subprocess (``cldistill check``, say) sees them too::

        with plugin_environment({"my-plugin": "my_package.plugin"}, ["src"]) as environment:
            subprocess.run(["cldistill", "plugins"], env=environment, check=True)
    """
    with TemporaryDirectory() as folder:
        _write_distribution(Path(folder), distribution, {"cldistill-tiny": TINY_PLUGIN, **plugins})
        added = [folder, *(str(Path(path).resolve()) for path in paths)]
        sys.path[:0] = added
        importlib.invalidate_caches()
        earlier = os.environ.get("PYTHONPATH")
        try:
            yield {**os.environ, "PYTHONPATH": os.pathsep.join([*added, *([earlier] if earlier else [])])}
        finally:
            for entry in added:
                sys.path.remove(entry)
            importlib.invalidate_caches()


def _write_distribution(folder: Path, name: str, plugins: Mapping[str, str]) -> None:
    """Write the metadata that `pip install` would write, and nothing else."""
    info = folder / f"{name.replace('-', '_')}-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0\n", encoding="utf-8")
    lines = [f"[{GROUP}]", *(f"{point} = {module}" for point, module in plugins.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
