"""The record beside the weights: from what, with what and how they were made."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from cldistill_plugins.miniature.build import art, photos, pictures
from cldistill_plugins.miniature.build.clock import load_state
from cldistill_plugins.miniature.build.task_latents import CHUNK

_LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers", "numpy", "pillow", "scikit-image", "resvg_py")


def provenance(work: Path, sources: int, pool: int) -> dict[str, Any]:
    """Data, code points, seeds, steps, versions and licences of one build; figures come later.

    Args:
        sources: pictures that the transformer was trained on, each with every edit.
        pool: pictures that the VAE was trained on.
    """
    sprites = art.load_sprites(work)
    codes = sorted({sprite.code for sprite in sprites})
    return {
        "what": "Qwen-Image-Edit in miniature: the stock classes with tiny configs, trained from scratch",
        "made_by": "python -m cldistill_plugins.miniature.build",
        "licence": "Apache-2.0",
        "art": {
            f"@iconify-json/{name}": {"version": number, "licence": art.SETS[name]}
            for name, number in art.art_versions(art.fetch_art(work)).items()
        },
        "photos": {
            "from": "scikit-image wheel",
            "licence": "public domain and CC0",
            "train": [*pictures.PHOTOS["train"], *pictures.TEXTURES["train"]],
            "held_out": [*pictures.PHOTOS["held-out"], *pictures.TEXTURES["held-out"]],
        },
        "photos_of_the_tasks": {
            "from": f"Debian's {photos.PACKAGE}, fetched for the build and not part of what ships",
            "resources": list(photos.RESOURCES),
            "count": len(list((work / "photos").glob("*.png"))),
        },
        "code_points": {
            "rule": "held out: first byte of SHA-256 of the subject's code point divisible by 5",
            "train": [code for code in codes if not art.is_held_out(code)],
            "held_out": [code for code in codes if art.is_held_out(code)],
        },
        "counts": {
            "vae_pictures": pool,
            "transformer_pictures": sources,
            "task_pictures": CHUNK * len(list((work / "tasks").glob("*.safetensors"))),
            "held_out_pictures": pictures.SHIPPED["held-out"],
        },
        "seeds": {"pictures": 0, "vae": 0, "text_encoder": 0, "transformer": 0, "tasks-first": 0, "tasks": 4},
        "training": _training(work),
        "text_encoder": "random, not trained; see build/text.py",
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _training(work: Path) -> dict[str, dict[str, float]]:
    """Steps and minutes of every stage that ran."""
    states = {
        stage: load_state(work / f"{stage}.pt")
        for stage in ("vae-joint", "vae-decoder", "base", "tasks-first", "tasks")
    }
    return {
        stage: {"steps": state["step"], "minutes": round(state["elapsed"] / 60, 1)}
        for stage, state in states.items()
        if state is not None
    }
