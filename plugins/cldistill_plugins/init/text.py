"""The text of a new manifest: every value that a person may want to change, with a word on what it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cldistill.errors import CONTROL, readable
from cldistill_plugins.init.found import FoundEffect

MINIATURE = "package:cldistill_plugins.miniature"
SAMPLE = "package:cldistill_plugins.effectbench"
SAMPLES = {"halftone": "print it as a halftone", "crimson-oil": "paint it in crimson oil"}
"""Effects of the package and the prompts of their LoRAs: what a miniature learns that was given nothing else."""


@dataclass(frozen=True)
class Wanted:
    """The contents of a new manifest."""

    name: str
    effects: Sequence[FoundEffect]
    prompts: Mapping[str, str]
    """Effect -> the prompt that its teacher hears."""
    file: Path
    """Path of the manifest to come; its paths are relative to the folder."""
    pictures: Path | None = None
    """Shown to LoRAs that have no pairs."""
    general: tuple[Path, Path] | None = None
    """Pictures and instructions of the general stream."""
    held_out: Path | None = None
    model: str = "Qwen/Qwen-Image-Edit-2509"

    @property
    def folder(self) -> Path:
        """The manifest's folder, absolute."""
        return self.file.absolute().parent


def plain(value: str | Path, folder: Path) -> str:
    """Return a YAML scalar: a path relative to ``folder`` where it lies below it, quoted where YAML asks for it."""
    text = str(value)
    if isinstance(value, Path):
        full = value.absolute()
        text = str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)
    simple = re.fullmatch(r"[A-Za-z/.][A-Za-z0-9 _./:-]*", text) and not re.search(r":( |$)| $|^\.$", text)
    reserved = text.lower() in ("null", "true", "false", "yes", "no", "on", "off")
    return text if simple and not reserved else _in_quotes(text)


def _in_quotes(text: str) -> str:
    """Return a text in double quotes, on one line whatever is in it."""
    written = json.dumps(text, ensure_ascii=False)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def manifest_text(wanted: Wanted) -> str:
    """Return a manifest for the stock base."""
    one = len(wanted.effects) == 1
    lines = [
        f"# {len(wanted.effects)} effect{'' if one else 's'} and 8-step sampling in one LoRA, written by `cldistill init`.",
        "# Paths are relative to this file; `--set slots.student.rank=32` changes one value for one run.",
        "#", *_next(wanted, "what it costs, and whether it fits"),
        "cldistill: 1", f"name: {wanted.name}", "",
        "base:",
        "  use: qwen-image-edit",
        "  options:",
        f"    model: {plain(wanted.model, wanted.folder)}   # a hub id, or a folder in the diffusers layout",
        "    resolution: 1024              # area in pixels: 1024 x 1024",
        "    dtype: bfloat16               # of the frozen backbone; the adapters stay in float32",
        "", *_effects(wanted, "{use: from-pairs}"), *_general(wanted, ""),
        "prompts: {use: aop, options: {captioner: template}}   # a trigger of its own for each effect", "",
        "losses:",
        "  - {use: bs-dmd}                      # the student's own pictures must look like the teacher's",
        "  - {use: ts-dmd, streams: [effect]}   # ... also in fine texture",
        "  - {use: ta-fm, streams: [effect]}    # ... and stay near the teacher's picture",
        "  - {use: fake-score, slot: critic}    # follows what the student makes; the first two compare against it", "",
        "slots:                             # `rank` and `ema` are what memory goes into, beside the base",
        f"  student: {{rank: {rank(wanted)}, lr: 1e-4, ema: 0.999}}",
        f"  critic: {{rank: {rank(wanted)}, lr: 1e-4, updates: 5, reuse_sample: true}}", "",
        "sampler: {steps: 8, shift: 3.0}    # what the student is trained for, and must be used with",
        "targets: {from: teacher, steps: 40}   # the teacher's own output; `from: pair` takes your after-pictures", "",
        "train:",
        f"  generator_steps: {steps(wanted)}",
        "  batch_size: 1",
        "  checkpoint_every: 50",
        "  mixed_precision: bf16",
        "  gradient_checkpointing: true     # false is faster, where `plan` says that it fits", "",
        *_shown(wanted, every=100, pictures=8),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def miniature_text(wanted: Wanted) -> str:
    """Return a manifest for the miniature base, at settings that work there: no guidance, float32, 128 x 128 pictures."""
    taught = (
        "{use: from-pairs, options: {steps: 400, lr: 3.0e-3, end_lr: 1.0e-5, warmup: 20, batch_size: 8, ema: 0.99}}"
    )
    mixed = 300 + 60 * len(wanted.effects)
    lines = [
        "# The whole method on the miniature base, in minutes on a laptop, written by `cldistill init --miniature`.",
        "# Paths are relative to this file.  What works here says how the parts behave, not how the 20 B model will look.",
        "#", *_next(wanted, "what it costs"),
        "cldistill: 1", f"name: {wanted.name}", "",
        "base:",
        "  use: qwen-image-edit",
        "  options:",
        f"    model: {MINIATURE}/pipeline   # a complete pipeline of 2.5 M parameters",
        "    resolution: 128               # area in pixels: 128 x 128 (stock: 1024)",
        "    vl_resolution: 56             # what its language model sees (stock: 384)",
        "    dtype: float32",
        "    guidance_scale: 1.0           # guidance hurts teachers of this small base",
        "    target_guidance_scale: 1.0",
        "", *_effects(wanted, taught), *_general(wanted, f", mixed_until: {mixed}, mixed_general: 0.4"),
        "prompts: {use: aop, options: {captioner: template}}   # a trigger of its own for each effect", "",
        f"# First flow matching alone on mixed batches; then all losses, from step {mixed} on.",
        "losses:",
        "  - {use: ta-fm, streams: [mixed, effect], weight: 3.0}",
        f"  - {{use: bs-dmd, streams: [effect, general], from_step: {mixed}}}",
        f"  - {{use: ts-dmd, streams: [effect], from_step: {mixed}}}",
        f"  - {{use: fake-score, from_step: {mixed}}}", "",
        "slots:",
        "  student:",
        "    rank: 32",
        "    lr:",
        "      - {from_step: 0, lr: 5e-3, end_lr: 2e-4, warmup: 20}",
        f"      - {{from_step: {mixed}, lr: 2e-4}}",
        "    ema: 0.98",
        f"  critic: {{rank: 32, lr: 4e-4, betas: [0.0, 0.999], updates: 3, from_step: {mixed}, init: slot:student,",
        "           reuse_sample: true}", "",
        "sampler: {steps: 8, shift: 3.0}",
        "targets: {from: teacher, steps: 40}", "",
        "train:",
        f"  generator_steps: {mixed + 40}",
        "  batch_size: 8",
        "  grad_clip: 1.0",
        "  checkpoint_every: 100",
        "  gradient_checkpointing: false    # this base needs no memory saved", "",
        *_shown(wanted, every=max(1, mixed // 2), pictures=8, fallback=f"{MINIATURE}/pictures/held-out"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def sample_effects() -> tuple[list[FoundEffect], dict[str, str]]:
    """Return effects that are shipped, for a miniature that was given none."""
    return [FoundEffect(name, prompt=prompt) for name, prompt in SAMPLES.items()], dict(SAMPLES)


def rank(wanted: Wanted) -> int:
    """Return a rank by the number of effects: the paper's 128 is for fifty."""
    return 64 if len(wanted.effects) <= 8 else 128


def steps(wanted: Wanted) -> int:
    """Return generator steps by the number of effects: 1,000 for one, the paper's 5,000 for fifty."""
    return min(5000, 1000 + 100 * (len(wanted.effects) - 1))


def _next(wanted: Wanted, plan: str) -> Iterator[str]:
    file = wanted.file.name
    yield f"#   cldistill check {file}      says what is missing, with line numbers"
    yield f"#   cldistill plan  {file}      {plan}"
    yield f"#   cldistill run   {file}      trains, exports, measures; Ctrl-C saves, and the same command goes on"


def _effects(wanted: Wanted, taught: str) -> Iterator[str]:
    folder = wanted.folder
    if any(effect.teacher is None and effect.pairs is not None for effect in wanted.effects):
        yield "# The teacher of every effect that names none: a LoRA trained on its pairs, once, and kept in the cache."
        yield f"teacher: {taught}"
        yield ""
    yield "effects:                            # `prompt` is what the effect's LoRA was trained with, word for word"
    for effect in wanted.effects:
        sample = effect.teacher is None and effect.pairs is None
        yield f"  - name: {plain(effect.name, folder)}"
        yield f"    prompt: {plain(wanted.prompts[effect.name], folder)}"
        if sample:
            yield f"    pairs: {SAMPLE}/effects/{effect.name}"
            yield f"    teacher: {{use: lora-file, options: {{path: {SAMPLE}/teachers/{effect.name}.safetensors}}}}"
            continue
        if effect.pairs is not None:
            yield f"    pairs: {plain(effect.pairs, folder)}   # {readable(' '.join(effect.listed.split()))}"
        elif wanted.pictures is not None:
            yield f"    pairs: {plain(wanted.pictures, folder)}   # pictures that its LoRA edits: no after-pictures needed"
        if effect.teacher is not None:
            yield f"    teacher: {{use: lora-file, options: {{path: {_quoted(effect.teacher, folder)}}}}}"
    yield ""


def _quoted(path: Path, folder: Path) -> str:
    """Return a path inside ``{...}``, where a comma or a bracket would end it."""
    text = plain(path, folder)
    return text if text.startswith('"') or not re.search(r"[,{}\[\]]", text) else _in_quotes(text)


def _general(wanted: Wanted, options: str) -> Iterator[str]:
    if wanted.general is not None:
        images, instructions = wanted.general
        package = str(images).startswith("package:")
        where = [str(path) if package else _quoted(path, wanted.folder) for path in (images, instructions)]
        yield '# Everyday edits that the student must not forget.  Each line: {"image": "0001.jpg", "instruction": "..."}'
        yield f"general: {{images: {where[0]}, instructions: {where[1]}}}"
        share = "0.7" if options else "0.5"
        yield f"router: {{use: pdsr, options: {{p_switch: {share}{options}}}}}   # the share of updates that train an effect"
    else:
        yield "# Without pictures of everyday edits the student forgets some of what the base can do.  To keep it, name some"
        yield "# and lower p_switch to 0.5; `cldistill instructions data/general` writes their instructions."
        yield "# general: {images: data/general, instructions: data/general.jsonl}"
        yield f"router: {{use: pdsr, options: {{p_switch: 1.0{options}}}}}"
    yield ""


def _shown(wanted: Wanted, *, every: int, pictures: int, fallback: str | None = None) -> Iterator[str]:
    """Yield what is drawn while it trains and measured at its end."""
    if wanted.held_out is not None:
        images, note = plain(wanted.held_out, wanted.folder), "pictures that nothing was trained on"
    elif fallback is not None:
        images, note = fallback, "pictures that nothing was trained on"
    else:
        folder = next((effect.befores for effect in wanted.effects if effect.befores is not None), wanted.pictures)
        assert folder is not None
        images, note = plain(folder, wanted.folder), "trained on: name a folder of other pictures"
    yield f"samples: {{every: {every}, images: {images}}}   # a grid of {note}"
    yield "evaluate:                          # the run ends with result.png and this score"
    yield f"  images: {images}"
    yield f"  pictures: {pictures}"
    yield "  pairs: 0                         # of each effect, held out of training: their after-pictures are the truth"
    yield "  metrics: [{use: likeness}]       # to each effect's own LoRA, to held-out truths, and from the source"
