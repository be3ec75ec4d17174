"""A component, as a plugin registers it: a name, typed settings, a torch-free description and a builder.

``describe`` runs in ``cldistill check`` and ``plan``: it must not import torch.  ``build`` runs once, when the run is
assembled, and may import anything.  The typed constructors at the end (`loss_term`, `base_model`, ...) tie ``build``'s
result to the Protocol of its kind, so that a part that does not conform fails in its author's own type checker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel as PydanticModel
from pydantic import BeforeValidator, ConfigDict, ValidationInfo

from cldistill.errors import OptionsError
from cldistill.records import BaseDescription, EffectInfo, Prompts, find_block
from cldistill.storage.untrusted import package_path

if TYPE_CHECKING:
    from rich.console import Console

    from cldistill import protocols
    from cldistill.manifest.checked import Part
    from cldistill.manifest.models import Manifest

Kind = Literal["base_model", "teacher_source", "stream_router", "prompt_isolator", "loss_term", "metric", "observer"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Settings(PydanticModel):
    """Base of every component's settings: unknown keys are errors, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def find_path(path: str | Path, root: Path | None) -> Path:
    """Return where a path lies: ``package:<package>/<path>``, absolute, or below the folder in which it was written.

    A text of a manifest knows that folder itself (`cldistill.manifest.yaml.Text`); any other path begins at ``root``.
    """
    text, folder = str(path), getattr(path, "folder", root)
    if text.startswith("package:"):
        return package_path(text)
    found = Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of nobody as it is)
    return found if folder is None or found.is_absolute() else Path(folder) / found


def resolve_path(value: object, info: ValidationInfo) -> object:
    """Resolve a path as `find_path` does; the validation context may hold ``root``, the folder of the manifest."""
    return find_path(value, (info.context or {}).get("root")) if isinstance(value, (str, Path)) else value


def resolve_model(value: object, info: ValidationInfo) -> object:
    """Resolve a model reference: ``package:`` data, a folder (``./x``, absolute, or existing), else a hub id, unchanged."""
    if not isinstance(value, (str, Path)):
        return value
    text, path = str(value), find_path(value, (info.context or {}).get("root"))
    return str(path) if text.startswith(("package:", ".", "/", "~")) or path.is_dir() else text


LocalPath = Annotated[Path, BeforeValidator(resolve_path)]
"""Settings type for a path: relative to the manifest, absolute, or ``package:<package>/<path>``."""

ModelRef = Annotated[str, BeforeValidator(resolve_model)]
"""Settings type for a model: a hub id, a folder in the diffusers layout, or ``package:<package>/<path>``."""


@dataclass(frozen=True)
class Forwards:
    """Backbone calls of one evaluation of a loss term."""

    rollout: bool = False
    """True where it needs the student's rollout (on average ``(steps - 1) / 2`` calls, shared within the update)."""
    shared: int = 0
    """Of the graded calls: those at ``rollout()``'s ``x`` and ``sigma``, made once for all terms of an update."""
    sample: int = 0
    """Calls, without grad, that turn the rollout into a sample; shared within the update, and saved when it is reused."""
    graded: int = 0
    """Calls with grad (cost 3 with gradient checkpointing)."""
    plain: int = 0
    """Calls without grad, other than the teacher's."""
    teacher: int = 0
    """Teacher calls, each doubled by guidance."""


@dataclass(frozen=True)
class Needs:
    """The demands of a part on the others, and its offers to them, as its ``describe`` returns them."""

    slot: str | None = None
    """Loss term: the slot that it trains unless the manifest says otherwise."""
    predicts: frozenset[str] = frozenset()
    """Loss term: other slots that it calls (the DMD losses call ``critic``)."""
    streams: frozenset[str] | None = None
    """Router: the streams it yields.  Loss term: streams it is made for (None: any)."""
    targets: bool = False
    """Loss term: needs target latents."""
    teacher: bool = False
    """Loss term: calls the teacher."""
    general: bool = False
    """Router: draws from the general pool, which the manifest must then have: in the stream ``general``, and in those that
    it names in ``general_streams``."""
    pairs: bool = False
    """Teacher source: needs the effect's pairs."""
    forwards: Forwards = field(default_factory=Forwards)
    features: tuple[str, ...] = ()
    """Loss term: blocks of the base whose features it asks for, by name or as `cldistill.records.MIDDLE`."""
    parameters: int = 0
    """Loss term: numbers in the module that it owns (`cldistill.protocols.OwnsModule`)."""
    modules: frozenset[str] = frozenset()
    """Loss term: other terms of the run, by name, whose modules it calls."""
    files: tuple[Path, ...] = ()
    """Files or folders that must exist."""
    adapter: Path | None = None
    """Teacher source: an adapter file whose header must fit the base."""
    rank: int | None = None
    """Teacher source: rank of the adapter that it will make."""
    packages: tuple[str, ...] = ()
    """Importable packages that it needs beyond cldistill's own, e.g. ``("tensorboard",)``."""
    install: str | None = None
    """The command that installs ``packages``, e.g. ``pip install "cldistill[tensorboard]"``."""
    general_streams: frozenset[str] = frozenset()
    """Router: streams whose batches hold general items, beside that of its name."""
    begins: Mapping[str, int] = field(default_factory=dict)
    """Router: streams that come up only from a generator step on (0 for those that it does not name)."""
    ends: Mapping[str, int] = field(default_factory=dict)
    """Router: streams that come up only before a generator step (never ending for those that it does not name)."""
    pools: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Router: the only effects that come up on a stream (any on those that it does not name)."""
    sampler_below: float | None = None
    """Loss term: the student's sampler must have a step strictly below this sigma."""
    adapter_scale: float = 1.0
    """Teacher source: what the scale of the file ``adapter`` is multiplied by."""
    prompts: Prompts | None = None
    """Teacher source: prompts of the effect that are settled already and go before those of the prompt isolator; a
    collection that teaches its own effect has one prompt for it, which must not change by a letter."""
    base: BaseDescription | None = None
    """Base model: its description."""
    lacks: str | None = None
    """Metric: why it cannot measure here, such as weights that are nowhere; ``check`` and ``eval`` tell it first."""
    truth: bool = False
    """Metric: knows true outputs (`cldistill.protocols.KnowsTruth`), and its builder loads nothing: a run shows them."""
    probes: tuple[str, ...] = ()
    """Metric: pools that ``cldistill eval`` makes for it beside the effects', each on a few pictures: names of
    `cldistill.records.PROBES`; the pool of an effect's probe is `cldistill.records.probe_pool`."""


@dataclass(frozen=True)
class RunOutline:
    """The run around a part, as far as its ``describe`` and ``build`` may know it; grows by fields, never by position."""

    steps: int = 0
    """Generator steps of the run; 0 where nothing is trained."""
    base: BaseDescription | None = None
    """The run's base; None while a base alone is described or built."""
    manifest: Manifest | None = None
    """The whole manifest, for what watches or measures a run."""

    def width(self, at: str) -> int:
        """Return the width of a block's features (`Needs.features`); 0 where the base has none, of which ``check`` tells."""
        blocks = self.base.blocks if self.base is not None else {}
        try:
            return blocks[find_block(blocks, at)]
        except OptionsError:
            return 0


@dataclass(frozen=True)
class BuildContext:
    """The surroundings of a run that every builder may know; grows by fields, never by position."""

    root: Path
    """Folder of the manifest."""
    cache: Path
    """Folder of the content-addressed cache."""
    output: Path
    """Folder of the run."""
    device: str = "cpu"
    seed: int = 0
    effects: tuple[EffectInfo, ...] = ()
    metrics: tuple[Part, ...] = ()
    """Observers: the metrics that will measure the run."""
    console: Console | None = None
    """Observers: where the run prints."""
    weights: bool = True
    """False: build with the structure only (tests of assembly)."""
    outline: RunOutline = RunOutline()


S = TypeVar("S", bound=Settings)
Describe = Callable[[S], Needs] | Callable[[S, RunOutline], Needs]
"""Describes a part by its settings, or by these and the run around it."""
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Component(Generic[S, T_co]):
    """One registered part. ``(kind, name)`` is unique over all plugins."""

    kind: Kind
    name: str
    summary: str
    settings: type[S]
    describe: Describe[S]
    build: Callable[[S, BuildContext], T_co]
    automatic: bool = False
    """Observer: built for every run with its default settings, without being named in the manifest."""
    serves: str = ""
    """Automatic observer: the key of the manifest that it serves; without one there is a warning where the key is set."""

    def needs(self, settings: S, outline: RunOutline) -> Needs:
        """Return what ``describe`` says; the outline is given to one that takes a second argument."""
        describe: Any = self.describe
        wanted = [name for name, given in signature(describe).parameters.items() if given.default is given.empty]
        found: Needs = describe(settings, outline) if len(wanted) > 1 else describe(settings)
        return found


AnyComponent = Component[Any, Any]


@dataclass(frozen=True)
class Command:
    """A command of the command line, contributed by a plugin through the hook ``register_commands``."""

    name: str
    """The word after ``cldistill``."""
    summary: str
    """One line for ``cldistill --help``."""
    target: str
    """``package.module:function``, a function as typer takes it: its annotated parameters become arguments and options.
    It is imported when the command is called, so that ``--help`` stays fast."""


@dataclass(frozen=True)
class Registration(Generic[T_co]):
    """Makes components of one kind: ``loss_term(name, summary, settings, describe, build)``."""

    kind: Kind

    def __call__(
        self, name: str, summary: str, settings: type[S], describe: Describe[S], build: Callable[[S, BuildContext], T_co]
    ) -> Component[S, T_co]:  # fmt: skip
        """Return the component; what ``build`` returns must conform to the Protocol of the kind."""
        return Component(self.kind, name, summary, settings, describe, build)


base_model: Registration[protocols.BaseModel] = Registration("base_model")
"""Its ``describe`` must fill `Needs.base` from the config, without torch."""
teacher_source: Registration[protocols.TeacherSource] = Registration("teacher_source")
stream_router: Registration[protocols.StreamRouter] = Registration("stream_router")
prompt_isolator: Registration[protocols.PromptIsolator] = Registration("prompt_isolator")
loss_term: Registration[protocols.LossTerm] = Registration("loss_term")
metric: Registration[protocols.Metric] = Registration("metric")


def observer(
    name: str, summary: str, settings: type[S], describe: Describe[S],
    build: Callable[[S, BuildContext], object], *, automatic: bool = False, serves: str = "",
) -> Component[S, object]:  # fmt: skip
    """Register an observer: an object with `cldistill.markers.hookimpl` methods named as in `cldistill.hookspecs.RunHooks`.

    ``automatic``: every run gets it, with its default settings, without naming it; ``serves``: see `Component`.
    """
    return Component("observer", name, summary, settings, describe, build, automatic, serves)
