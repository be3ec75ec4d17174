"""Errors of the operating system are one sentence with what to do, and messages hold nothing that a terminal obeys."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cldistill.cli import main
from cldistill.errors import LONGEST, CldistillError
from cldistill.storage.files import atomic_write_text, write_aside


def said(action: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(main, "app", action)
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["ENOSPC", "EACCES", "EROFS", "EIO", "ENAMETOOLONG", "ENODEV", "EDQUOT"])
def test_an_error_of_the_system_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    number = getattr(errno, name)

    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))  # as a write to an open file says it: without a name

    monkeypatch.setattr(os, "fsync", fails)
    text = said(lambda: atomic_write_text(tmp_path / "report.json", "x"), monkeypatch, capsys)
    assert text.startswith(f"cldistill: {tmp_path / 'report.json'}: {os.strerror(number)}; ")
    assert text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_file_and_a_folder_in_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    def over_a_folder() -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        atomic_write_text(tmp_path / "a", "x")

    def below_a_file() -> None:
        (tmp_path / "a").write_text("x")
        with write_aside(tmp_path / "a" / "b"):
            pass

    text = said(over_a_folder if there == "folder" else below_a_file, monkeypatch, capsys)
    assert f"{tmp_path / 'a'}: " in text
    assert "move " in text


def test_a_message_is_bounded_and_obeyed_by_no_terminal() -> None:
    text = str(CldistillError("a\x1b[31mred\x07\u202e\ud800" + "x" * 10**6 + "the end\n" + "line\n" * 5000))
    assert text.startswith(r"a\x1b[31mred\x07\u202e\ud800xxx")
    assert "the end" in text
    assert len(text) <= LONGEST + 1000
    assert str(CldistillError("é 漢字 🎨\n  two")) == "é 漢字 🎨\n  two"
