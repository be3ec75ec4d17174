"""Whether a run fits a device, and what would make it fit: each setting planned anew, none guessed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest
from cldistill_plugins.planning import fit
from cldistill_plugins.planning.fit import Device, device_here, must_fit, peak, remedies, size

H100 = 81559 * 2**20


def test_single_settings_that_are_enough_are_offered_with_what_they_lead_to() -> None:
    overrides = ["train.gradient_checkpointing=false"]
    checked = check_manifest("one-effect", overrides, files=False)
    found = remedies(checked, "one-effect", overrides, H100)
    assert found.fits
    assert [change.settings for change in found.changes] == [("train.gradient_checkpointing=true",)]
    again = check_manifest("one-effect", [*overrides, *found.changes[0].settings], files=False)
    assert found.changes[0].peak == peak(again) <= H100 < peak(checked)


@pytest.mark.slow
def test_the_mildest_rank_that_fits_is_taken_and_its_alpha_goes_along() -> None:
    moments = [f"slots.{name}.moments=8bit" for name in ("student", "critic")]
    overrides = ["base.options.quantise=int8", "slots.student.ema=null", *moments]
    checked = check_manifest("collectionlora-50", overrides, files=False)
    (change,) = remedies(checked, "collectionlora-50", overrides, 43e9).changes
    assert change.settings == (
        "slots.student.rank=64", "slots.critic.rank=64", "slots.student.alpha=64", "slots.critic.alpha=64",
    )  # fmt: skip
    assert change.peak == peak(check_manifest("collectionlora-50", [*overrides, *change.settings], files=False))


def test_what_changes_the_result_least_is_offered_first() -> None:
    checked = check_manifest("collectionlora-50", files=False)
    found = remedies(checked, "collectionlora-50", [], H100)
    first = ["train.ema_device=cpu", "slots.student.ema=null", "base.options.quantise=int8"]
    assert [change.settings for change in found.changes] == [(setting,) for setting in first]


@pytest.mark.slow
def test_where_no_single_setting_is_enough_several_are_and_none_of_them_is_idle() -> None:
    checked = check_manifest("quickstart", files=False)
    room = 1.05e9
    found = remedies(checked, "quickstart", [], room)
    (change,) = found.changes
    assert found.fits
    assert len(change.settings) > 1
    for index in range(len(change.settings)):
        if change.settings[index].startswith("train.global_batch"):  # keeps an update what it was; it saves nothing
            continue
        rest = [setting for place, setting in enumerate(change.settings) if place != index]
        assert peak(check_manifest("quickstart", rest, files=False)) > room
    assert peak(check_manifest("quickstart", change.settings, files=False)) <= room


@pytest.mark.slow
def test_a_run_that_nothing_makes_fit_says_the_least_that_it_takes() -> None:
    found = remedies(check_manifest("one-effect", files=False), "one-effect", [], 16e9)
    assert not found.fits
    assert found.changes[0].peak == peak(check_manifest("one-effect", found.changes[0].settings, files=False)) > 16e9


def test_a_run_refuses_a_device_that_is_too_small_and_names_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = check_manifest("quickstart", ["train.batch_size=1000"], files=False)
    card = Device("a small card", 4e9)
    monkeypatch.setattr(fit, "device_here", lambda **_: card)
    with pytest.raises(ManifestError) as caught:
        must_fit(checked, "quickstart", ["train.batch_size=1000"], "--ignore-memory")
    text = str(caught.value)
    assert f"about {size(peak(checked))} on each device, and a small card has 4.0 GB" in text
    assert "--set train.batch_size=1 --set train.global_batch=1000  ->  " in text
    assert "--ignore-memory" in text
    card = Device("a larger card", 400e9)
    must_fit(checked, "quickstart", ["train.batch_size=1000"], "--ignore-memory")


@pytest.mark.slow
def test_the_command_refuses_before_it_prepares_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = device_here(cpu=True)
    assert here is not None
    items = int(here.bytes / 1e9 * 1000)  # far more than this machine holds
    words = ["run", "quickstart", "--set", f"train.batch_size={items}", "--set", "train.device=cpu"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ManifestError)
    assert re.search(r"quickstart: the run needs about [\d.]+ GB", str(done.exception))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}  # in which what check has looked at is noted


def test_the_memory_of_this_machine_is_seen() -> None:
    here = device_here(cpu=True)
    assert here is not None
    assert here.bytes > 1e9
    assert not here.gpu
