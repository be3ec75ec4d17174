"""`python -m cldistill_plugins.miniature.build.teach --work DIR --base PIPELINE`: can LoRAs of 20 pairs be taught to this base?

Trains a LoRA for each of some effects of EffectBench that the base of sixteen edits failed at, and measures them on pictures
of the training split that no pair and no training of the base contains, a third of each square, landscape and portrait.
Nothing here looks at a held-out picture, so bases may be chosen by it. The other plugins are reached as a user reaches them, by
their commands.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from cldistill_plugins.miniature.build.art import load_sprites
from cldistill_plugins.miniature.build.photos import load_photos
from cldistill_plugins.miniature.build.pictures import open_studio
from cldistill_plugins.miniature.build.scenes import Scenes

EFFECTS = (
    "starry-swirl", "black-contour", "pencil-drawing", "crimson-oil", "cartoon-ink", "ribbon-ink", "pale-leadlight",
    "plum-cubes",
)  # fmt: skip
"""Effects whose LoRA on the base of sixteen edits was bad in most held-out pictures."""
SHAPES = {"square": (128, 128), "landscape": (160, 96), "portrait": (96, 160)}
FIRST_INDEX = 900_000
"""Scenes start here: none of them is in the chunks that the base trains on."""


def write_probes(work: Path, a_shape: int) -> Path:
    """Write `a_shape` scenes of each shape to `work/probes-<count>`."""
    folder = work / f"probes-{a_shape}"
    folder.mkdir(parents=True, exist_ok=True)
    scenes = Scenes(open_studio(load_sprites(work), "train"), load_photos(work))
    for name, (width, height) in SHAPES.items():
        for index in range(a_shape):
            path = folder / f"{name}-{index:02d}.png"
            Image.fromarray(scenes.scene(FIRST_INDEX + index, width, height)).save(path)
    return folder


def manifest(base: Path, label: str, listed: Path, probes: Path, count: int, steps: int) -> dict[str, Any]:
    """The evaluation of one base: its LoRAs at 8 plain steps beside the bare base."""
    return {
        "cldistill": 1,
        "extends": "effectbench-coarse",
        "name": f"teach-{label}",
        "base": {"options": {"model": str(base.resolve())}},
        "effects": str(listed.resolve()),
        "teacher": {"options": {"steps": steps}},
        "samples": None,
        "evaluate": {
            "images": str(probes.resolve()),
            "pictures": count,
            "metrics": [{"use": "closeness"}, {"use": "bcr-oracle"}],
            "systems": [
                {"name": "bare", "adapter": None, "steps": 8},
                {"name": "teacher", "adapter": "teacher", "steps": 8},
            ],
        },
    }


def means(report: dict[str, Any], shape: str = "") -> dict[str, dict[str, float]]:
    """Effect → metric → mean of the teacher's values over the pictures of one shape, or over all of them."""
    chosen = [place for place, picture in enumerate(report["pictures"]) if Path(picture).name.startswith(shape)]
    result = {}
    for effect, metrics in report["values"]["teacher"].items():
        kept = {name: [values[place] for place in chosen] for name, values in metrics.items()}
        result[effect] = {name: sum(values) / len(values) for name, values in kept.items() if None not in values}
    return result


def table(report: dict[str, Any]) -> str:
    """Closeness by effect and shape, and the share of bad cases, for people."""
    every, by_shape = means(report), {shape: means(report, shape) for shape in SHAPES}
    lines = [f"{'effect':<18}" + "".join(f"{name:>11}" for name in ("closeness", *SHAPES, "bad cases"))]
    for effect, values in every.items():
        shapes = "".join(f"{by_shape[shape][effect]['closeness']:>11.3f}" for shape in SHAPES)
        lines.append(f"{effect:<18}{values['closeness']:>11.3f}{shapes}{values['bad_case']:>11.0%}")
    return "\n".join(lines)


def _call(*command: str) -> None:
    subprocess.run([sys.executable, "-m", *command], check=True)


def main(arguments: list[str] | None = None) -> None:
    """Make the pairs, train and measure; everything is kept, and the same command goes on."""
    parser = argparse.ArgumentParser(prog="python -m cldistill_plugins.miniature.build.teach", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the build's folder")
    parser.add_argument("--base", type=Path, required=True, help="folder of a pipeline")
    parser.add_argument("--label", default="base", help="name of the evaluation: work/teach-LABEL")
    parser.add_argument("--effects", nargs="+", default=list(EFFECTS))
    parser.add_argument("--steps", type=int, default=400, help="training steps a LoRA")
    parser.add_argument("--a-shape", type=int, default=4, help="pictures of each shape")
    given = parser.parse_args(arguments)
    which = hashlib.sha256(" ".join(given.effects).encode()).hexdigest()[:8]
    bank = given.work / f"teach-bank-{which}"
    listed = bank / f"effects-{len(given.effects)}.yaml"
    if not listed.is_file():
        names = ("--effects", *given.effects, "--processes", "1")
        _call("cldistill_plugins.effectbench.bank", str(bank), *names)
    probes = write_probes(given.work, given.a_shape)
    settings = manifest(given.base, given.label, listed, probes, 3 * given.a_shape, given.steps)
    file = given.work / f"teach-{given.label}.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    out = given.work / f"teach-{given.label}"
    _call("cldistill", "eval", str(file), "--output", str(out))
    print(table(json.loads((out / "report.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
