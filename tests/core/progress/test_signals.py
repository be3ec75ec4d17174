"""Signals: the first asks, the second Ctrl-C leaves, and the old handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from cldistill.progress.signals import graceful_stop


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_only_asks(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
    try:
        with graceful_stop(said.append) as stop:
            assert not stop and stop.reason is None
            send(number)
            assert stop and stop.reason == number.name
    finally:
        signal.signal(number, before)
    assert len(said) == 1
    assert said[0].startswith(f"{number.name}: finishing this step, then saving")


def test_the_second_ctrl_c_leaves() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), graceful_stop(said.append):
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert len(said) == 1


def test_repeated_sigterm_does_not_spoil_the_save() -> None:
    said: list[str] = []
    with graceful_stop(said.append) as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
    assert len(said) == 1


LEAVING = """
import atexit, os, signal, sys
from cldistill.progress.signals import graceful_stop

atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # of what was registered, the first comes last
with graceful_stop():
    if sys.argv[1] == "asked":
        os.kill(os.getpid(), signal.SIGTERM)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
sys.exit(3)
"""


@pytest.mark.parametrize(("word", "code"), [("asked", 3), ("unasked", -signal.SIGTERM)])
def test_sigterm_while_the_process_ends_changes_its_exit_code_only_where_none_came_before(word: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING, word], stderr=subprocess.PIPE, check=False)
    assert done.returncode == code, done.stderr.decode()


def test_handlers_are_restored_even_after_an_error() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(RuntimeError), graceful_stop():
        assert signal.getsignal(signal.SIGINT) is not before[signal.SIGINT]
        raise RuntimeError("in training")
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_default_speaks_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with graceful_stop():
        send(signal.SIGTERM)
    assert "finishing this step, then saving" in capsys.readouterr().err


def test_other_threads_run_without_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def work() -> None:
        with graceful_stop() as stop:
            seen.append(signal.getsignal(signal.SIGINT) is before and not stop)
            stop.request("asked")
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_nohup_stays_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_stop(say=lambda text: None) as stop:
            send(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)
