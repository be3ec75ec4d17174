"""The training data of the stage `tasks`, computed once: latents of pictures in five shapes, and of what tasks make of them.

Chunks of 20 pictures of one shape, `work/tasks/000-128x128.safetensors`…, K = 18 tasks a picture, L = 48 tokens: `source`
(20, 16, h, w) and `target` (20, K, 16, h, w), normalised as the VAE's config says; `text` (20, K + 2, L, 64) and `length`
(20, K + 2) for the tasks, then `same`, then the empty prompt; `task` (20, K), the numbers of the tasks.
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from cldistill_plugins.miniature.build.art import load_sprites
from cldistill_plugins.miniature.build.image_vae import ImageVAE, load_stock
from cldistill_plugins.miniature.build.latents import Writer, open_writer
from cldistill_plugins.miniature.build.photos import load_photos
from cldistill_plugins.miniature.build.pictures import Picture, open_studio
from cldistill_plugins.miniature.build.scenes import Scenes
from cldistill_plugins.miniature.build.shapes import SHAPES, eye_size
from cldistill_plugins.miniature.build.styles import COUNT as STYLES
from cldistill_plugins.miniature.build.tasks import Task, choose_tasks, load_tasks
from cldistill_plugins.miniature.build.vae import to_tensor
from cldistill_plugins.miniature.instructions import INSTRUCTIONS

CHUNK = 20
TOKENS = 48


def chunk_shapes(count: int) -> list[tuple[int, int]]:
    """The shape of each of `count` chunks: shares as in `SHAPES`, well mixed, the same for every count."""
    given = dict.fromkeys(SHAPES, 0)
    shapes = []
    for index in range(count):
        shape = max(SHAPES, key=lambda known: SHAPES[known] * (index + 1) - given[known])
        given[shape] += 1
        shapes.append(shape)
    return shapes


@dataclass(frozen=True, slots=True)
class Encoding:
    """The frozen parts: the VAE with the statistics of its latents (1, 16, 1, 1), and the text side."""

    vae: ImageVAE
    mean: Tensor
    std: Tensor
    writer: Writer

    @torch.no_grad()
    def latents(self, pictures: list[Picture]) -> Tensor:
        """Normalised latents (B, 16, h, w), in half precision."""
        return ((self.vae.encode(to_tensor(np.stack(pictures))) - self.mean) / self.std).half().contiguous()

    @torch.no_grad()
    def texts(self, prompts: list[str], picture: Picture) -> tuple[Tensor, Tensor]:
        """Embeddings (B, 48, 64) of prompts about one picture, zero behind the end, and their lengths (B,)."""
        height, width = picture.shape[:2]
        eye_width, eye_height = eye_size(width, height)
        image = VaeImageProcessor(vae_scale_factor=16).resize(Image.fromarray(picture), eye_height, eye_width)
        states, lengths = self.writer.states(prompts, [image] * len(prompts))
        room = states.new_zeros(len(prompts), TOKENS, states.shape[-1])
        room[:, : states.shape[1]] = states
        return room.half(), lengths


def open_encoding(pipeline: Path) -> Encoding:
    """VAE and text side as they lie in a pipeline folder and as the build makes them."""
    stock = AutoencoderKLQwenImage.from_pretrained(pipeline / "vae", torch_dtype=torch.float32)
    vae = ImageVAE().eval().requires_grad_(False)
    load_stock(vae, stock.state_dict())
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1) for values in (stock.config.latents_mean, stock.config.latents_std)
    )
    return Encoding(vae, mean, std, open_writer())


def write_task_chunks(work: Path, pipeline: Path, count: int) -> None:
    """Write all chunks of `count` pictures that are missing."""
    folder = work / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    encoding, tasks = open_encoding(pipeline), load_tasks(work)
    scenes = Scenes(open_studio(load_sprites(work), "train"), load_photos(work))
    for index, (width, height) in enumerate(chunk_shapes(count // CHUNK)):
        path = folder / f"{index:03d}-{width}x{height}.safetensors"
        if path.is_file():
            continue
        pictures = [scenes.scene(index * CHUNK + place, width, height) for place in range(CHUNK)]
        aside = path.with_suffix(".part")
        save_file(make_chunk(encoding, tasks, pictures, index * CHUNK), aside)
        aside.replace(path)
        print(f"task latents: chunk {index + 1} of {count // CHUNK}, {width}x{height}", flush=True)


def make_chunk(encoding: Encoding, tasks: Mapping[str, Task], pictures: list[Picture], first: int) -> dict[str, Tensor]:
    """Every tensor of one chunk; `first` is the number of its first picture."""
    names = list(tasks)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        rng = np.random.default_rng([31, first + place, zlib.crc32(picture.tobytes())])
        chosen = choose_tasks(names, STYLES, rng, picture.shape[0] == picture.shape[1])
        wanted = [tasks[names[number]] for number in chosen]
        wordings = [*(task.wordings for task in wanted), INSTRUCTIONS["same"].wordings]
        prompts = [str(rng.choice(choices)) for choices in wordings]
        text, length = encoding.texts([*prompts, ""], picture)
        parts["source"].append(encoding.latents([picture])[0])
        parts["target"].append(encoding.latents([task.apply(picture, rng) for task in wanted]))
        parts["text"].append(text)
        parts["length"].append(length)
        parts["task"].append(torch.tensor(chosen))
    return {name: torch.stack(values) for name, values in parts.items()}


def load_task_chunks(work: Path) -> dict[tuple[int, int], dict[str, Tensor]]:
    """(width, height) → the tensors of all its chunks, joined.

    Raises:
        ValueError: there is none yet.
    """
    found: dict[tuple[int, int], list[dict[str, Tensor]]] = defaultdict(list)
    for path in sorted((work / "tasks").glob("*.safetensors")):
        width, height = (int(side) for side in path.stem.split("-")[1].split("x"))
        found[width, height].append(load_file(path))
    if not found:
        raise ValueError(f"no latents in {work / 'tasks'}: run `--stage task-latents` first")
    return {
        shape: {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        for shape, chunks in found.items()
    }
