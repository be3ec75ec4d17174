"""Admission to the bank: by what the teachers do, in the catalogue's order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cldistill_plugins.effectbench.bank import admit
from cldistill_plugins.effectbench.bank.catalogue import bank_of, catalogue, hard_bank, tried


def report(path: Path, **bad: list[float]) -> Path:
    values = {name: {"bad_case": cases, "closeness": [0.5] * len(cases)} for name, cases in bad.items()}
    path.write_text(json.dumps({"pictures": ["a.png", "b.png"], "values": {"base": {}, "teacher": values}}))
    return path


def test_a_teacher_bad_in_at_most_half_is_admitted_and_order_is_the_catalogues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = list(catalogue())[:3]
    file = report(tmp_path / "report.json", **{third: [0, 0], first: [1, 0], second: [1, 1]})
    assert admit.main([str(file), "--output", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["admitted"] == [first, third]
    assert found["effects"][second] == {"bad_case": 1.0, "closeness": 0.5}
    assert "2 of 3 effects admitted" in capsys.readouterr().out


def test_another_report_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"values": {"ours": {}}}')
    assert admit.main([str(tmp_path / "report.json")]) == 2
    assert "has no 'teacher': it is not one of effectbench-admission" in capsys.readouterr().err


def test_a_later_report_adds_to_the_file_and_one_of_other_pictures_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = list(catalogue())[:3]
    out = str(tmp_path / "out.json")

    def report(name: str, values: dict[str, list[float]], pictures: list[str]) -> str:
        pools = {effect: {"bad_case": bad, "closeness": [0.5] * len(bad)} for effect, bad in values.items()}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"pictures": pictures, "values": {"teacher": pools}}))
        return str(file)

    one = report("one", {third: [0.0, 0.0], second: [1.0, 1.0]}, ["a", "b"])
    assert admit.main([one, "--output", out]) == 0
    two = report("two", {second: [0.0, 1.0]}, ["a", "b"])
    three = report("three", {first: [0.0, 0.0]}, ["a", "b"])
    assert admit.main([two, three, "--output", out]) == 0
    found = json.loads(Path(out).read_text())
    assert found["admitted"] == list(found["effects"]) == [first, second, third]
    kept = Path(out).read_bytes()
    other = report("other", {first: [1.0, 1.0]}, ["c", "d"])
    assert admit.main([other, "--output", out]) == 2
    assert "different pictures" in capsys.readouterr().err and Path(out).read_bytes() == kept
    assert admit.main([other, "--output", out, "--fresh"]) == 0
    assert json.loads(Path(out).read_text())["admitted"] == []


def test_a_bank_takes_the_admitted_first_then_the_untried_and_the_hard_ones_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = list(catalogue())
    assert set(tried()) <= set(names)
    # A third of them admitted, a third not, the last third not tried.
    found = dict.fromkeys(names[1::3], True) | dict.fromkeys(names[0::3], False)
    monkeypatch.setattr(sys.modules[bank_of.__module__], "tried", lambda: found)
    assert [effect.name for effect in bank_of(180)] == names[1::3] + names[2::3] + names[0::3]
    assert [effect.name for effect in hard_bank()] == names[0::3]
