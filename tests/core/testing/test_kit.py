"""The kit for plugin authors: its own parts pass its checks, and a run goes end to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from cldistill import testing
from cldistill.component import AnyComponent, Needs, Settings, metric, observer
from cldistill.hookspecs import RunHooks
from cldistill.markers import hookimpl
from cldistill.plugins import register
from cldistill.protocols import BaseModel, MetricRequest
from cldistill.records import MetricValues, StepResult
from cldistill.testing import TinyBase, TinyBaseSettings, tiny_plugin
from cldistill.training.run import Run

torch.set_num_threads(1)
PARTS = {component.name: component for component in register(tiny_plugin).components}


class Nothing(Settings):
    """No options."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"layout": "image", "seed": 3, "guidance_scale": 2.0}])
def test_the_tiny_base_conforms(options: Mapping[str, object]) -> None:
    testing.check_base_model(PARTS["tiny-base"], options, size=(20, 28))


@pytest.mark.slow
def test_the_other_tiny_parts_conform() -> None:
    """Those of the built-in plugins are checked by ``tests/plugins/test_all_conform.py``."""
    testing.check_loss_term(PARTS["tiny-flow"])
    testing.check_stream_router(PARTS["tiny-router"])
    testing.check_prompt_isolator(PARTS["tiny-prompts"])
    testing.check_teacher_source(PARTS["tiny-teacher"])


def brightness(request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
    def mean(shown: object) -> float:
        return float(torch.tensor(list(shown.convert("L").tobytes())).float().mean())  # type: ignore[attr-defined]

    return {
        system: {pool: MetricValues({"brightness": [mean(shown) for shown in made]}) for pool, made in pools.items()}
        for system, pools in request.outputs.items()
    }


def test_a_metric_and_an_observer_conform() -> None:
    class Watcher:
        @hookimpl
        def step_finished(self, run: Run, result: StepResult) -> None:
            assert result.step > 0

    nothing: AnyComponent = metric("brightness", "mean", Nothing, lambda s: Needs(), lambda s, c: brightness)
    testing.check_metric(nothing, fresh=False)
    testing.check_observer(observer("w", "watches", Nothing, lambda s: Needs(), lambda s, c: Watcher()), fresh=False)
    assert {"run_started", "run_finished", "run_failed"} <= set(vars(RunHooks))


def test_the_tiny_base_is_a_base_model_whose_vae_is_exact() -> None:
    base: BaseModel = TinyBase(TinyBaseSettings(resolution=24))
    shown = testing.picture(5)
    source = base.collate([base.encode_source([shown])])
    (decoded,) = base.decode(base.encode_target(shown, [shown]).unsqueeze(0), source)
    assert decoded.tobytes() == shown.tobytes()
    assert base.encode_target(shown, [testing.picture(0, (48, 24))]).shape[0] != 36


def test_a_context_counts_the_calls_of_its_term() -> None:
    context = testing.update_context(seed=3)
    rollout = context.rollout()
    context.student(rollout.x, rollout.sigma)
    with torch.no_grad():
        context.slot("critic", rollout.x, rollout.sigma)
    context.teacher(rollout.x, rollout.sigma)
    assert [call.slot for call in context.calls if call.origin == "term"] == ["student", "critic", "teacher"]
    assert sum(call.origin == "rollout" for call in context.calls) == rollout.k == len(context.calls) - 3
    assert [call.graded for call in context.calls if call.origin == "term"] == [True, False, False]


@pytest.mark.slow
def test_a_run_trains_and_exports_what_the_collection_api_loads(tmp_path: Path) -> None:
    from cldistill.adapters.header import read_header

    done = testing.run_manifest(tmp_path, steps=12)
    losses = done.losses("tiny-flow")
    assert done.steps == 12 and len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])
    assert done.collection is not None and len(read_header(done.collection).modules) == len(TinyBase().adapter_targets)


@pytest.mark.slow
def test_an_uninstalled_plugin_is_found_as_installed_ones_are(tmp_path: Path) -> None:
    (tmp_path / "a_package_of_a_test.py").write_text(
        "from cldistill.component import Needs, Settings, loss_term\n"
        "from cldistill.markers import hookimpl\n"
        "@hookimpl\n"
        "def register_loss_terms():\n"
        "    return [loss_term('from-a-test', 'nothing', Settings, lambda s: Needs(), lambda s, c: None)]\n"
    )
    script = (
        "from cldistill.catalogue import load_catalogue as c; print(*c().names('loss_term'), *c().names('base_model'))"
    )
    with testing.plugin_environment({"of-a-test": "a_package_of_a_test"}, [tmp_path]) as environment:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
    assert {"from-a-test", "tiny-base", "tiny-flow"} <= set(done.stdout.split())
    assert str(tmp_path) not in sys.path


def test_every_public_name_is_there() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__module__.startswith("cldistill.testing.")
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = testing.no_such_thing
