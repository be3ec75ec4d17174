"""One frozen backbone, several adapters: named trainable slots, a teacher slot and one beside it, scoped switching.

peft's own switches (`set_adapter`, `disable_adapter`) flip ``requires_grad``: after student -> teacher -> backward all
student gradients are silently None.  Here a slot is switched on in a list that all layers share, and nothing else
changes; a graph that is alive keeps the weights with which it was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cldistill.adapters.inject import AdapterLayers, Weights, cover, padded, uncover
from cldistill.errors import AdapterFormatError, nearest
from cldistill.weights import AdapterState, LoraWeights

if TYPE_CHECKING:
    from cldistill.schedule import Schedule

TEACHER = "teacher"
"""The frozen slot's name."""
BESIDE = "beside"
"""A second frozen slot, for an adapter that works together with another one: ``scope("teacher", "beside")``."""
FROZEN = (TEACHER, BESIDE)

T = TypeVar("T")


@dataclass(frozen=True)
class _Slot:
    key: str
    """Name inside peft's layers: neither dots nor a clash with a dict's methods, whatever the slot is called."""
    modules: tuple[str, ...]
    rank: int
    alpha: float


class AdapterSlots:
    """Named adapter slots over one backbone, which is frozen."""

    def __init__(self, backbone: nn.Module, keep_copies: bool = False) -> None:
        """Freeze ``backbone``, whose modules are wrapped when a slot first adapts them; ValueError if it carries adapters.

        ``keep_copies``: what is trained is cast to autocast's dtype once an update, and not at every call.
        """
        backbone.requires_grad_(False)
        self._layers = AdapterLayers(backbone, keep_copies)
        self._slots: dict[str, _Slot] = {}
        self._created = 0
        self._active: tuple[str, ...] = ()
        self._mounted: dict[str, AdapterState] = {}
        self._padded_rank: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The trainable slots, in the order in which they were added."""
        return tuple(self._slots)

    def add(self, name: str, targets: Sequence[str], rank: int, alpha: float, generator: torch.Generator) -> None:
        """Add a trainable slot in fp32: ``A`` uniform as in `nn.Linear`, ``B`` zero (so it starts as the bare base).

        The weights depend on generator, targets and rank alone, not on other slots or the order of ``targets``.  ValueError
        for a name that is taken, and for a target that is no linear module of the backbone.
        """
        if name in self._slots or name in FROZEN:
            raise ValueError(f"the slot name {name!r} is taken; choose another")
        modules = tuple(sorted(set(targets)))
        self._created += 1
        slot = _Slot(f"{re.sub(r'[^0-9a-zA-Z]', '_', name)}_{self._created}", modules, rank, alpha)
        self._layers.wrap(modules)
        for module in modules:
            self._layers.add(module, slot.key, rank, alpha, generator)
        self._slots[name] = slot

    def remove(self, name: str) -> None:
        """Take a slot and its weights out."""
        slot = self._slot(name)
        if name in self._active:
            raise ValueError(f"slot {name!r} is active; leave its scope before removing it")
        for module in slot.modules:
            uncover(self._layers[module], slot.key)
        del self._slots[name]

    def release(self) -> None:
        """Take everything out: the backbone is again what it was, but frozen."""
        self._slots.clear()
        self._mounted, self._active = {}, ()
        self._layers.unwrap()

    def rank(self, name: str) -> int:
        """Rank of a slot."""
        return self._slot(name).rank

    def alpha(self, name: str) -> float:
        """Alpha of a slot; its scale is ``alpha / rank``."""
        return self._slot(name).alpha

    def targets(self, name: str) -> tuple[str, ...]:
        """Full names of the modules that a slot adapts, sorted."""
        return self._slot(name).modules

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The slot's own: ``<module>.lora_A.weight`` ``[rank, in]`` and ``<module>.lora_B.weight`` ``[out, rank]``."""
        slot = self._slot(name)
        found: dict[str, nn.Parameter] = {}
        for module in slot.modules:
            layer = self._layers[module]
            found[f"{module}.lora_A.weight"] = layer.lora_A[slot.key].weight
            found[f"{module}.lora_B.weight"] = layer.lora_B[slot.key].weight
        return found

    def state(self, name: str) -> dict[str, Tensor]:
        """A copy of the slot's weights, detached: later updates do not change it."""
        return {key: parameter.detach().clone() for key, parameter in self.parameters(name).items()}

    @torch.no_grad()
    def load(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Overwrite the slot's weights in place: an optimiser keeps its parameters.  Raises as `overwrite` does."""
        overwrite(self.parameters(name), state, name)

    def copy(self, source: str, target: str) -> None:
        """Make ``target`` compute what ``source`` computes: same targets and rank, the alphas may differ."""
        weights = self.state(source)
        ratio = (self.alpha(source) / self.rank(source)) / (self.alpha(target) / self.rank(target))
        self.load(target, {k: v * ratio if k.endswith("lora_B.weight") else v for k, v in weights.items()})

    @torch.no_grad()
    def start_from(self, name: str, adapter: AdapterState) -> None:
        """Let a fresh slot start as a LoRA of at most its rank and modules, else AdapterFormatError; other ``B`` stay zero."""
        own, fitting = self.parameters(name), []
        for module, weights in adapter.modules.items():
            a, b = own.get(f"{module}.lora_A.weight"), own.get(f"{module}.lora_B.weight")
            if a is None or b is None:
                raise AdapterFormatError(
                    f"{adapter.source}: slot {name!r} does not adapt {module!r}; extend its targets"
                )
            if not isinstance(weights, LoraWeights):
                raise AdapterFormatError(
                    f"{adapter.source}: slot {name!r} cannot go on from a LoKr; start it from a LoRA"
                )
            if weights.rank > a.shape[0]:
                raise AdapterFormatError(
                    f"{adapter.source}: rank {weights.rank} at {module!r} is more than the {a.shape[0]} of slot {name!r}; "
                    f"set the slot's rank to {weights.rank} or more"
                )
            fitting.append((a, b, weights))
        for a, b, weights in fitting:
            a[: weights.rank].copy_(weights.down)
            b[:, : weights.rank].copy_(weights.up.float() * (weights.scale * a.shape[0] / self.alpha(name)))

    def add_teacher(self, extra_targets: Sequence[str] = (), padded_rank: int | None = None) -> None:
        """Wrap ahead modules that only teachers cover (`mount` would do it then): for `torch.compile` and the like.

        ``padded_rank``: mount every LoRA as one of that rank and scale 1 over all modules: one graph for all of them.
        """
        self._layers.wrap(extra_targets)
        self._padded_rank = padded_rank

    @property
    def mounted(self) -> str | None:
        """Digest of the adapter in the teacher slot, or None."""
        return self._mounted[TEACHER].digest if TEACHER in self._mounted else None

    @property
    def mounted_few_step(self) -> Schedule | None:
        """The sampler that was distilled into the adapter in the teacher slot; None where it is an ordinary teacher."""
        return self._mounted[TEACHER].few_step if TEACHER in self._mounted else None

    def mount(self, state: AdapterState | None, name: str = TEACHER) -> None:
        """Put an adapter of any rank, alpha and coverage into a frozen slot (None: empty it), by default the teacher's.

        Tensors are replaced and never written to: nothing of the last teacher stays, and graphs made with it stay
        right.  Mounting the same digest again costs nothing.  Modules that no slot adapts are wrapped.
        """
        if name not in FROZEN:
            raise ValueError(f"adapters are mounted in a frozen slot ({', '.join(FROZEN)}), not in {name!r}")
        before = self._mounted.get(name)
        if state is not None and before is not None and before.digest == state.digest:
            return
        if state is not None:
            self._layers.wrap(tuple(state.modules))
        for _, layer in self._layers.items():
            uncover(layer, name)
        self._mounted.pop(name, None)
        modules: Weights = {} if state is None else state.modules
        if state is not None and self._padded_rank is not None:
            modules = padded(modules, self._layers.items(), self._padded_rank)
        for module, weights in modules.items():
            cover(self._layers[module], name, weights, module)
        if state is not None:
            self._mounted[name] = state

    @property
    def active(self) -> str | None:
        """The slot whose scope is entered, or None: the bare base; of several, their names joined by ``+``."""
        return "+".join(self._active) or None

    @contextmanager
    def scope(self, name: str | None, *others: str) -> Iterator[None]:
        """Run the forwards inside with exactly this slot (``teacher`` included; None: the bare base); scopes nest.

        With ``others`` all of them work at once: the deltas of their weights add up.
        """
        before = self._active
        self._switch((() if name is None else (name,)) + others)
        try:
            yield
        finally:
            self._switch(before)

    def run_pinned(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Checkpoint ``function(*args)``: its recompute runs under the adapter of its forward, not the active one.

        Has the calling convention of diffusers' ``enable_gradient_checkpointing(run)``.
        """
        names, mounted = self._active, {name: self._mounted.get(name) for name in FROZEN if name in self._active}

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self._as_it_was(names, mounted)

        call = partial(function, **kwargs) if kwargs else function
        result: T = checkpoint(call, *args, use_reentrant=False, context_fn=contexts)
        return result

    @contextmanager
    def _as_it_was(self, names: tuple[str, ...], mounted: Mapping[str, AdapterState | None]) -> Iterator[None]:
        now = {name: self._mounted.get(name) for name in mounted}
        for name, state in mounted.items():
            self.mount(state, name)
        try:
            with self.scope(None, *names):
                yield
        finally:
            for name, state in now.items():
                self.mount(state, name)

    def _switch(self, names: tuple[str, ...]) -> None:
        self._layers.active[:] = [name if name in FROZEN else self._slot(name).key for name in names]
        self._active = names

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            raise ValueError(f"no adapter slot {name!r}{nearest(name, self._slots)}")
        return self._slots[name]


@torch.no_grad()
def overwrite(own: Mapping[str, Tensor], state: Mapping[str, Tensor], slot: str) -> None:
    """Copy ``state`` into ``own``, in place; AdapterFormatError, naming ``slot``, unless names and shapes are the same."""
    differ = sorted(own.keys() ^ state.keys())
    if differ:
        kind = "are missing" if differ[0] in own else "are not the slot's"
        raise AdapterFormatError(f"weights for slot {slot!r}: {len(differ)} names, {differ[0]!r} first, {kind}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise AdapterFormatError(
                f"weights for slot {slot!r}: {key!r} is {tuple(state[key].shape)}, the slot's {tuple(tensor.shape)}; "
                "give the slot the rank of the weights"
            )
    for key, tensor in own.items():
        tensor.copy_(state[key])
