"""The check of a base model: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from cldistill.adapters.files import load_adapter
from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.collection.card import UsageRequest
from cldistill.component import AnyComponent, BuildContext
from cldistill.protocols import BaseModel
from cldistill.records import BaseDescription, Tensors
from cldistill.schedule import Schedule
from cldistill.testing.adapters import random_adapter, randomise_slot
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.elsewhere import SALTED, salted_hashes
from cldistill.testing.pictures import after, picture
from cldistill.testing.stock_check import Stock, compare_with_stock

SHORT, LONG = "make it darker", "turn the picture into a manga page with many fine lines"
SIGMAS = (1e-4, 1e-3, 0.01, *(index / 32 for index in range(1, 32)), 0.99, 0.999, 0.9999, 1.0)
"""At which `predict` must give numbers."""
TOLERANCE = 1e-3
"""Of predictions that must agree but for rounding, as a share of their size."""


@dataclass(frozen=True)
class _Subject:
    checker: Checker
    base: BaseModel
    description: BaseDescription
    pictures: tuple[Image, Image]
    noise: Tensor
    """``[2, ...]``"""
    sigma: Tensor
    source: Tensors
    prompt: Tensors

    def predict(self, **changed: Any) -> Tensor:
        """Predict for both pictures, with one or more arguments changed."""
        given = {"x": self.noise, "sigma": self.sigma, "source": self.source, "prompt": self.prompt} | changed
        with torch.no_grad():
            return self.base.predict(given["x"], given["sigma"], given["source"], given["prompt"])


def check_base_model(
    component: AnyComponent, options: Options = None, *, size: tuple[int, int] = (24, 24), fresh: bool = True,
    stock: Stock | None = None, references: int = 2,
) -> None:  # fmt: skip
    """Assert all that the engine relies on; with a small model this takes a second.

    The description is true of the backbone; encodings are deterministic and come back after `drop_encoders`; `predict`
    gives fp32 velocities that depend on all its arguments and on each adapted module, not on padding or on the rest of
    the batch, at every sigma; no method writes into what it is given; `features` gives each described block's own; sources of
    one `batch_key` can be collated; gradient checkpointing changes no gradient; decoding and export work.

    Args:
        size: Width and height of the pictures that it is shown.
        fresh: See `cldistill.testing.check_component`.
        stock: Makes a picture by the family's own pipeline, at scale 1 with a LoRA that `load_lora_weights` reads.  The base
            must then make the same pictures from the same noise within 1e-3, lay an after-picture out in the geometry of its
            references, and let no option that changes what it encodes or predicts out of its fingerprint.
        references: How many references that pipeline takes.
    """
    checker, needs = check_component(component, "base_model", options, fresh=fresh)
    if needs.base is None:
        checker.fail("describe must fill Needs.base (a BaseDescription), from the model's config alone")
    settings = read_settings(component, options)
    with scratch_context() as context:
        base: BaseModel = component.build(settings, context)
        base.backbone.requires_grad_(False)
        subject = _subject(checker, base, needs.base, (picture(0, size), picture(1, size)))
        if stock is not None:
            compare_with_stock(checker, component, settings, context, stock, size=size, references=references)
        _leaves_arguments_alone(subject, size)
        _attributes(subject, lambda: component.build(settings, context))
        _encodings(subject, size)
        _batch_keys(subject, size)
        _predictions(subject)
        _every_sigma(subject)
        _features(subject)
        _guidance(subject)
        _decoding(subject)
        _adapters(subject, context)


def _subject(
    checker: Checker, base: BaseModel, description: BaseDescription, pictures: tuple[Image, Image]
) -> _Subject:
    base.load_encoders()
    sources = [base.encode_source([shown]) for shown in pictures]
    shape = base.latent_shape(sources[0])
    prompts = [base.encode_prompt(SHORT, pictures[:1]), base.encode_prompt(LONG, pictures[1:])]
    noise = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.9, 0.4])
    return _Subject(checker, base, description, pictures, noise, sigma, base.collate(sources), base.collate(prompts))


def _attributes(s: _Subject, rebuild: Callable[[], BaseModel]) -> None:
    require, base, said = s.checker.require, s.base, s.description
    shapes = linear_shapes(base.backbone)
    wrong = [name for name, shape in said.modules.items() if shapes.get(name) != tuple(shape)]
    require(not wrong, f"describes modules that the backbone does not have in that shape, {wrong[:1]} for one")
    missing = [name for name in shapes if name not in said.modules]
    require(not missing, f"does not describe {len(missing)} linear modules of its backbone, {missing[:1]} for one")
    count = sum(parameter.numel() for parameter in base.backbone.parameters())
    require(said.parameters == count, f"describes {said.parameters:,} parameters, but the backbone has {count:,}")
    require(tuple(base.adapter_targets) == tuple(said.targets), "adapter_targets differ from the described targets")
    require(dict(base.blocks) == dict(said.blocks), "its blocks differ from the described ones")
    require(base.guidance_scale == said.guidance_scale, "guidance_scale differs from the described one")
    require(
        base.prompt_sees_pictures == said.prompt_sees_pictures, "prompt_sees_pictures differs from the described one"
    )
    usage = base.usage(UsageRequest("a prompt", Schedule()))
    require(usage is None or "a prompt" in usage.python, "usage must show the prompt that it is given, or be None")
    require(bool(base.fingerprint), "its fingerprint is empty: every cache key needs it")
    require(
        rebuild().fingerprint == base.fingerprint, "built twice, it has two fingerprints: the cache would never be hit"
    )
    with salted_hashes():
        salted, prompt = rebuild().fingerprint, base.encode_prompt(SHORT, s.pictures[:1])
    require(
        salted == base.fingerprint, f"its fingerprint depends on hash(), so that no other run hits its cache: {SALTED}"
    )
    require(_same(prompt, base.encode_prompt(SHORT, s.pictures[:1])), f"encode_prompt depends on hash(): {SALTED}")


def _encodings(s: _Subject, size: tuple[int, int]) -> None:
    require, base, (first, second) = s.checker.require, s.base, s.pictures
    with s.checker.leaves_global_random_alone("encode deterministically (the mode of a VAE's posterior, not a sample)"):
        source, prompt = base.encode_source([first]), base.encode_prompt(SHORT, [first])
    require(_same(source, base.encode_source([first])), "encode_source gives two results for one picture")
    require(_same(prompt, base.encode_prompt(SHORT, [first])), "encode_prompt gives two results for one prompt")
    require(not _same(source, base.encode_source([second])), "encode_source does not see the picture")
    require(not _same(prompt, base.encode_prompt(LONG, [first])), "encode_prompt does not see the prompt")
    if not base.prompt_sees_pictures:
        alike = _same(prompt, base.encode_prompt(SHORT, [second]))
        require(alike, "says that prompts see no pictures (prompt_sees_pictures), and encode_prompt sees them")
    target = base.encode_target(after(first), [first])
    shape = base.latent_shape(source)
    require(tuple(target.shape) == shape, f"encode_target gives {tuple(target.shape)}, but latent_shape is {shape}")
    require(bool(target.isfinite().all()), "encode_target gives numbers that are not finite")
    wide = picture(2, (2 * size[0], size[1]))
    wide_shape = base.latent_shape(base.encode_source([wide]))
    wide_target = base.encode_target(after(wide), [wide])
    require(tuple(wide_target.shape) == wide_shape, "encode_target and latent_shape differ for a wide picture")
    base.drop_encoders()
    base.load_encoders()
    require(_same(prompt, base.encode_prompt(SHORT, [first])), "after drop_encoders and load_encoders a prompt differs")
    require(base.tokenize(SHORT) == base.tokenize(SHORT), "tokenize is not deterministic")
    require(base.tokenize(SHORT) != base.tokenize(LONG), "tokenize gives the same tokens for different texts")


def _batch_keys(s: _Subject, size: tuple[int, int]) -> None:
    """Sources of one key must share a batch: whatever shape, orientation and number their pictures have."""
    require, base, (first, second) = s.checker.require, s.base, s.pictures
    wide, tall = picture(2, (2 * size[0], size[1])), picture(3, (size[0], 2 * size[1]))
    shown = [[first], [second], [wide], [tall], [first, second], [first, wide], [tall, first]]
    groups: dict[tuple[int, ...], list[Tensors]] = {}
    for pictures in shown:
        source = base.encode_source(pictures)
        key = base.batch_key(source)
        require(
            isinstance(key, tuple) and all(type(side) is int for side in key),
            f"batch_key must give a tuple of plain integers, not {key!r}",
        )
        groups.setdefault(key, []).append(source)
    sizes = [base.batch_key(base.encode_source([p])) for p in (first, second)]
    require(sizes[0] == sizes[1], "batch_key differs for two pictures of one size: no batch could be made of them")
    for key, sources in groups.items():
        _share_a_batch(s, key, sources)


def _share_a_batch(s: _Subject, key: tuple[int, ...], sources: list[Tensors]) -> None:
    base, hint = s.base, "it must hold rows and columns of the output and of every reference"
    shapes = {base.latent_shape(source) for source in sources}
    s.checker.require(len(shapes) == 1, f"batch_key {key} stands for latents of the shapes {sorted(shapes)}: {hint}")
    try:
        source = base.collate(sources)
    except Exception as error:
        s.checker.fail(f"sources of one batch_key {key} cannot be collated ({error}): {hint}")
    count = len(sources)
    noise = torch.randn((count, *shapes.pop()), generator=torch.Generator().manual_seed(1))
    prompt = base.encode_prompt(SHORT, s.pictures[:1])
    sigma = torch.full((count,), 0.5)
    together = s.predict(x=noise, sigma=sigma, source=source, prompt=base.collate([prompt] * count))
    drawn = base.decode(noise, source)
    for index in range(count):
        one, own = slice(index, index + 1), base.collate([sources[index]])
        alone = s.predict(x=noise[one], sigma=sigma[one], source=own, prompt=base.collate([prompt]))
        s.checker.require(
            _close(alone, together[one]) and base.decode(noise[one], own)[0].size == drawn[index].size,
            f"sources of one batch_key {key} give other results in a batch than alone: {hint}",
        )


def _predictions(s: _Subject) -> None:
    require = s.checker.require
    with s.checker.leaves_global_random_alone("put the backbone in eval mode: dropout is off"):
        v = s.predict()
    require(v.shape == s.noise.shape, f"predict gives {tuple(v.shape)} for latents of {tuple(s.noise.shape)}")
    require(v.dtype == torch.float32, f"predict gives {v.dtype}; return .float(), so that losses are computed in fp32")
    require(bool(v.isfinite().all()), "predict gives numbers that are not finite")
    require(torch.equal(v, s.predict()), "predict gives two results for the same arguments")
    base = s.base
    changed = {
        "x": s.noise.flip(0), "sigma": s.sigma.flip(0),
        "source": base.collate([base.encode_source([shown]) for shown in reversed(s.pictures)]),
        "prompt": base.collate([base.encode_prompt(text, [p]) for text, p in zip((LONG, SHORT), s.pictures, strict=True)]),
    }  # fmt: skip
    for name, value in changed.items():
        require(not torch.equal(v, s.predict(**{name: value})), f"predict does not depend on {name}")
    alone = s.predict(
        x=s.noise[:1], sigma=s.sigma[:1], source=base.collate([base.encode_source(s.pictures[:1])]),
        prompt=base.collate([base.encode_prompt(SHORT, s.pictures[:1])]),
    )  # fmt: skip
    require(
        _close(alone, v[:1]),
        "predict gives another result for an item in a batch than for the item alone: mask the padding of prompts, and mix "
        "nothing across the batch",
    )


def _every_sigma(s: _Subject) -> None:
    for index in range(0, len(SIGMAS), 2):
        sigma = torch.tensor(SIGMAS[index : index + 2])
        v = s.predict(sigma=sigma)
        bad = [f"{value:g}" for value, row in zip(sigma.tolist(), v, strict=True) if not bool(row.isfinite().all())]
        s.checker.require(
            not bad,
            f"predict gives numbers that are not finite at sigma {', '.join(bad)}; every sigma in (0, 1] comes up, 1 itself "
            "at the start of each sampling: guard divisions by sigma and by 1 - sigma",
        )


def _leaves_arguments_alone(s: _Subject, size: tuple[int, int]) -> None:
    """No method may write into its arguments: the engine caches them and passes them again."""
    base, first = s.base, picture(8, size)
    velocities = {"conditional": s.noise.clone(), "unconditional": s.noise.flip(0)}
    row = {**base.encode_source([picture(8, size)])}
    x0, single = s.noise[:1].clone(), base.collate([row])
    given = {"x": s.noise, "sigma": s.sigma} | {f"source[{name!r}]": value for name, value in s.source.items()}
    given |= {f"prompt[{name!r}]": value for name, value in s.prompt.items()}

    def pixels() -> dict[str, Tensor]:
        return {"its picture": torch.frombuffer(bytearray(first.tobytes()), dtype=torch.uint8)}

    _untouched(s, "predict", lambda: given, lambda: s.predict())
    c, u = velocities.values()
    _untouched(s, "guide", lambda: velocities, lambda: base.guide(c, u, 3.0, "standard"))
    _untouched(s, "guide", lambda: velocities, lambda: base.guide(c, u, 3.0, "rescaled"))
    _untouched(s, "decode", lambda: {"x0": x0}, lambda: base.decode(x0, single))
    _untouched(s, "collate", lambda: row, lambda: base.collate([row, row]))
    _untouched(s, "encode_source", pixels, lambda: base.encode_source([first]))
    _untouched(s, "encode_target", pixels, lambda: base.encode_target(first, [first]))
    _untouched(s, "encode_prompt", pixels, lambda: base.encode_prompt(SHORT, [first]))


def _untouched(s: _Subject, method: str, read: Callable[[], Mapping[str, Tensor]], call: Callable[[], object]) -> None:
    before = {name: value.clone() for name, value in read().items()}
    call()
    changed = [name for name, value in read().items() if not torch.equal(value, before[name])]
    s.checker.require(not changed, f"{method} changes {', '.join(changed)} in place; work on a copy")


def _features(s: _Subject) -> None:
    """Each block gives one row a token, and gives it from all arguments, whether the blocks behind it run or not."""
    require, base = s.checker.require, s.base
    velocity = s.predict()
    found: list[Tensor] = []
    for at, width in s.description.blocks.items():
        with torch.no_grad():
            features = base.features(s.noise, s.sigma, s.source, s.prompt, at)
            moved = base.features(s.noise, s.sigma.flip(0), s.source, s.prompt, at)
        shape = tuple(features.shape)
        require(
            features.ndim == 3 and shape[0] == 2 and shape[2] == width,
            f"features at {at!r} have the shape {shape}; described are [2, L, {width}]",
        )
        require(features.dtype == torch.float32, f"features at {at!r} are {features.dtype}; return .float()")
        require(bool(features.isfinite().all()), f"features at {at!r} are not finite")
        require(not torch.equal(features, moved), f"features at {at!r} do not depend on sigma")
        require(
            not any(torch.equal(features, other) for other in found), f"features at {at!r} are those of another block"
        )
        found.append(features)
    require(torch.equal(velocity, s.predict()), "asking for features changes what predict gives afterwards")


def _guidance(s: _Subject) -> None:
    c, u = s.noise, s.noise.flip(0)
    for mode in ("standard", "rescaled"):
        guided = s.base.guide(c, u, 1.0, mode)
        s.checker.require(_close(guided, c), f"guide with scale 1 must give the conditional velocity ({mode})")
        s.checker.require(s.base.guide(c, u, 3.0, mode).shape == c.shape, f"guide changes the shape ({mode})")
    s.checker.require(
        _close(s.base.guide(c, u, 3.0, "standard"), u + 3.0 * (c - u)), "guide must give u + scale * (c - u)"
    )


def _decoding(s: _Subject) -> None:
    latents = torch.stack([s.base.encode_target(shown, [shown]) for shown in s.pictures])
    decoded = s.base.decode(latents, s.source)
    s.checker.require(len(decoded) == 2, f"decode gives {len(decoded)} pictures for two latents")
    s.checker.require(all(shown.mode == "RGB" for shown in decoded), "decode must give RGB pictures")


def _adapters(s: _Subject, context: BuildContext) -> None:
    require, base = s.checker.require, s.base
    bare = s.predict()
    slots = AdapterSlots(base.backbone)
    slots.add("student", base.adapter_targets, 2, 2.0, torch.Generator().manual_seed(0))
    require(_close(s.predict(), bare), "carrying adapters that are off changes what it predicts")
    randomise_slot(base, slots, "student")
    slots.mount(random_adapter(base, "teacher"))
    shown = {}
    for name in ("student", "teacher"):
        with slots.scope(name):
            shown[name] = s.predict()
        require(not _close(shown[name], bare), f"the adapter in slot {name!r} changes nothing")
    plain = _gradients(s, slots)
    _effects_of_targets(s, plain)
    shallow = {at: _gradients(s, slots, at) for at in s.description.blocks}
    for at, grads in shallow.items():
        require(any(bool((grad != 0).any()) for grad in grads.values()), f"features at {at!r} have no gradient")
    _export(s, slots, context.root / "adapter.safetensors")
    calls: list[object] = []

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(function)
        return slots.run_pinned(function, *args, **kwargs)

    base.enable_gradient_checkpointing(run)
    checkpointed = _gradients(s, slots)
    require(bool(calls), "enable_gradient_checkpointing(run) must call each block through run(function, *args)")
    off = [name for name, grad in plain.items() if not _close(checkpointed[name], grad)]
    require(not off, f"gradient checkpointing changes the gradient, of {off[:1]} for one")
    deep = {at: _gradients(s, slots, at) for at in s.description.blocks}
    off = [at for at, grads in deep.items() if not all(_close(grads[name], grad) for name, grad in shallow[at].items())]
    require(not off, f"gradient checkpointing changes the gradient of features, at {off[:1]} for one")


def _effects_of_targets(s: _Subject, gradients: Mapping[str, Tensor]) -> None:
    """Every target but the idle ones must change the prediction, and no idle one may."""
    require, idle = s.checker.require, set(s.description.idle)
    reached = {name.removesuffix(".lora_B.weight"): bool((grad != 0).any()) for name, grad in gradients.items()}
    unknown = sorted(idle - reached.keys())
    require(not unknown, f"describes {unknown[:1]} as idle, which is none of its targets")
    unused = [name for name, effect in reached.items() if not effect and name not in idle]
    require(
        not unused,
        f"adapting {len(unused)} of its targets has no effect, {unused[:1]} for one: leave them out, or name them in "
        "BaseDescription.idle if files for this family hold them",
    )
    busy = [name for name in reached if reached[name] and name in idle]
    require(not busy, f"describes {busy[:1]} as idle, but adapting it changes what is predicted: take it out of idle")


def _gradients(s: _Subject, slots: AdapterSlots, at: str | None = None) -> dict[str, Tensor]:
    """Return the gradients of every ``lora_B`` by what is predicted, or by the features of the block ``at``."""
    parameters = {name: p for name, p in slots.parameters("student").items() if name.endswith("lora_B.weight")}
    for parameter in parameters.values():
        parameter.grad = None
    with slots.scope("student"):
        given = (s.noise, s.sigma, s.source, s.prompt)
        output = s.base.predict(*given) if at is None else s.base.features(*given, at)
    # Outside the scope: the recompute of a checkpoint must find its own adapter again.
    output.square().mean().backward()  # type: ignore[no-untyped-call]
    zero = torch.zeros(())
    return {name: zero if p.grad is None else p.grad.detach().clone() for name, p in parameters.items()}


def _export(s: _Subject, slots: AdapterSlots, path: Path) -> None:
    state = slots.state("student")
    exported = s.base.export_state(state)
    s.checker.require(len(exported) == len(state), "export_state must give one tensor for each that it is given")
    save_adapter(path, s.base, state, 2, 2.0)
    read = load_adapter(path, s.description.modules)
    s.checker.require(
        set(read.modules) == set(s.base.adapter_targets),
        "an adapter saved by export_state does not load onto the base again",
    )
    for name, value in s.base.export_metadata().items():
        s.checker.require(isinstance(value, str), f"export_metadata()[{name!r}] must be a string")
        s.checker.require(not Path(value).is_absolute(), f"export_metadata()[{name!r}] is a path of this machine")


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= TOLERANCE * other.norm())
