"""Training on all tasks: batches of every shape, and a training that is stopped and goes on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cldistill_plugins.miniature.build import task_latents
from cldistill_plugins.miniature.build.assemble import build_transformer
from cldistill_plugins.miniature.build.base import load_base
from cldistill_plugins.miniature.build.clock import Clock, load_state, save_state
from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.shapes import SHAPES, eye_size, shape_of, token_grid
from cldistill_plugins.miniature.build.task_training import TaskPlan, draw_items, phases, train_tasks
from cldistill_plugins.miniature.build.tasks import TASKS_A_PICTURE, Edit, Task, choose_tasks
from cldistill_plugins.miniature.instructions import INSTRUCTIONS

PIPELINE = Path(task_latents.__file__).parents[1] / "pipeline"


def _chunk(width: int, height: int, pictures: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(width)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).half()

    latent, prompts = (16, height // 8, width // 8), TASKS_A_PICTURE + 2
    return {
        "source": noise(pictures, *latent),
        "target": noise(pictures, TASKS_A_PICTURE, *latent),
        "text": noise(pictures, prompts, task_latents.TOKENS, 64),
        "length": torch.randint(10, 20, (pictures, prompts), generator=generator),
        "task": torch.randint(0, 600, (pictures, TASKS_A_PICTURE), generator=generator),
    }


def _work(folder: Path) -> Path:
    (folder / "tasks").mkdir(parents=True)
    for index, (width, height) in enumerate(((128, 128), (160, 96))):
        save_file(_chunk(width, height), folder / "tasks" / f"{index:03d}-{width}x{height}.safetensors")
    return folder


def _start(path: Path) -> Path:
    save_state({"averaged": build_transformer(seed=3).state_dict()}, path)
    return path


def test_nearly_every_aspect_has_one_of_the_shapes() -> None:
    aspects = np.exp(np.linspace(0, np.log(2.5), 200))
    found = [shape_of(round(1000 * aspect), 1000) for aspect in aspects]
    assert set(found) == {shape for shape in SHAPES if shape[0] >= shape[1]} | {(160, 128)}
    assert found.count((160, 128)) / len(found) < 0.05
    assert {shape_of(1000, round(1000 * aspect)) for aspect in (1, 1.5, 2)} == {(128, 128), (96, 160), (96, 192)}
    assert sum(SHAPES.values()) == pytest.approx(1)
    assert token_grid(160, 96) == (1, 6, 10)
    assert eye_size(160, 96) == (64, 32)


def test_chunks_keep_the_shares_of_the_shapes_at_every_length() -> None:
    shapes = task_latents.chunk_shapes(100)
    assert shapes[:30] == task_latents.chunk_shapes(30)
    assert {shape: shapes.count(shape) / 100 for shape in SHAPES} == pytest.approx(dict(SHAPES), abs=0.011)


def test_a_quarter_turn_is_for_squares() -> None:
    names = [*EDITS, *(f"style {number}" for number in range(30)), *(f"filter {number}" for number in range(20))]
    turn = EDITS.index("rotate")
    drawn = [choose_tasks(names, 30, np.random.default_rng(seed), square=False) for seed in range(60)]
    assert all(turn not in tasks and len(set(tasks)) == TASKS_A_PICTURE for tasks in drawn)
    assert any(turn in choose_tasks(names, 30, np.random.default_rng(seed), square=True) for seed in range(60))


def test_a_batch_has_one_shape_and_items_without_a_task_are_their_own_target() -> None:
    data = {(128, 128): _chunk(128, 128), (96, 160): _chunk(96, 160)}
    generator = torch.Generator().manual_seed(0)
    batches = [draw_items(data, 40, generator) for _ in range(12)]
    assert {batch.shape for batch in batches} == set(data)
    for batch in batches:
        assert batch.target.shape[1] == token_grid(*batch.shape)[1] * token_grid(*batch.shape)[2]
        unchanged = (batch.target == batch.source).flatten(1).all(1)
        assert torch.equal(unchanged, batch.task < 0)
        assert batch.mask.any(0).all()


class _Shipped:
    """Tasks that need no package: the general edits under many names."""

    @staticmethod
    def tasks() -> Mapping[str, Task]:
        edits: dict[str, Task] = {name: Edit(INSTRUCTIONS[name]) for name in EDITS}
        return edits | {f"{number}": Edit(INSTRUCTIONS["grey"]) for number in range(task_latents.STYLES + 10)}


@pytest.mark.slow
def test_a_chunk_holds_what_the_vae_and_the_text_side_say() -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (96, 160, 3), dtype=np.uint8) for seed in range(2)]
    encoding = task_latents.open_encoding(PIPELINE)
    chunk = task_latents.make_chunk(encoding, _Shipped.tasks(), pictures, 0)
    assert chunk["source"].shape == (2, 16, 12, 20)
    assert chunk["target"].shape == (2, TASKS_A_PICTURE, 16, 12, 20)
    assert chunk["text"].shape == (2, TASKS_A_PICTURE + 2, task_latents.TOKENS, 64)
    assert int(chunk["length"].max()) <= task_latents.TOKENS
    assert chunk["text"].dtype == chunk["source"].dtype == torch.float16
    assert not chunk["text"][0, 0, int(chunk["length"][0, 0]) :].any()


@pytest.mark.slow
def test_training_stops_goes_on_and_leaves_its_average(tmp_path: Path) -> None:
    work, start = _work(tmp_path / "work"), _start(tmp_path / "start.pt")
    path = train_tasks(TaskPlan("tasks", 0.001, batch=2), work, start)
    first = load_state(path)
    assert first is not None
    train_tasks(TaskPlan("tasks", (first["elapsed"] + 1) / 60, batch=2), work, start)
    second = load_state(path)
    assert second is not None and second["step"] > first["step"]
    averaged = load_file(path.with_suffix(".safetensors"))
    assert all(value.dtype == torch.float16 for value in averaged.values())
    torch.testing.assert_close(averaged["proj_out.weight"], second["averaged"]["proj_out.weight"].half())
    torch.testing.assert_close(load_base(path).proj_out.weight, second["averaged"]["proj_out.weight"])
    assert not list(work.glob("*.part"))


@pytest.mark.slow
def test_each_phase_begins_with_the_averaged_weights_before_it(tmp_path: Path) -> None:
    work, start = _work(tmp_path / "work"), _start(tmp_path / "start.pt")
    for plan in phases([0.001, 0.001]):
        still = replace(plan, batch=2, lr=0.0, adam_lr=0.0)  # learns nothing: it ends as it began
        start = train_tasks(still, work, start)
    torch.testing.assert_close(load_base(work / "tasks.pt").img_in.weight, build_transformer(seed=3).img_in.weight)
    assert start == work / "tasks.pt" and (work / "tasks-first.pt").is_file()


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run `--stage task-latents` first"):
        task_latents.load_task_chunks(tmp_path)
    with pytest.raises(ValueError, match="run `--stage tasks` first"):
        load_base(tmp_path / "tasks.pt")


def test_the_rate_stays_up_until_its_last_part() -> None:
    assert Clock(10, decay=0.3, elapsed=400, step=1000).factor == pytest.approx(1.0)
    assert Clock(10, decay=0.3, elapsed=510, step=1000).factor == pytest.approx(0.5)
    assert Clock(10, decay=0.3, elapsed=700, step=1000).factor == pytest.approx(0.0)
