"""(kind, name) -> component, with the plugin that owns it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cldistill.component import AnyComponent, Kind
from cldistill.errors import PluginLoadError, nearest
from cldistill.plugins import LoadedPlugin, Owner, PluginFailure, PluginSet, discover


@dataclass(frozen=True)
class Entry:
    """A component and its owner."""

    component: AnyComponent
    owner: Owner


class Catalogue:
    """All installed components.

    A name that two plugins register is an error for the run that names it, and for that run alone: installing a package
    must never break or change another run.
    """

    def __init__(self, plugins: PluginSet) -> None:
        self.plugins = plugins
        found: dict[tuple[Kind, str], list[Entry]] = {}
        for plugin in plugins.loaded:
            for component in plugin.components:
                found.setdefault((component.kind, component.name), []).append(Entry(component, plugin.owner))
        self._found: Mapping[tuple[Kind, str], Sequence[Entry]] = found

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """The plugins that could not be used."""
        return self.plugins.failures

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._found.values() for entry in entries)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of one kind, sorted."""
        return tuple(sorted(name for other, name in self._found if other == kind))

    def clashes(self) -> tuple[str, ...]:
        """Return one sentence for every name that more than one plugin registers."""
        return tuple(_clash(entries) for entries in self._found.values() if len(entries) > 1)

    def get(self, kind: Kind, name: str) -> Entry:
        """Return the one component of that name; PluginLoadError where nobody registers it, or several do."""
        try:
            return self.find(kind, name)
        except PluginLoadError as error:
            raise PluginLoadError("\n".join([str(error), *self.first_failure()])) from error

    def find(self, kind: Kind, name: str) -> Entry:
        """Do as `get`, without quoting a failed plugin (for callers that quote it once for several names)."""
        entries = self._found.get((kind, name), ())
        if len(entries) == 1:
            return entries[0]
        if entries:
            raise PluginLoadError(_clash(entries))
        names = self.names(kind)
        hint = nearest(name, names) or "; none is installed"
        raise PluginLoadError(f"no {label(kind)} is called {name!r}{hint}")

    def first_failure(self) -> list[str]:
        """Return a line that quotes the first plugin that failed, if one did: it may be the one that is missed."""
        if not self.failures:
            left_out = ", ".join(self.plugins.disabled)
            return [f"Left out by CLDISTILL_DISABLE_PLUGINS, and perhaps missed: {left_out}"] if left_out else []
        count = len(self.failures)
        others = f" (and {count - 1} more: see `cldistill plugins`)" if count > 1 else ""
        return [f"A plugin that might offer it failed to load: {self.failures[0]}{others}"]


def label(kind: Kind) -> str:
    """Return the kind as people write it: ``loss_term`` -> ``loss term``."""
    return kind.replace("_", " ")


def _clash(entries: Sequence[Entry]) -> str:
    component = entries[0].component
    owners = " and ".join(str(entry.owner) for entry in entries)
    return (
        f"the {label(component.kind)} {component.name!r} is registered more than once, by {owners}; "
        "uninstall one or name it in CLDISTILL_DISABLE_PLUGINS"
    )


def load_catalogue(extra: Sequence[LoadedPlugin] = ()) -> Catalogue:
    """Discover the installed plugins; ``extra`` adds components that no entry point names (tests, notebooks)."""
    plugins = discover()
    return Catalogue(PluginSet((*plugins.loaded, *extra), plugins.failures, plugins.disabled))
