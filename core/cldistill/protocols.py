"""One Protocol per kind of part: what the engine calls, and nothing else.

Shapes: see the legend at the top of `cldistill.records`.  No torch is imported at run time, so that ``check`` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from cldistill.records import (
    MIDDLE,
    AdamW,
    Batch,
    EffectInfo,
    Item,
    LossOutput,
    MetricValues,
    Prompts,
    Rollout,
    Route,
    RouteRequest,
    Tensors,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Generator, Tensor, nn

    from cldistill.adapters.slots import AdapterSlots
    from cldistill.collection.card import Usage, UsageRequest
    from cldistill.data.encodings import Encoder
    from cldistill.progress.stages import Stages
    from cldistill.schedule import Schedule
    from cldistill.weights import AdapterState

GuidanceMode = Literal["standard", "rescaled"]


class Keyed(Protocol):
    """Counter-based randomness: every draw is a function of its key alone, never of what ran before."""

    def generator(self, *key: str | int, per_rank: bool = False) -> Generator:
        """Return a CPU generator for ``key``; with ``per_rank`` the rank is part of the key."""

    def uniform(self, *key: str | int, per_rank: bool = False) -> float:
        """Draw one number in [0, 1)."""

    def integer(self, high: int, *key: str | int, per_rank: bool = False) -> int:
        """Draw one integer in [0, high)."""

    def normal(self, shape: Sequence[int], *key: str | int, per_rank: bool = True) -> Tensor:
        """Draw standard normal noise of ``shape`` in fp32, on the run's device."""

    def uniforms(self, size: int, *key: str | int) -> Tensor:
        """Draw one number in [0, 1) for each of ``size`` items of the batch, on the run's device."""

    def child(self, *key: str | int) -> Keyed:
        """Return the same source with ``key`` put before every further key."""

    def items(self, size: int) -> Sequence[Keyed]:
        """Return the source of the item whose geometry a batch has, and of each of its ``size`` items."""


class BaseModel(Protocol):
    """A base model: a frozen backbone, its encoders, and how to call it.

    The engine never looks into the tensors that ``encode_*`` return: it caches, collates and passes them back.
    """

    name: str
    fingerprint: str
    """Hash of everything that changes encodings (weights, geometry): part of every cache key."""
    backbone: nn.Module
    """The network that carries the adapters.  Frozen by the engine."""
    adapter_targets: tuple[str, ...]
    """Full names of the modules that a slot adapts by default."""
    blocks: Mapping[str, int]
    """Blocks whose features it gives, as described (`cldistill.records.BaseDescription`); empty if none."""
    guidance_scale: float
    """Teacher guidance inside the losses (1: none)."""
    guidance_mode: GuidanceMode
    target_guidance_scale: float
    """Guidance with which a teacher is sampled for targets and grids."""
    target_guidance_mode: GuidanceMode
    resolution: int
    prompt_sees_pictures: bool
    """False: `encode_prompt` gives the same beside any picture, so that each text is encoded and kept once."""

    def to(self, device: str) -> None:
        """Move the backbone (and the encoders, while loaded) to ``device``."""

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        """Encode the reference picture(s) of one item; tensors without a batch axis."""

    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Encode an after-picture to ``x0`` without a batch axis, in the geometry of its references ``pictures``."""

    def encode_prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Encode ``prompt`` together with the reference picture(s); tensors without a batch axis."""

    def latent_shape(self, source: Tensors) -> tuple[int, ...]:
        """Shape of one latent for an encoded source, without the batch axis, e.g. ``(L, C)``."""

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        """All that must agree for two encoded sources to be collated: rows and columns of the output and each reference.

        Plain integers.  A portrait and a landscape picture may share a latent's shape but not a batch: the engine puts
        together only what has one key, and of one key any number.
        """

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        """Stack encoded sources of one `batch_key`, or any encoded prompts (padding them), along a new batch axis."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        """Predict the velocity ``[B, L, C]`` (fp32) of ``x`` at ``sigma`` ``[B]`` under the active adapter."""

    def features(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, at: str) -> Tensor:
        """Return what the block ``at`` gives for the tokens of ``x``: ``[B, L, D]`` (fp32), under the active adapter.

        Called for names in ``blocks`` alone.  The blocks after it need not run; those before it are checkpointed as in
        `predict`.
        """

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        """Combine two velocities by classifier-free guidance."""

    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        """Decode a batch of clean latents to pictures. ``source`` is the collated source (it knows the geometry)."""

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text, for checking that triggers stay distinct."""

    def load_encoders(self) -> None:
        """Bring text encoder and VAE to memory (again)."""

    def drop_encoders(self) -> None:
        """Release the text encoder; the VAE may stay where ``decode`` needs it and is small."""

    def enable_gradient_checkpointing(self, run: Callable[..., Any]) -> None:
        """Checkpoint the backbone's blocks through ``run(function, *args)`` (which pins the active adapter)."""

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``<module>.lora_A.weight`` keys to the keys that stock diffusers loads for this family."""

    def export_metadata(self) -> dict[str, str]:
        """Return ``modelspec.architecture``, base and revision, for the header of an export."""

    def usage(self, request: UsageRequest) -> Usage | None:
        """Return how stock programs run a LoRA of this family, for the card; None where nothing is to be said."""


class TeacherSource(Protocol):
    """The source of one effect's teacher, named by the effect in the manifest."""

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return the frozen adapter of the effect, or None where the bare base is its own teacher."""


@runtime_checkable
class KnowsDigest(Protocol):
    """A teacher source that tells its adapter's digest without reading it: it stays unread where its targets are cached."""

    def digest(self) -> str:
        """Return the ``digest`` that the adapter will have."""


@dataclass(frozen=True)
class TeacherRequest:
    """All that a teacher source may use to find or to make the adapter of one effect; the engine makes it, one an effect."""

    effect: EffectInfo
    """The effect that wants its teacher."""
    items: Sequence[Item]
    """The effect's before/after pairs; none where the manifest names none."""
    base: BaseModel
    """The loaded base model."""
    slots: AdapterSlots
    """The base's adapter slots: a source that trains adds one of its own, and removes it again."""
    encoder: Encoder
    """Encodings of pictures and prompts, each computed once and cached."""
    cache: Path
    """Folder of the content-addressed cache."""
    device: str
    """The torch device that tensors are on."""
    stages: Stages
    """Shows how far long work is."""
    stop: Callable[[], bool]
    """Asked between two pieces of work: true asks for an end by `cldistill.errors.Stopped`, all done work saved."""


class StreamRouter(Protocol):
    """Draws where an update takes its batch from (PDSR, paper section 3.1)."""

    def route(self, request: RouteRequest) -> Route:
        """Return the route of one update: a function of the request alone, so that all ranks and a resumed run agree."""


class PromptIsolator(Protocol):
    """Gives student and teacher their prompts (AOP, paper section 3.2)."""

    def isolate(self, effect: EffectInfo) -> Prompts:
        """Return the prompts of an effect; called once an effect, before training; the result is static."""

    def general(self, instruction: str) -> Prompts:
        """Return the prompts of a general instruction: the same for all three networks."""


@runtime_checkable
class UpdateContext(Protocol):
    """All that a loss term may see of one update."""

    @property
    def step(self) -> int:
        """0-based generator step."""

    @property
    def trains(self) -> str:
        """Name of the slot that this update trains: the one whose calls have a graph."""

    @property
    def batch(self) -> Batch:
        """The update's data."""

    @property
    def schedule(self) -> Schedule:
        """The student's sampler."""

    @property
    def random(self) -> Keyed:
        """Keyed to (step, slot, update, term): the same key gives the same noise in every run."""

    def random_of(self, term: str) -> Keyed:
        """The ``random`` of another term of this update, by its name in the run: for drawing what that one draws."""

    @property
    def device(self) -> str:
        """The device of the update's tensors."""

    def student(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Velocity of the student slot on the student's prompt; with grad if the term trains ``student``."""

    def slot(self, name: str, x: Tensor, sigma: Tensor) -> Tensor:
        """Velocity of any slot on the *student's* prompt (the critic is conditioned on it: paper section 3.2)."""

    def features(self, slot: str, x: Tensor, sigma: Tensor, at: str = MIDDLE) -> Tensor:
        """Activations ``[B, L, D]`` of the base's block ``at`` under a slot, on the student's prompt.

        A graph as for `slot`: of the slot's weights if the update trains it, of ``x`` where ``x`` asks for one.  A head on
        features of a frozen slot learns without either, since its own weights are in its graph.
        """

    def module(self, term: str | None = None) -> nn.Module:
        """The module that this term owns, or that of another term of the run, by its name.

        Only the terms of its owner's update train it: other terms' gradients pass through to what they train.
        """

    def teacher(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Guided velocity of each item's teacher on the teacher's prompt, no grad: one call for each `Batch.shares`."""

    def rollout(self) -> Rollout:
        """The student's trajectory to the drawn step, no grad; memoised within the update."""

    def sample(self) -> Tensor:
        """The student's ``x0`` at the rollout's step, no grad; memoised, and kept for a critic that reuses it."""

    def keep_sample(self, x0: Tensor) -> None:
        """Offer the (detached) ``x0`` of a graded call at the rollout's step as this update's ``sample()``."""


class LossTerm(Protocol):
    """A loss: everything it needs is in the context."""

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the scalar loss (mean over the batch) and metrics."""


@runtime_checkable
class OwnsModule(Protocol):
    """A loss term with parameters of its own, such as a discriminator's head.

    The engine asks for the module once, when the run is assembled.  Its optimiser moves whenever its term took part in an
    update; its gradient is averaged over ranks and clipped by itself, and it is saved and resumed with the slots.
    """

    @property
    def optimizer(self) -> AdamW:
        """The optimiser of the module."""

    def module(self) -> nn.Module:
        """Return a new module, without buffers, on the CPU; torch's global generator is keyed to seed and term meanwhile."""


class Metric(Protocol):
    """A metric over finished pictures; it sees all systems at once, so that what they share is computed once.

    Its builder or its call raises `cldistill.errors.NotMeasured` where weights, packages or an endpoint are absent.  A
    metric may carry further attributes, each optional:

    * ``columns: Mapping[str, Column]``: how its figures are shown (`cldistill.records.Column`).
    * ``cached_by: Literal["effect", "effects", "itself"]``: ``effect`` promises that the values of one system on one pool
      depend on nothing but these outputs, their items and that pool's effect, ``effects`` on the whole list of effects as
      well; on no other system in both cases.  The engine then keeps them apart, and asks only for what it has not seen:
      ``request.outputs`` holds just those.  ``itself``: the metric keeps what may be kept, and is asked every time (a judge
      asks again where it was refused).  Without it the whole answer is kept, for exactly the same pictures of the same systems.
    * ``version: str``: changes when its values do.  Without it every edit of a Python file in its plugin's folder does.
    * the methods of `KnowsTruth` and `KnowsStochastic`.
    """

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Return ``{system: {pool: values}}`` for the systems and pools that the metric applies to.

        Under the reserved system ``floor`` (`cldistill.records.FLOOR`) it may give what it finds of fresh truth.
        """


@runtime_checkable
class KnowsTruth(Protocol):
    """A metric that knows what an effect truly makes of a picture: the report shows it beside the systems."""

    def truth(self, effect: str, picture: Image, key: str) -> Image | None:
        """Return one true output of an effect on ``picture`` (a source at the outputs' size), None where it is not known.

        ``key`` is the picture's name in the report: a stochastic effect draws by it.
        """


@runtime_checkable
class KnowsStochastic(Protocol):
    """A metric that knows which effects draw: reports compare systems on those alone, too."""

    def stochastic(self, effect: str) -> bool | None:
        """Return whether an effect gives different pictures each time, None where it is not known."""


class MetricRequest(Protocol):
    """Pictures of all systems on all pools: an effect's name, ``general``, or a probe (`cldistill.records.probe_pool`)."""

    @property
    def effects(self) -> Sequence[EffectInfo]:
        """All effects of the run."""

    @property
    def prompts(self) -> Mapping[str, Prompts]:
        """Effect -> the run's prompts: what its teacher was told, and the student's caption with its trigger."""

    @property
    def items(self) -> Mapping[str, Sequence[Item]]:
        """Pool -> what was edited; a general item has its true result as ``target`` where that is known."""

    @property
    def outputs(self) -> Mapping[str, Mapping[str, Sequence[Image]]]:
        """System -> pool -> its pictures, in the order of ``items``.

        A system may lack a pool.  The sequences read their pictures from the disk when they are indexed and keep none.
        """

    @property
    def digests(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """System -> pool -> a hash of each picture's content, without reading it: for keys of caches."""

    @property
    def reference(self) -> str | None:
        """A system that edits the general pool by the bare base at its own sampling, None if there is none."""

    @property
    def cache(self) -> Path:
        """Folder of the content-addressed cache."""

    @property
    def base_digest(self) -> str:
        """Hash of the base, on which `reconstruct` depends: part of the key of whatever is made of its results."""

    def remember(self, key: Sequence[str | int | float], make: Callable[[], Any]) -> Any:
        """Return ``make()``, plain JSON data, or what it returned for that key in an earlier evaluation.

        The metric's name, options and version are part of the key already.
        """

    def reconstruct(self, pictures: Sequence[Image]) -> list[Image]:
        """Pass pictures through the base's VAE, in its geometry: what a perfect model could give at best."""

    def advance(self, share: float) -> None:
        """Say that a share (0 to 1) of this metric's work is done, for the progress bar."""
