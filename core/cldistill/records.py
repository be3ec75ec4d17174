"""Named records that travel between the parts of a run.

Shape legend, used in every docstring of the project:

``B`` items of a batch · ``L`` latent tokens of one picture · ``C`` channels of a token (64 for Qwen-Image: 16 latent
channels x 2 x 2) · ``T`` text tokens · ``D`` width of a text token.  ``x0`` is a clean latent, ``x`` a noised one, ``v``
a velocity, all ``[B, L, C]`` (or whatever trailing shape the base model uses: no loss may assume one); ``sigma`` is
``[B]`` in [0, 1].

Flow-matching convention (diffusers'): ``x = (1 - sigma) * x0 + sigma * noise``, ``v = noise - x0``, ``t = 1000 * sigma``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cldistill.errors import OptionsError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from cldistill.protocols import Keyed

Tensors = Mapping[str, "Tensor"]
"""A picture or prompt as a base encodes it: named tensors that only the base understands and the cache can store."""

MIDDLE = "middle"
"""Stands for the block in the middle of a base, whatever its name (`find_block`)."""

Change = Literal["plugins", "ranks"]
"""A difference from its checkpoint with which a run may go on, if the person allows it; the run records it."""
STUDENT = "student"
"""The slot that a run is about: what is sampled from, measured and exported."""
GENERAL = "general"
"""Name of the pool, and of the stream, of unlabelled pictures with general instructions."""

FLOOR = "floor"
"""Reserved name of a system: under it a metric gives what it finds of fresh truth, below which nothing can be told."""
FAILURE = "failure"
"""Name of the tag under which a metric says by which family of failures a picture is a bad case."""
UNTRIGGERED = "untriggered"
WRONG_TRIGGER = "wrong-trigger"
PROBES = (UNTRIGGERED, WRONG_TRIGGER)
"""Pools that a metric may ask for beside the effects (`cldistill.component.Needs.probes`): the effect's caption
without its trigger word, and a trigger that nobody knows before a caption that asks for nothing."""
HELD_PAIRS = "pairs"
"""The same of an effect's held-out pairs (``evaluate.pairs``), whose after-pictures are its truth: every metric has it."""


def probe_pool(effect: str, probe: str) -> str:
    """Return the pool of an effect's probe, e.g. ``mosaic/untriggered``: effects' names hold no slash."""
    return f"{effect}/{probe}"


@dataclass(frozen=True)
class EffectInfo:
    """One effect as the manifest names it (torch-free)."""

    name: str
    prompt: str
    """The prompt its teacher was trained with."""
    pairs: Path | None = None
    take: int | None = None
    """Use only so many of the pairs, spread evenly over them; None: all."""
    skip: bool = False
    """True where pairs that are wrong are left out; else they are errors."""
    held_out: int = 0
    """So many pairs are kept for measuring, spread evenly, and nothing is trained on them."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of one item, one a network (AOP, paper section 3.2); ``trigger`` is ``""`` in the general stream."""

    student: str
    teacher: str
    unconditional: str = ""
    trigger: str = ""


@dataclass(frozen=True)
class Item:
    """One training example: source picture(s), perhaps an after-picture, and the prompt it goes with."""

    key: str
    """Stable name within the run: ``<pool>/<stem>``."""
    pool: str
    """The effect's name, or ``general``."""
    sources: tuple[Path, ...]
    prompt: str
    target: Path | None = None


@dataclass(frozen=True)
class Route:
    """The pools from which one update takes its batch: drawn by the stream router, the same on every rank.

    ``pools`` maps a pool (an effect's name or ``general``) to the chance that an item comes from it.  Every item has the
    teacher of its own pool (the bare base for ``general``).
    """

    stream: str
    pools: Mapping[str, float]

    @property
    def effect(self) -> str | None:
        """The one effect of the batch, or None in the general stream and in mixed batches."""
        names = tuple(self.pools)
        return names[0] if len(names) == 1 and names[0] != GENERAL else None


@dataclass(frozen=True)
class RouteRequest:
    """One update that asks a router for its batch's pools (`cldistill.protocols.StreamRouter`): equal on every rank."""

    step: int
    """0-based generator step."""
    steps: int
    """Generator steps of the whole run."""
    slot: str
    """The slot that the update trains."""
    update: int
    """0-based, among the updates of the slot in this step."""
    effects: Sequence[str]
    """Names of the run's effects, in the manifest's order."""
    random: Keyed
    """Keyed to the update: two updates of one step draw differently."""
    shared: Keyed
    """Keyed to the run alone, so that updates draw alike where they give it one key: ``shared.uniform("stream", step)`` is
    one draw for all updates of a step, ``shared.generator("order", epoch)`` one for all of an epoch."""


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a network beside the latent: the collated source picture(s) and one collated prompt, with a batch axis."""

    source: Tensors
    prompt: Tensors

    def rows(self, rows: Sequence[int]) -> Conditioning:
        """Return the inputs of some items alone."""
        picked = [{name: value[list(rows)] for name, value in part.items()} for part in (self.source, self.prompt)]
        return Conditioning(*picked)


@dataclass(frozen=True)
class Share:
    """Items of a batch that one call of one teacher serves."""

    effect: str | None
    """None: items of the general pool, whose teacher is the bare base."""
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """One update's data on the device."""

    route: Route
    items: tuple[Item, ...]
    student: Conditioning
    teacher: Conditioning
    unconditional: Conditioning
    target: Tensor | None
    """``x0`` of the target, ``[B, L, C]``; None where no active loss needs targets."""
    latent_shape: tuple[int, ...]
    """Shape of one latent without the batch axis, e.g. ``(L, C)``."""
    shares: tuple[Share, ...]
    """The items by teacher: one share for each pool, or more where other ranks have more."""

    @property
    def size(self) -> int:
        """Items in the batch, ``B``."""
        return len(self.items)


@dataclass(frozen=True)
class Rollout:
    """The student's own trajectory from pure noise, stopped at the drawn step ``k`` (DMD2 section 4.5)."""

    x: Tensor
    """Noised latent at step ``k``, ``[B, L, C]``, no grad."""
    sigma: Tensor
    """``[B]``: sigma of step ``k``, the same for the whole batch."""
    k: int


@dataclass(frozen=True)
class LossOutput:
    """The result of a loss term: a scalar with grad, and plain numbers for the log."""

    loss: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AdamW:
    """The optimiser of a module that belongs to a loss term: its rate, as for slots in fp32, the same in every step."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Column:
    """The heading of one of a metric's figures in a report (an optional ``columns`` of a metric: name -> `Column`)."""

    title: str
    better: Literal["lower", "higher"] | None = None
    """None: neither, as with a signed error."""
    percent: bool = False
    """A share in 0..1, shown in percent."""


@dataclass(frozen=True)
class Ratio:
    """A figure ``mean(numerator) / mean(denominator)`` over the same pictures: the engine gives it an interval."""

    numerator: Sequence[float]
    denominator: Sequence[float]


@dataclass(frozen=True)
class MetricValues:
    """The result of a metric: one value per picture under each name, and figures of the whole set.

    A value that could not be found for a picture (a judge refused) is ``nan``: it counts nowhere and is ``null`` in the report.
    """

    per_picture: Mapping[str, Sequence[float]] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)
    """Figures that are no mean over pictures (a ratio of means); they win over the mean of the same name."""
    tags: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Words about single pictures, None where there is nothing to say; ``failure`` (`FAILURE`) is shown in reports."""
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    """Like ``summary``, with what it was made from, so that it gets an interval: give a figure in one of the two."""


@dataclass(frozen=True)
class UpdateResult:
    """One optimiser update of one slot."""

    slot: str
    update: int
    stream: str
    pools: tuple[str, ...]
    losses: Mapping[str, float]
    metrics: Mapping[str, float]
    grad_norm: float
    skipped: bool = False
    """True when a loss or gradient was not finite and the update was left out."""


@dataclass(frozen=True)
class StepResult:
    """One generator step with its critic updates (a cycle)."""

    step: int
    """1-based: the number of generator steps done."""
    updates: tuple[UpdateResult, ...]
    seconds: float
    forwards: int
    """Calls of the backbone in this cycle (all ranks make the same number)."""
    peak_memory_mb: float


@dataclass(frozen=True)
class BaseDescription:
    """The figures of a base model that ``check`` and ``plan`` need, read from its config alone."""

    parameters: int
    """Parameters of the backbone."""
    modules: Mapping[str, tuple[int, int]]
    """Every linear module of the backbone that can carry an adapter: name -> (out_features, in_features)."""
    targets: tuple[str, ...]
    """Names of the modules that a slot adapts by default."""
    latent_tokens: int
    """Tokens of one picture at the chosen resolution."""
    channels: int
    hidden: int
    layers: int
    bytes_per_parameter: float = 2.0
    weight_bytes: float = 0.0
    """Of the frozen backbone as it is kept, where that is quantised; 0: every parameter at ``bytes_per_parameter``."""
    encoder_bytes: int = 0
    """Text encoder and VAE together: resident only while latents and embeddings are computed."""
    guidance_scale: float = 1.0
    """Teacher guidance in the losses: 1 costs one call, anything else two."""
    blocks: Mapping[str, int] = field(default_factory=dict)
    """Blocks whose features can be asked for, in the order in which they run: name -> width ``D`` of ``[B, L, D]``."""
    tokenizer: Path | None = None
    """A ``tokenizer.json`` by which ``check`` can see that triggers stay distinct, if there is one on disk."""
    prompt_tokens: int | None = None
    """Most tokens of a prompt that the text encoder takes; None: not known."""
    idle: tuple[str, ...] = ()
    """Targets whose adapter cannot change a prediction (a last block's text output): adapted all the same where files for
    the family hold them."""
    shift: Callable[[int, int], float] | None = None
    """``shift(tokens, steps)`` of the stock pipeline's schedule, for ``shift: auto``; None: there is no rule."""
    terminal: float | None = None
    """Last sigma to which the stock pipeline stretches its schedule; None: where the shift leads."""
    prompt_sees_pictures: bool = True
    """False: a prompt is encoded the same beside any picture, and kept once (also an attribute of the base)."""
    encoded_tokens: int = 256
    """Length of an encoded prompt, with its picture where that is part of it."""
    prompt_width: int = 0
    """Width of an encoded prompt's tokens in the cache; 0: that of the backbone."""
    adapter_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules as files of the family's own trainers call them -> those of the backbone whose rows they hold, in order."""


def find_block(blocks: Mapping[str, int], at: str) -> str:
    """Return the full name of a base's block (`MIDDLE`: the last of the first half); OptionsError where it has none such."""
    names = tuple(blocks)
    if not names:
        raise OptionsError("the base offers no features of its blocks")
    if at != MIDDLE and at not in blocks:
        raise OptionsError(f"the base has no block {at!r}{nearest(at, names)}")
    return names[(len(names) - 1) // 2] if at == MIDDLE else at
