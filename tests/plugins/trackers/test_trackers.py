"""Trackers through accelerate: what TensorBoard is given can be read back, and others are started as they want to be."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
from PIL import Image

from cldistill.component import BuildContext
from cldistill.errors import OptionsError
from cldistill.hookspecs import RunHooks
from cldistill.markers import PROJECT
from cldistill.records import StepResult, UpdateResult
from cldistill_plugins.trackers import plugin


def result(step: int, loss: float = 0.5, skipped: bool = False) -> StepResult:
    student = UpdateResult("student", 0, "effect", ("a",), {"ta-fm": loss}, {"ta-fm/sigma": 0.25}, 2 * loss, skipped)
    critics = [UpdateResult("critic", n, "effect", ("a",), {"fake-score": float(n)}, {}, 1.0) for n in range(3)]
    return StepResult(step, (student, *critics), 1.5, 35, 1200.0)


def observe(root: Path, results: list[StepResult], start: int = 0, use: str = "tensorboard", **settings: Any) -> Any:
    """Drive the built component through the hooks, as the engine does, and return (run, pluggy manager)."""
    context = BuildContext(root, root / "cache", root / "out")
    component = next(each for each in plugin.register_observers() if each.name == use)
    observer = component.build(component.settings.model_validate(settings, context={"root": root}), context)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RunHooks)
    manager.register(observer)
    run = SimpleNamespace(name="demo", output=root / "out", total_steps=9)
    manager.hook.run_started(run=run, start_step=start)
    for each in results:
        manager.hook.step_finished(run=run, result=each)
    return run, manager


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 5)) for event in events(folder).Scalars(tag)]


@pytest.mark.slow
def test_numbers_and_grids_can_be_read_back(tmp_path: Path) -> None:
    grid = tmp_path / "out" / "samples" / "step-000002.png"
    grid.parent.mkdir(parents=True)
    Image.new("RGB", (32, 16), (255, 0, 0)).save(grid)
    run, manager = observe(tmp_path, [result(1), result(2, 0.25), result(3, math.nan, skipped=True)])
    manager.hook.checkpoint_saved(run=run, step=3, path=tmp_path)
    manager.hook.run_finished(run=run, step=3, stopped=False)
    folder = tmp_path / "out" / "tensorboard"
    assert points(folder, "loss/student/ta-fm") == [(1, 0.5), (2, 0.25)]
    assert points(folder, "loss/critic/fake-score") == [(1, 1.0), (2, 1.0), (3, 1.0)]  # the mean of 0, 1 and 2
    assert points(folder, "grad_norm/student") == [(1, 1.0), (2, 0.5)]
    assert points(folder, "metrics/student/ta-fm/sigma") == [(1, 0.25), (2, 0.25)]
    assert points(folder, "run/skipped_steps") == [(1, 0.0), (2, 0.0), (3, 1.0)]
    assert points(folder, "run/peak_memory_mb")[0] == (1, 1200.0)
    (picture,) = events(folder).Images("samples")
    assert (picture.step, picture.width, picture.height) == (2, 32, 16)


def test_a_resumed_run_hides_the_steps_that_it_does_again(tmp_path: Path) -> None:
    run, manager = observe(tmp_path, [result(step) for step in (1, 2, 3)])
    manager.hook.run_failed(run=run, error=KeyboardInterrupt())
    run, manager = observe(tmp_path, [result(2, 0.125)], start=1)
    manager.hook.run_finished(run=run, step=2, stopped=True)
    assert points(tmp_path / "out" / "tensorboard", "loss/student/ta-fm") == [(1, 0.5), (2, 0.125)]


def test_the_folder_is_relative_to_the_manifest(tmp_path: Path) -> None:
    run, manager = observe(tmp_path, [result(1)], folder="board", flush_secs=1)
    manager.hook.run_finished(run=run, step=1, stopped=False)
    assert list((tmp_path / "board").iterdir()) and not (tmp_path / "out" / "tensorboard").exists()


def test_a_missing_package_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    assert plugin.describe_tensorboard(plugin.TensorboardSettings()).packages == ("tensorboard",)
    with pytest.raises(OptionsError, match=r"pip install 'cldistill\[tensorboard\]'"):
        plugin.build_tensorboard(plugin.TensorboardSettings(), BuildContext(tmp_path, tmp_path, tmp_path))


def test_any_of_accelerates_trackers_is_started_with_its_project_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking

    monkeypatch.setattr(plugin, "find_spec", lambda name: True)
    said: list[Any] = []

    class Board(tracking.GeneralTracker):
        name, requires_logging_directory, main_process_only = "wandb", False, False
        tracker = None

        def __init__(self, run_name: str, **settings: Any) -> None:
            said.append((run_name, settings))

        def start(self) -> None:
            said.append("start")

        def log(self, values: dict[str, Any], step: int | None = None, **rest: Any) -> None:
            said.append((step, values["loss/student/ta-fm"], values["run/skipped_steps"]))

        def finish(self) -> None:
            said.append("finish")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Board)
    run, manager = observe(
        tmp_path, [result(1), result(2, 0.25)], use="tracker", name="wandb", settings={"entity": "us"}
    )
    manager.hook.run_finished(run=run, step=2, stopped=False)
    assert said == [("demo", {"entity": "us"}), "start", (1, 0.5, 0), (2, 0.25, 0), "finish"]


def test_tensorboard_by_its_name_as_a_tracker(tmp_path: Path) -> None:
    run, manager = observe(tmp_path, [result(1)], use="tracker", name="tensorboard")
    manager.hook.run_finished(run=run, step=1, stopped=False)
    assert points(tmp_path / "out" / "tensorboard", "loss/student/ta-fm") == [(1, 0.5)]


def test_a_tracker_that_does_not_start_says_which_and_why(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"tensorboard does not start: TypeError: .*no_such_option"):
        observe(tmp_path, [], use="tracker", name="tensorboard", settings={"no_such_option": 1})


@pytest.mark.parametrize("name", ["api_key", "TOKEN", "password", "my_secret"])
def test_a_secret_does_not_belong_into_a_manifest(name: str) -> None:
    with pytest.raises(ValueError, match="would stand in the manifest") as error:
        plugin.TrackerSettings.model_validate({"name": "wandb", "settings": {name: "swordfish"}})
    assert "environment variable" in str(error.value)


def test_a_missing_tracker_is_a_clear_error(tmp_path: Path) -> None:
    settings = plugin.TrackerSettings(name="clearml")
    assert plugin.describe_tracker(settings).packages == ("clearml",)
    with pytest.raises(OptionsError, match="needs the package clearml, which is not installed: pip install clearml"):
        plugin.build_tracker(settings, BuildContext(tmp_path, tmp_path, tmp_path))


def test_the_plugin_imports_neither_torch_nor_tensorboard() -> None:
    code = (
        "import sys; from cldistill_plugins.trackers import plugin; plugin.register_observers(); "
        "plugin.describe_tensorboard(plugin.TensorboardSettings()); sys.exit(bool({'torch', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
