"""Train the quickstart's six teachers on their pairs and write them as LoRA files (how the shipped ones were made).

    python examples/quickstart_teachers.py OUT --effects halftone mosaic ink-hatching party-frame
    python examples/quickstart_teachers.py OUT --effects crimson-oil winter-pastel --steps 1500 --rank 32

The work is that of the teacher source ``from-pairs``: cached, and resumed after a kill.  Two processes with three effects
each, one thread each, keep two cores busy.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import torch

from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.catalogue import load_catalogue
from cldistill.component import BuildContext
from cldistill.data.encodings import Encoder
from cldistill.data.items import list_pairs
from cldistill.protocols import BaseModel
from cldistill.storage.files import default_cache
from cldistill.storage.tensors import TensorCache
from cldistill.weights import LoraWeights
from cldistill_plugins.effectbench.api import SIX
from cldistill_plugins.teachers.api import FromPairsSettings, PairsJob, train_pairs

BASE_OPTIONS = {
    "model": "package:cldistill_plugins.miniature/pipeline",
    "resolution": 128,
    "vl_resolution": 56,
    "dtype": "float32",
    "guidance_scale": 1.0,
    "target_guidance_scale": 1.0,
}
EFFECTS = Path(str(files("cldistill_plugins.effectbench"))) / "effects"


def build_base(cache: Path) -> BaseModel:
    """Load the miniature through the catalogue, as a run does."""
    component = load_catalogue().get("base_model", "qwen-image-edit").component
    base: BaseModel = component.build(
        component.settings.model_validate(BASE_OPTIONS), BuildContext(root=Path(), cache=cache, output=Path())
    )
    return base


def train_teacher(name: str, out: Path, settings: FromPairsSettings, cache: Path) -> Path:
    """Train one effect's teacher (or fetch it from the cache) and write it in half precision."""
    base = build_base(cache)
    effect = SIX[name]
    job = PairsJob(
        base=base,
        slots=AdapterSlots(base.backbone),
        encoder=Encoder(base, TensorCache(cache / "encodings")),
        items=list_pairs(EFFECTS / name, name, effect.prompt).sound().items,
        prompt=effect.prompt,
        settings=settings,
        folder=cache / "pairs",
    )
    state = train_pairs(job)
    tensors = {}
    for module, weights in state.modules.items():
        assert isinstance(weights, LoraWeights)
        tensors[f"{module}.lora_A.weight"] = weights.down
        tensors[f"{module}.lora_B.weight"] = weights.up
    path = out / f"{name}.safetensors"
    header = {"modelspec.title": name, "cldistill.prompt": effect.prompt, "cldistill.steps": str(settings.steps)}
    save_adapter(path, base, tensors, settings.rank, settings.alpha, header, torch.float16)
    return path


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--effects", nargs="+", choices=sorted(SIX), default=list(SIX))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    settings = FromPairsSettings(
        steps=arguments.steps, rank=arguments.rank, alpha=float(arguments.rank), lr=3e-3, end_lr=1e-5, warmup=20,
        batch_size=8, ema=0.995, flip=True,
    )  # fmt: skip
    for name in arguments.effects:
        print(train_teacher(name, arguments.out, settings, arguments.cache), flush=True)


if __name__ == "__main__":
    main()
