"""Ctrl-C, SIGTERM and a closed terminal: finish the step, save, and leave; a second Ctrl-C leaves at once."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cldistill.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
IN_LOOP = "finishing this step, then saving"
OUTSIDE_LOOP = "leaving as soon as what is under way is saved"


class StopRequest:
    """Truthy once somebody asked the run to stop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Name of the signal, e.g. ``"SIGINT"``, or what the caller of `request` gave; None while nobody asked."""
        self.promise = IN_LOOP
        """Told to the person who asked: how the run is going to stop."""

    def request(self, reason: str) -> None:
        """Ask for the stop; the first reason stays."""
        self.reason = self.reason or reason

    def __bool__(self) -> bool:
        """Return whether the run should stop after the step that it is in."""
        return self.reason is not None


def never() -> bool:
    """Stand where nobody can ask for a stop."""
    return False


def raise_if_stopped(stop: Callable[[], bool], doing: str) -> None:
    """Leave the preparation by `Stopped`, which names what was being done, where ``stop`` says so; the caller has saved."""
    if stop():
        raise Stopped(f"stopped while {doing}; what is done is saved, and the same command goes on from there")


def say_to_stderr(text: str) -> None:
    """Print a line from a signal handler.

    Through ``sys.stderr`` first, so that a live display can put it above itself; if the signal fell into the middle of
    another write there, straight to the file descriptor.
    """
    try:
        print(text, file=sys.stderr, flush=True)
    except RuntimeError:  # "reentrant call inside BufferedWriter"
        os.write(2, f"\n{text}\n".encode())
    except OSError:  # the terminal is gone
        pass


def leave_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Let the system send this process a signal when the one that started it dies (a no-op elsewhere than on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG


@contextmanager
def graceful_stop(say: Callable[[str], None] = say_to_stderr) -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP inside the block into a request to stop, told to ``say``.

    Blocks may be nested: the innermost takes the signals.

    A Ctrl-C after that raises KeyboardInterrupt where the code is; a further SIGTERM changes nothing, so that a
    supervisor's repeats do not spoil the save.  The handlers from before are restored on leaving.  Only the main thread
    may set handlers: elsewhere the block runs without them and the request stays false.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop:
            stop.request(signal.Signals(number).name)
            say(f"{stop.reason}: {stop.promise}{' (Ctrl-C again leaves at once)' if number == signal.SIGINT else ''}")
            atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # nor do repeats change the exit code

    ignored = [n for n in SIGNALS if n != signal.SIGINT and signal.getsignal(n) is signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, handle) for number in SIGNALS if number not in ignored}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # one that was not set from Python cannot be put back
