"""EffectBench's driver: the plan hangs together, steps run once and in order, and the smallest one runs whole."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cldistill.collection import Collection

HERE = Path(__file__).parents[2] / "examples" / "effectbench"


@pytest.fixture(scope="module", autouse=True)
def beside() -> object:
    """The example's modules import one another by plain names, as scripts do."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("size", ["smoke", "ten", "laptop", "full", "gpu"])
def test_every_step_comes_after_what_it_needs(size: str) -> None:
    steps = module("steps")
    seen: set[str] = set()
    for step in steps.all_steps(steps.SIZES[size]):
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)
    assert {"table1", "table3", "table5", "steps"} <= seen


def test_a_second_half_is_taught_by_the_half_that_it_begins_as_or_by_the_effects_own_loras() -> None:
    steps = module("steps")
    commands = {step.name: " ".join(step.command) for step in steps.all_steps(steps.LAPTOP)}
    for name, half in (
        ("ours", "coarse"),
        ("ours-seed-1", "seed-1-coarse"),
        ("no-pdsr", "coarse-no-pdsr"),
        ("lever-mixed-0", "coarse-10"),
    ):
        begun = f"runs/effectbench-{half}/collection"
        assert f"slots.student.init={begun}" in commands[f"train-{name}"]
        assert f"teacher.options.path={begun}" in commands[f"train-{name}"]
    assert "teacher.options.path" not in commands["train-own"] and "teacher.options.steps=400" in commands["train-own"]


@pytest.mark.slow
def test_a_failure_stops_only_what_needs_it_and_nothing_runs_twice(tmp_path: Path) -> None:
    steps, run = module("steps"), module("run")
    python = sys.executable
    plan = [
        steps.Step("first", (python, "-c", "open('first', 'a').write('x')")),
        steps.Step("broken", (python, "-c", "raise SystemExit(3)")),
        steps.Step("after-broken", (python, "-c", "open('never', 'w')"), ("broken",)),
        steps.Step("last", (python, "-c", "open('last', 'w').write(open('first').read())"), ("first",)),
    ]
    assert run.run_all(tmp_path, plan, 2) == 1
    assert (tmp_path / "last").read_text() == "x"
    assert not (tmp_path / "never").exists()
    assert run.run_all(tmp_path, [plan[0], plan[3]], 2) == 0
    assert (tmp_path / "first").read_text() == "x"
    marker = json.loads((tmp_path / "done" / "first.json").read_text())
    assert marker["command"].startswith("python -c")


@pytest.mark.slow
def test_when_the_time_is_up_the_steps_save_and_the_same_command_goes_on(tmp_path: Path) -> None:
    steps, run = module("steps"), module("run")
    saves = """
import os, signal, time

def save(*_):
    open("saved", "w").close()
    os._exit(3)

signal.signal(signal.SIGTERM, save)
if not os.path.exists("saved"):
    time.sleep(60)
"""
    plan = [
        steps.Step("quick", (sys.executable, "-c", "")),
        steps.Step("long", (sys.executable, "-c", saves)),
        steps.Step("after", (sys.executable, "-c", ""), ("long",)),
    ]
    assert run.run_all(tmp_path, plan, 2, minutes=1 / 20) == 3
    assert (tmp_path / "saved").exists()
    assert [run.is_done(tmp_path, step) for step in plan] == [True, False, False]
    assert run.run_all(tmp_path, plan, 2) == 0


def report(**systems: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "effects": [{"name": "a", "stochastic": True, "prompt": "draw it"}],
        "values": {name: {"a": metrics} for name, metrics in systems.items()},
    }


def test_claims_are_judged_by_their_whole_interval() -> None:
    claims = module("claims")
    noise = np.random.default_rng(0).normal(0, 0.01, 12)
    teacher = {"truth_distance": [0.5] * 12, "bad_case": [0.0, 1.0] * 6, "hf_distance": [0.3] * 12, "vsa": [4.0] * 12}
    ours = {
        "truth_distance": list(0.4 + noise),
        "bad_case": [1.0, 1.0] * 6,
        "hf_distance": [0.1] * 12,
        "vsa": [4.5] * 12,
    }
    fm = {"truth_distance": [0.6] * 12, "bad_case": [1.0, 1.0] * 6, "hf_distance": [0.2] * 12}
    found = claims.of_table1(report(teacher=teacher, ours=ours, **{"fm-lightning": fm}))
    no_worse, lightning, flow = found[:4], found[4:6], found[6:]
    assert [claim.verdict for claim in no_worse] == ["holds", "does not hold", "holds", "not measured"]
    assert [claim.verdict for claim in lightning] == ["not measured", "not measured"], "no such system in the report"
    assert [claim.verdict for claim in flow] == ["open", "holds"]
    assert found[0].interval.mean == pytest.approx(-0.1 + noise.mean())


def test_two_seeds_of_a_system_are_averaged_and_others_are_not() -> None:
    claims = module("claims")
    found = report(ours={"vsa": [1.0, 2.0]}, **{"ours-seed-1": {"vsa": [3.0, 3.0]}, "ours-4": {"vsa": [9.0, 9.0]}})
    assert claims.seeds(found, "ours", "vsa").tolist() == [[2.0], [2.5]]
    with pytest.raises(KeyError):
        claims.seeds(found, "teacher", "vsa")


def committed(**systems: float) -> dict[str, Any]:
    """A committed result of two effects: one figure a system, one more on the second effect."""
    means = {name: {e: {"bad_case": value + i} for i, e in enumerate("ab")} for name, value in systems.items()}
    rows = {name: {"bad_case": {"mean": value}} for name, value in systems.items()}
    return {
        "pictures": ["p"], "effects": ["a", "b"], "seed": 1, "command": " ".join(systems),
        "systems": [{"name": name} for name in systems],
        "summary": rows, "per_effect_means": means,
    }  # fmt: skip


def test_rows_that_were_measured_earlier_stay_and_are_compared_effect_by_effect() -> None:
    claims, render = module("claims"), module("render")
    merged = render.with_earlier(committed(ours=0.2, coarse=0.4), committed(teacher=0.3, ours=0.9))
    assert [system["name"] for system in merged["systems"]] == ["teacher", "ours", "coarse"]
    assert merged["summary"]["ours"]["bad_case"]["mean"] == 0.2, "what was measured again replaces the earlier row"
    assert {name: source["command"] for name, source in merged["earlier"].items()} == {"teacher": "teacher ours"}
    later = render.with_earlier(committed(ours=0.1), merged)
    assert {name: source["command"] for name, source in later["earlier"].items()} == {
        "teacher": "teacher ours", "coarse": "ours coarse",
    }, "a row's own evaluation, however often it was taken over"  # fmt: skip
    with pytest.raises(KeyError):
        claims.values(merged, "ours", "bad_case", [])
    bad = claims.of_table1(merged)[1]
    assert (bad.verdict, bad.interval.mean, bad.interval.n) == ("holds", pytest.approx(-0.1), 2)


def test_rows_of_other_pictures_are_not_taken_over() -> None:
    render = module("render")
    assert render.with_earlier(committed(ours=0.2), committed(teacher=0.3) | {"pictures": ["q"]}) is None
    assert render.with_earlier(committed(ours=0.2), committed(ours=0.9)) is None
    assert render.with_earlier(committed(ours=0.2), {}) is None


def test_four_steps_are_held_against_base_at_forty() -> None:
    claims = module("claims")
    found = claims.of_steps(
        report(**{"ours-4": {"truth_distance": [0.2] * 12}, "teacher": {"truth_distance": [0.3] * 12}})
    )
    assert [(claim.verdict, claim.interval and claim.interval.mean) for claim in found] == [
        ("holds", pytest.approx(-0.1)), ("not measured", None),
    ]  # fmt: skip


def test_what_a_report_lacks_is_not_measured_and_the_loss_of_old_effects_is_a_share() -> None:
    claims = module("claims")
    assert {claim.verdict for claim in claims.of_table3(report(ours={"bad_case": [0.0]}))} == {"not measured"}
    before = {"truth_closeness": [0.8, 0.4], "truth_distance": [0.2, 0.4], "bad_case": [0.0, 1.0]}
    after = {"truth_closeness": [0.6, 0.3], "truth_distance": [0.202, 0.404], "bad_case": [0.0, 1.0]}
    own, grown = {"truth_closeness": [0.5, 0.4], "truth_distance": [0.3, 0.3]}, report(old=before, new=after)
    grown["effects"] = [*grown["effects"], {"name": "gild"}]
    grown["values"]["new"]["gild"] = {"truth_closeness": [0.5, 0.4], "truth_distance": [0.33, 0.33]}
    grown["values"]["teacher-lightning"] = {"gild": own}
    further, lost, bad, close, near = claims.of_table5(grown, "old", "new")
    assert (further.interval.mean, further.verdict) == (pytest.approx(0.01), "holds")
    assert (lost.interval.mean, lost.verdict) == (pytest.approx(0.25), "does not hold")
    assert (bad.interval.mean, bad.verdict) == (0.0, "holds")
    assert (close.interval.mean, close.verdict) == (pytest.approx(1.0), "holds")
    assert (near.interval.mean, near.verdict) == (pytest.approx(1.1), "does not hold")


def test_what_aop_does_is_also_told_of_colliding_prompts_and_of_effects_that_base_learned() -> None:
    claims = module("claims")
    names = ("ink", "gold", "fog")
    prompts = ("apply the style", "apply the style", "make it foggy")
    effects = [{"name": name, "prompt": prompt} for name, prompt in zip(names, prompts, strict=True)]

    def rows(**bad: list[list[float]]) -> dict[str, object]:
        pools = {
            system: {name: {"bad_case": row} for name, row in zip(names, found, strict=True)}
            for system, found in bad.items()
        }
        return {"effects": effects, "values": pools}

    table3 = rows(pdsr=[[1, 1], [1, 1], [1, 1]], aop=[[1, 0], [0, 0], [1, 1]])
    table1 = rows(teacher=[[0, 0], [1, 1], [1, 1]])
    assert claims.colliding(table3) == ["ink", "gold"]
    assert claims.learned(table1) == ["ink"]
    found = {claim.text: claim.interval for claim in claims.of_table3(table3, table1) if "the same" in claim.text}
    assert [interval.mean for interval in found.values()] == [4.0, 2.0]


def test_the_overview_deals_out_square_pictures_ten_effects_a_band(tmp_path: Path) -> None:
    overview, names = module("overview"), [f"e{number}" for number in range(12)]
    colours = {"source": (250, 250, 0), "teacher": (250, 0, 0), "ours": (0, 0, 250)}

    def save(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(file, lossless=True)

    for picture, size in {"long": (48, 32), "one": (32, 32), "two": (32, 32)}.items():
        save(tmp_path / "pictures" / "source" / f"{picture}.webp", colours["source"], size)
    for number, name in enumerate(names):
        for system in ("teacher", "ours"):
            save(tmp_path / "pictures" / system / name / f"{('one', 'two')[number % 2]}.webp", colours[system])
    report = {
        "pictures": ["long", "one", "two"], "effects": [{"name": name} for name in names],
        "systems": [{"name": "teacher", "evaluations": 40}, {"name": "ours", "evaluations": 8}],
    }  # fmt: skip
    assert overview.draw_overview(tmp_path, report, tmp_path / "sheet.webp") is not None
    sheet = np.asarray(Image.open(tmp_path / "sheet.webp").convert("RGB")).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 60)
    blue = (sheet[..., 2] > 200) & (sheet[..., 1] < 60)
    cell = overview.CELL**2
    assert (red.sum() / cell, blue.sum() / cell) == (pytest.approx(12, abs=0.5), pytest.approx(12, abs=0.5))
    half = len(sheet) // 2
    assert red[:half].sum() > 4 * red[half:].sum(), "ten effects in the first band, two in the second"
    assert overview.draw_overview(tmp_path / "elsewhere", report, tmp_path / "none.webp") is None


@pytest.mark.slow(100)
def test_the_whole_chain_runs_on_three_effects(
    tmp_path: Path, interpreter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bank, teachers, students, ablations, evaluations, growth, deployment, figures, page: minutes on a laptop's core."""
    started: dict[str, Any] = {}

    def start(work: Path, step: Any, jobs: int, device: str | None) -> Any:
        started[step.name] = interpreter.start(*step.command[1:], folder=work)
        return started[step.name]

    run = module("run")
    monkeypatch.setattr(run, "_start", start)
    monkeypatch.setattr(run, "POLL_SECONDS", 0.05)
    code = run.main([str(tmp_path / "work"), "--size", "smoke", "--jobs", "2"])
    ended = {name: one.wait() for name, one in started.items()}
    assert code == 0, "\n".join(f"== {name}\n{one.stderr[-1500:]}" for name, one in ended.items() if one.returncode)
    done = interpreter.run(HERE / "render.py", tmp_path / "work", "--into", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page/README.md").read_text()
    assert "All-in-1 FM + Lightning" in text
    assert "<!--" not in text
    claims = json.loads((tmp_path / "page/results/claims.json").read_text())["claims"]
    assert len(claims) == 16
    grown = json.loads((tmp_path / "page/results/claims-table5.json").read_text())["claims"]
    assert len(grown) == 5 and all(claim["verdict"] != "not measured" for claim in grown)
    assert (tmp_path / "page/figures/table1.webp").stat().st_size > 0
    unmeasured = [claim["text"] for claim in claims if claim["verdict"] == "not measured"]
    # The two pictures are of different shapes; and of the first three admitted effects all prompts differ.
    assert unmeasured == [
        "Ours at 8 is no worse than Base on subject consistency", "— the same, effects whose prompt another one has, too",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_collection_of_fifty_that_lies_there_edits_a_picture() -> None:
    """Its base is the miniature that ships, and the effect that makes a picture grey makes it grey."""
    collection = Collection.load(HERE / "fifty")
    assert len(collection.index.effects) == 50
    source = files("cldistill_plugins.miniature") / "pictures" / "held-out" / "000.png"

    def colour(picture: Image.Image) -> float:
        return float(np.ptp(np.asarray(picture.convert("RGB"), dtype=np.float64), axis=2).mean())

    made = collection.generate(str(source), "willow-filter", seed=0)
    assert colour(made) < colour(Image.open(str(source))) / 4
