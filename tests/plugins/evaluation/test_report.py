"""The report's contract: what cannot be measured, intervals, floors, failures, comparisons, probes, files on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import ImageOps
from PIL.Image import Image

from cldistill.component import Needs
from cldistill.errors import NotMeasured, PluginError
from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues, Ratio
from cldistill_plugins.evaluation.report.record import read_evaluation

BARE = {"name": "bare", "title": "Bare base", "adapter": None, "steps": 2}
BASE = {"name": "base", "adapter": "teacher", "steps": 2}
Found = Mapping[str, Mapping[str, MetricValues]]


class Judge:
    """Finds the second picture of ``base`` bad, refuses the first of ``bare``, and knows truths."""

    columns = {"bcr": Column("bad cases", "lower", percent=True), "kept": Column("kept", "higher")}  # noqa: RUF012

    def __call__(self, request: MetricRequest) -> Found:
        """Answer as the class says."""
        assert request.reference == "bare"
        bad = {"bare": [math.nan, 1.0], "base": [0.0, 1.0]}
        tags = {"bare": [None, None], "base": [None, "style-interference"]}
        found: dict[str, dict[str, MetricValues]] = {
            system: {
                e.name: MetricValues({"bcr": bad[system]}, tags={"failure": tags[system]}) for e in request.effects
            }
            for system in bad
        }
        found["base"]["general"] = MetricValues(ratios={"kept": Ratio([1.0, 3.0], [2.0, 2.0])})
        found["bare"]["general"] = MetricValues(summary={"kept": 1.0})
        return {**found, "floor": {"invert": MetricValues({"bcr": [0.0, 0.0, 1.0, 0.0]})}}

    def truth(self, effect: str, picture: Image, key: str) -> Image | None:
        """Invert, which is what the kit's pairs show."""
        return ImageOps.invert(picture) if effect == "invert" else None

    def stochastic(self, effect: str) -> bool | None:
        """Know it of one effect."""
        return True if effect == "soften" else None


@pytest.mark.slow
def test_the_whole_report(desk: Any) -> None:
    desk.metric("judge", lambda context: Judge())
    desk.evaluate(BARE, BASE, metrics=["judge", "brightness"], compare=[["base", "bare"]])
    folder, report = desk.root / "out", desk.report()
    read = read_evaluation(folder)  # the reader's own check of the contract
    assert [system.name for system in read.systems] == ["bare", "base"]
    assert report["pictures"] == ["000", "001"]
    assert report["general"]["items"] == ["000001", "000002"]
    assert report["effects"][1] == {
        "name": "soften", "prompt": "soften the picture", "student_prompt": "<soften> soften the picture",
        "trigger": "<soften>", "stochastic": True,
    }  # fmt: skip
    assert report["metrics"]["bcr"] == {"title": "bad cases", "better": "lower", "component": "judge", "percent": True}
    assert report["values"]["bare"]["invert"]["bcr"] == [None, 1.0]
    assert report["summary"]["bare"]["bcr"] == {"mean": 1.0, "low": None, "high": None, "n": 1}
    assert report["summary"]["base"]["bcr"] == {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 2}
    assert report["per_effect"]["base"]["soften"]["bcr"]["n"] == 2
    assert report["floors"]["bcr"]["mean"] == 0.25
    assert report["failures"] == {"base": {e: {"001": "style-interference"} for e in ("invert", "soften")}}
    assert report["summary"]["base"]["kept"] == {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 2}
    assert report["summary"]["bare"]["kept"] == {"mean": 1.0, "low": None, "high": None, "n": 0}
    assert report["general"]["summary"]["base"]["kept"]["mean"] == 1.0
    assert report["seed"] == 1
    assert report["versions"]["torch"]
    assert report["machine"]["cores"] >= 1
    for path in ("source/000", "truth/invert/001", "bare/soften/001", "base/general/000002"):
        assert (folder / "pictures" / f"{path}.webp").is_file()
    assert not (folder / "pictures/truth/soften").exists()
    truth, source = (np.asarray(desk.pixels(name, "invert" if name == "truth" else "")) for name in ("truth", "source"))
    assert np.array_equal(truth, 255 - source)
    assert "<html" in (folder / "report.html").read_text().lower()


@pytest.mark.slow
def test_comparisons_are_paired(desk: Any) -> None:
    desk.metric("judge", lambda context: Judge())
    desk.evaluate(BARE, BASE, metrics=["judge", "brightness"], compare=[["base", "bare"]])
    report = desk.report()
    found = {(c["metric"], c["effects"]): c for c in report["comparisons"]}
    values = report["values"]
    differences = [
        [a - b for a, b in zip(values["base"][e]["brightness"], values["bare"][e]["brightness"], strict=True)]
        for e in ("invert", "soften")
    ]
    means = np.mean(differences, axis=0)
    all_effects = found["brightness", "all"]
    assert all_effects["mean"] == pytest.approx(means.mean())
    assert all_effects["low"] == pytest.approx(means.min())  # of two pictures, a resample may hold one alone
    assert all_effects["high"] == pytest.approx(means.max())
    assert all_effects["n"] == 2
    assert all_effects["clear"] == (means.min() > 0 or means.max() < 0)
    assert found["brightness", "stochastic"]["mean"] == pytest.approx(np.mean(differences[1]))
    ratio = np.sum([values["base"][e]["brightness"] for e in ("invert", "soften")]) / np.sum(
        [values["bare"][e]["brightness"] for e in ("invert", "soften")]
    )
    assert all_effects["ratio"]["mean"] == pytest.approx(ratio, rel=0.05)
    # Of the first picture the judge had no word on `bare`: it counts for neither.
    assert found["bcr", "all"]["mean"] == 0.0
    one = found["bcr", "all"]
    assert (one["n"], one["low"], one["high"], one["clear"]) == (1, None, None, False)
    assert (one["ratio"]["mean"], one["ratio"]["low"], one["ratio"]["high"]) == (1.0, None, None)


def test_the_markdown_table(desk: Any) -> None:
    desk.metric("judge", lambda context: Judge())
    desk.evaluate(
        BARE, BASE, metrics=["judge"], compare=[["base", "bare"]], not_run=[{"what": "a|b", "why": "no time"}]
    )
    text = (desk.root / "out/report.md").read_text()
    assert "| system | evaluations | bad cases ↓ | kept ↑ |" in text
    assert "| base | 2 | 50.0% [0.0%, 100.0%] | 1 [0.5, 1.5] |" in text
    assert "| Bare base | 2 | 100.0% (one picture: no interval) | 1 |" in text
    assert "| +0.0% (one picture: no interval) | 1 (one picture: no interval) |" in text
    assert "| *fresh truth* |  | 25.0%" in text
    assert "| soften (stochastic) | 100.0% | 50.0% |" in text
    assert "| a\\|b | no time |  |" in text
    assert "within noise" in text


def _absent(context: object) -> Any:
    raise NotMeasured("no weights of it on this machine")


class Endpointless:
    """Finds out only when it is asked."""

    def __call__(self, request: MetricRequest) -> Found:
        """Give up."""
        raise NotMeasured("http://127.0.0.1:9 does not answer")


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(desk: Any) -> None:
    desk.metric("absent", _absent)
    desk.metric("endpointless", lambda context: Endpointless())
    desk.metric("packageless", _absent, Needs(packages=("no_such_package_here",)))
    desk.metric("fileless", _absent, Needs(files=(desk.root / "weights.pt",)))
    desk.evaluate(BARE, metrics=["absent", "endpointless", "packageless", "fileless", "brightness"])
    report = desk.report()
    reasons = {entry["component"]: entry["reason"] for entry in report["not_measured"]}
    assert reasons["absent"] == "no weights of it on this machine"
    assert reasons["endpointless"] == "http://127.0.0.1:9 does not answer"
    assert "no_such_package_here" in reasons["packageless"]
    assert "weights.pt" in reasons["fileless"]
    assert list(report["metrics"]) == ["brightness"]
    assert "no weights of it" in (desk.root / "out/report.md").read_text()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"bore": {"invert": MetricValues({"x": [1.0, 2.0]})}},
            "'bore' on 'invert', never asked for; did you mean 'bare'",
        ),
        ({"bare": {"inwert": MetricValues({"x": [1.0, 2.0]})}}, "did you mean 'invert'"),
        ({"bare": {"invert": MetricValues({"x": [1.0]})}}, "has 1 values for 2 pictures"),
        ({"bare": {"invert": MetricValues(tags={"failure": ["a"]})}}, "has 1 values for 2 pictures"),
    ],
)
def test_an_answer_that_was_not_promised_names_the_metric(desk: Any, answer: Found, message: str) -> None:
    desk.metric("wrong", lambda context: lambda request: answer)
    with pytest.raises(PluginError, match="metric wrong: ") as caught:
        desk.evaluate(BARE, metrics=["wrong"], general=False)
    assert message in str(caught.value)


def test_two_components_may_use_one_name(desk: Any) -> None:
    desk.metric("again", lambda context: lambda request: {"bare": {"invert": MetricValues({"brightness": [1.0, 3.0]})}})
    desk.evaluate(BARE, metrics=["brightness", "again"])
    report = desk.report()
    assert list(report["metrics"]) == ["brightness", "again:brightness"]
    assert report["summary"]["bare"]["again:brightness"]["mean"] == 2.0


class Probing:
    """Writes down the pools that it was given."""

    seen: dict[str, dict[str, int]] = {}  # noqa: RUF012

    def __call__(self, request: MetricRequest) -> Found:
        """Measure the probes alone."""
        self.seen.clear()
        for system, pools in request.outputs.items():
            self.seen[system] = {pool: len(made) for pool, made in pools.items()}
        return {
            system: {pool: MetricValues({"bleeding": [0.5] * len(made)}) for pool, made in pools.items() if "/" in pool}
            for system, pools in request.outputs.items()
        }


@pytest.mark.slow
def test_probes_are_made_when_a_metric_asks(desk: Any) -> None:
    desk.metric("bleeding", lambda context: Probing(), Needs(probes=("untriggered", "wrong-trigger")))
    folder = desk.collection("ours", {"invert": ("zork", "zork swap every colour")})
    told = desk.collection("told", {"invert": ("", "swap every colour")})
    desk.evaluate(
        {"name": "ours", "adapter": str(folder)}, {"name": "plain", "adapter": str(told)}, BASE,
        metrics=["bleeding"], general=False, probes_pictures=1,
    )  # fmt: skip
    probes = {"invert/untriggered": 1, "invert/wrong-trigger": 1}
    assert Probing.seen["ours"] == {"invert": 2, **probes}
    assert Probing.seen["base"] == {
        "invert": 2,
        "soften": 2,
        **probes,
        "soften/untriggered": 1,
        "soften/wrong-trigger": 1,
    }
    report = desk.report()
    assert report["summary"]["ours"]["bleeding"]["mean"] == 0.5
    assert report["probes"]["pictures"] == ["000"]
    assert report["probes"]["values"]["ours"]["invert/untriggered"]["bleeding"] == [0.5]
    assert "bleeding" not in report["per_effect"].get("ours", {}).get("invert", {})
    # Without its trigger the collection hears its own caption: the same as a collection whose prompt is that caption...
    ours = desk.pixels("ours", "invert/untriggered")
    same_weights = desk.collection("ours-told", {"invert": ("", "swap every colour")})
    desk.save(same_weights / "pytorch_lora_weights.safetensors", *_weights_and_header(desk, folder, same_weights))
    desk.evaluate({"name": "told", "adapter": str(same_weights)}, metrics=["bleeding"], general=False, output="told")
    assert np.array_equal(desk.pixels("told", "invert", output="told"), ours)
    # ... and a trigger that nobody knows is not the effect's own prompt.
    assert not np.array_equal(desk.pixels("ours", "invert/wrong-trigger"), desk.pixels("ours", "invert"))


def _weights_and_header(desk: Any, weights: Any, header: Any) -> tuple[Any, dict[str, str]]:
    from cldistill.adapters.files import load_adapter
    from cldistill.adapters.header import read_header
    from cldistill.adapters.inject import linear_shapes
    from cldistill.testing.tiny_base import TinyBase

    state = load_adapter(weights, linear_shapes(TinyBase().backbone))
    found = read_header(header).metadata
    return state, {name: value for name, value in found.items() if name.startswith("cldistill.")}


def test_no_path_of_this_machine_is_in_the_report(desk: Any) -> None:
    desk.lora("one")
    desk.evaluate({"name": "one", "adapter": str(desk.root / "one.safetensors")})
    text = json.dumps(desk.report())
    assert str(desk.root) not in text
    assert "sha256:" in text


class Silent:
    """Finds nothing that it could measure, and does not say why."""

    columns = {"silent": Column("silence", "lower")}  # noqa: RUF012

    def __call__(self, request: MetricRequest) -> Found:
        """Answer with nothing."""
        return {}


@pytest.mark.slow
def test_a_metric_that_gave_no_value_is_told(desk: Any) -> None:
    desk.metric("silent", lambda context: Silent())
    desk.evaluate(BARE, metrics=["silent", "brightness"], general=False)
    (told,) = desk.report()["not_measured"]
    assert told == {"component": "silent", "reason": "it found nothing here that it could measure"}
