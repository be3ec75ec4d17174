"""A manifest whose parts were found and fit together: what assembly and plan start from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.catalogue import Catalogue, Entry
from cldistill.component import AnyComponent, BuildContext, Needs, RunOutline, Settings
from cldistill.data.items import Listing
from cldistill.manifest.load import ManifestFile
from cldistill.manifest.models import Manifest
from cldistill.manifest.yaml import Loc, dotted
from cldistill.records import GENERAL, BaseDescription, Change, EffectInfo, Item, Prompts
from cldistill.schedule import Schedule
from cldistill.training.run import PlacedLoss, SlotConfig

if TYPE_CHECKING:
    from cldistill.adapters.files import FitReport, FittedAdapter


@dataclass(frozen=True)
class Part:
    """A component that the manifest names, with its validated settings and what it says it needs."""

    loc: Loc
    entry: Entry
    settings: Settings
    needs: Needs

    @property
    def key(self) -> str:
        """Return its key path as people write it: ``losses.1``."""
        return dotted(self.loc)

    @property
    def component(self) -> AnyComponent:
        """Return the component itself."""
        return self.entry.component

    @property
    def name(self) -> str:
        """Return the name under which the manifest asks for it."""
        return self.component.name

    def build(self, context: BuildContext) -> Any:
        """Build the part."""
        return self.component.build(self.settings, context)


CheckedLoss = PlacedLoss[Part]
"""A loss with its place in the run, manifest and component combined; the part builds it."""


@dataclass(frozen=True)
class CheckedManifest:
    """The whole run, judged without torch and without reading a weight."""

    file: ManifestFile
    catalogue: Catalogue
    base: Part
    description: BaseDescription
    router: Part
    prompts: Part
    teachers: Mapping[str, Part | None]
    """Effect -> its teacher source; None where the manifest names none (nothing then asks for it)."""
    losses: tuple[CheckedLoss, ...]
    observers: tuple[Part, ...]
    metrics: tuple[Part, ...]
    effects: tuple[EffectInfo, ...]
    slots: Mapping[str, SlotConfig]
    items: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    """Pool (effect or ``general``) -> its items; empty where files were not looked at."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """Effect -> all its pairs as they lie on the disk, where it has some."""
    teacher_ranks: Mapping[str, int] = field(default_factory=dict)
    """Effect -> largest rank in its teacher's file, or the rank that its source will train."""
    teacher_fits: Mapping[str, FitReport] = field(default_factory=dict)
    """Effect -> how its teacher's file lies on the base (``840/840 modules, scale 1.0``), where there is a file."""
    starts: Mapping[str, FittedAdapter] = field(default_factory=dict)
    """Slot -> the adapter file that it starts from, where there is one."""

    @property
    def manifest(self) -> Manifest:
        """Return the manifest as it was written."""
        return self.file.manifest

    @property
    def outline(self) -> RunOutline:
        """Return what parts may know of the run."""
        return RunOutline(self.manifest.train.generator_steps, self.description, self.manifest)

    @property
    def student_schedule(self) -> Schedule:
        """The student's sampler."""
        return Schedule(**self.manifest.sampler.model_dump())

    def teacher_schedule(self, steps: int) -> Schedule:
        """Return the schedule of so many steps by which teachers are sampled: that of ``targets:``, else the student's."""
        targets, base = self.manifest.targets, self.description
        own = None if targets is None else targets.shift
        if own == "auto" and base.shift is not None:  # else the check has refused it
            return Schedule(steps, base.shift(base.latent_tokens, steps), terminal=base.terminal)
        return Schedule(steps, float(self.manifest.sampler.shift if own is None else own))

    @property
    def settled_prompts(self) -> dict[str, Prompts]:
        """Return the prompts of the effects whose teacher brings its own: the isolator is not asked about those."""
        return {n: p.needs.prompts for n, p in self.teachers.items() if p is not None and p.needs.prompts is not None}

    @property
    def trained_teachers(self) -> list[str]:
        """Return the effects whose teacher source trains an adapter, in the manifest's order."""
        return [name for name, part in self.teachers.items() if part is not None and part.needs.rank is not None]

    def asking(self, effect: str) -> list[CheckedLoss]:
        """Return the losses that ask an effect's teacher: for its velocity, or for targets that it samples."""
        sampled = self.manifest.targets is not None and effect not in self.paired
        reaching = (loss for loss in self.losses if loss.streams != frozenset({GENERAL}))
        return [loss for loss in reaching if loss.teacher or (loss.targets and sampled)]

    @cached_property
    def needless_teachers(self) -> set[str]:
        """Return the effects whose teacher would be trained for nothing: no loss and no picture of the run asks for it."""
        samples = self.manifest.samples
        named = () if samples is None else self.teachers if samples.effects is None else samples.effects
        shown = named if self.manifest.evaluate is None else self.teachers
        return {name for name in self.trained_teachers if name not in shown and not self.asking(name)}

    @cached_property
    def paired(self) -> set[str]:
        """Return the effects whose targets are the after-pictures of their pairs, not what their teacher makes."""
        usual = self.manifest.targets.origin if self.manifest.targets else "teacher"
        return {effect.name for effect in self.manifest.effects if (effect.targets or usual) == "pair"}

    def context(self, output: Path, cache: Path, *, device: str = "cpu", weights: bool = True) -> BuildContext:
        """Return what every builder may know of the run."""
        return BuildContext(
            root=self.file.root, cache=cache, output=output, device=device, seed=self.manifest.train.seed,
            effects=self.effects, weights=weights, outline=self.outline, metrics=self.metrics,
        )  # fmt: skip

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the streams that the router yields, or those that the losses name if the router does not say."""
        if self.router.needs.streams is not None:
            return tuple(sorted(self.router.needs.streams))
        return tuple(sorted({stream for loss in self.losses for stream in loss.streams or ()}))

    @property
    def targeted_pools(self) -> list[str]:
        """Return the pools whose items need targets: those that a loss with targets meets."""
        needing, router = [loss for loss in self.losses if loss.targets], self.router.needs
        met = {stream for loss in needing for stream in loss.streams or self.streams or ("",)}
        pools = [e.name for e in self.effects if any(e.name in router.pools.get(stream, (e.name,)) for stream in met)]
        if needing and self.manifest.general is not None and router.general:
            with_general = {GENERAL, *router.general_streams}
            # A router that does not name its streams may draw the general pool in any.
            if router.streams is None or with_general & met:
                pools.append(GENERAL)
        return pools

    def meets(self, stream: str, start: int, stop: int) -> bool:
        """Return whether the router may yield a stream in the 0-based generator steps from ``start`` to before ``stop``."""
        until = self.router.needs.ends.get(stream)
        return stop > max(start, self.router.needs.begins.get(stream, 0)) and (until is None or start < until)

    def file_lines(self) -> list[str]:
        """Return how pairs lie (``manga, gold: 40 pairs by source/ and target/``) and how files fit; eight names a line."""
        names: dict[tuple[str, str], list[str]] = {}
        told = [("", effect, listing.told) for effect, listing in self.listings.items()]
        told += [("teacher of ", effect, str(fit)) for effect, fit in self.teacher_fits.items()]
        for begin, effect, text in told:
            names.setdefault((begin, text), []).append(effect)
        few = {key: [*n[:8], *([f"{len(n) - 8} more"] if len(n) > 8 else [])] for key, n in names.items()}
        return [f"{begin}{', '.join(n)}: {text}" for (begin, text), n in few.items()]

    def parts(self) -> Iterator[Part]:
        """Yield every part, in the order of validation."""
        yield self.base
        yield from (part for part in self.teachers.values() if part is not None)
        yield from (self.router, self.prompts, *(loss.loss for loss in self.losses), *self.observers, *self.metrics)


@dataclass(frozen=True)
class RunRequest:
    """The call of `cldistill run`, as plugins see it that may refuse it."""

    checked: CheckedManifest
    reference: str
    """The manifest's path or recipe, as it was typed."""
    overrides: tuple[str, ...]
    ignore_memory: bool
    folder: Path | None = None
    """Folder of the run; None where what is there is set aside."""
    wants_checkpoint: bool = False
    """True where it is to go on, and not to start where there is nothing."""
    may_change: Collection[Change] = ()
    """Changes that the person allows by flags, such as ``--changed-ranks``, where the run goes on."""
