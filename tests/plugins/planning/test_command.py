"""`cldistill plan` on shipped and printed manifests: a verdict first, no data needed, nothing cut."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import OptionsError
from cldistill.manifest.check import check_manifest
from cldistill_plugins.planning.devices import CARDS, known_card, memory_size, with_speed
from cldistill_plugins.planning.fit import Device
from cldistill_plugins.planning.hours import hours, operations, stages, told

ROOT = Path(__file__).parents[3]
PAGES = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("manifest", "measuring"))


def plan(*words: str) -> str:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands are typed in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["one-effect", "quickstart", "collectionlora-50", "quickstart-long"])
def test_a_recipe_is_planned_without_any_data(recipe: str) -> None:
    assert plan(recipe, "--device", "h200").startswith(f"Fits: {recipe} needs about ")


def test_every_manifest_of_the_pages_is_planned(empty: Path) -> None:
    names = re.findall(r"extends: (\S+\.yaml)", PAGES)
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", PAGES, flags=re.DOTALL)):
        file = empty / (f"part-{number}.yaml" if number or not names else names[0])
        file.write_text(text)
        told = json.loads(plan(file.name, "--device", "h200", "--json"))
        assert told["verdict"]["fits"] is True
        assert told["peak_bytes"] < 95e9
        assert told["verdict"]["missing"]


def test_what_is_missing_is_a_note_with_its_line() -> None:
    text = " ".join(plan("one-effect", "--device", "h200").split())
    assert "Missing before it can run (4" in text
    pairs, general, samples, evaluate = json.loads(plan("one-effect", "--device", "h200", "--json"))["verdict"][
        "missing"
    ]
    assert re.fullmatch(
        r"one-effect \(recipe\):\d+: effects\.0\.pairs: \S+data/my-effect: no such folder or file", pairs
    )
    assert re.match(r"one-effect \(recipe\):\d+: general\.images: no such file or folder", general)
    assert "samples.images" in samples
    assert "evaluate.images" in evaluate
    assert "without the targets, which the pairs decide" in text


@pytest.mark.slow
def test_the_verdict_says_what_would_make_it_fit() -> None:
    text = plan("one-effect", "--set", "train.gradient_checkpointing=false", "--device", "h100-80gb")
    first = " ".join(text.split())
    assert first.startswith("Does not fit: one-effect needs about 164.7 GB a device, and NVIDIA H100 80 GB has 85.5 GB")
    assert "\n  --set train.gradient_checkpointing=true  ->  66.2 GB\n" in text
    assert "No setting makes it fit" in plan("one-effect", "--device", "rtx-4080")
    assert "Its largest parts: frozen backbone, 40.9 GB, text encoder and VAE, 16.8 GB" in " ".join(
        plan("one-effect", "--memory", "16GB").split()
    )


def test_nothing_is_cut() -> None:
    text = plan("quickstart")
    assert "…" not in text
    assert "package:cldistill_plugins.miniature/pipeline" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_cards_and_sizes() -> None:
    assert known_card("H100 80GB").bytes == 81559 * 2**20
    assert all(4e9 < mebibytes * 2**20 < 250e9 and 50 < speed < 3000 for _, mebibytes, speed in CARDS.values())
    with pytest.raises(OptionsError, match="which of h100-80gb, h100-nvl"):
        known_card("h100")
    assert (memory_size("24GB"), memory_size("24 gib"), memory_size("79.5")) == (24e9, 24 * 2**30, 79.5e9)
    with pytest.raises(OptionsError, match="write a size such as 24GB"):
        memory_size("much")


@pytest.mark.parametrize(
    ("name", "mebibytes", "speed"),
    [("NVIDIA H200", 143771, 989), ("NVIDIA H100 80GB HBM3", 81559, 989), ("NVIDIA GeForce RTX 4090", 24564, 165),
     ("NVIDIA A100-SXM4-80GB", 81920, 312), ("NVIDIA A100-SXM4-40GB", 40960, 312), ("Quadro P400", 2048, None)],
)  # fmt: skip
def test_a_card_that_is_seen_gets_the_speed_of_its_kind(name: str, mebibytes: int, speed: float | None) -> None:
    assert with_speed(Device(name, mebibytes * 2**20)).tflops == speed


def test_hours_are_calculated_from_the_calls_and_the_cards_speed() -> None:
    checked = check_manifest("one-effect", files=False)
    tokens = 2 * 4096 + 256
    each = 24 * tokens * 3072**2 * 60 + 4 * tokens**2 * 3072 * 60
    assert operations(checked) == each
    # 1,000 steps of 51.5 or 42.5 calls, in the mean 47; 2,000 steps of the teacher, three calls each; eight pictures of the
    # teacher at 40 and at 8 steps, guided, and of the student at 8.
    calls = 1000 * (51.5 + 42.5) / 2 + 2000 * 3 + 8 * (2 * 40 + 2 * 8 + 8)
    found = hours(checked, Device("card", 1e12, 1000))
    assert found.seconds == pytest.approx(calls * each / (0.4 * 1000e12))
    assert [name for name, _ in found.parts] == ["teachers", "training", "evaluation"]
    assert hours(checked, Device("card", 1e12)).seconds is None


@pytest.mark.slow
def test_general_items_in_mixed_batches_are_sampled_also_where_pairs_are_the_targets() -> None:
    found = {origin: check_manifest("quickstart", [f"targets.from={origin}"]) for origin in ("teacher", "pair")}
    calls = {name: next(part.calls for part in stages(one) if part.name == "targets") for name, one in found.items()}
    items, steps = found["pair"].items, 40
    assert calls == {"teacher": steps * sum(map(len, items.values())), "pair": steps * len(items["general"])}
    assert len(items["general"]) < sum(map(len, items.values()))


def test_hours_are_those_of_an_earlier_run_where_there_is_one(empty: Path) -> None:
    log = empty / "runs" / "one-effect" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": step, "seconds": 66.0, "forwards": 33}) + "\n" for step in range(1, 4)))
    found = hours(check_manifest("one-effect", files=False), Device("card", 1e12, 1000))
    assert found.seconds == pytest.approx(2.0 * 1000 * (35.5 + 30.5) / 2)
    assert "measured: 2 s a call" in str(found)


def test_times_in_words() -> None:
    assert [told(s) for s in (40, 130, 9000, 90_000, 900_000)] == ["40 s", "2 min", "2.5 hours", "25 hours", "10 days"]
