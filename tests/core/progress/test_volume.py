"""The volume of a command."""

from __future__ import annotations

import logging
import os

import pytest

from cldistill.progress.volume import is_quiet, set_volume

IDLE = ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")


def test_warnings_that_ask_nothing_of_anybody_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})  # what is set there would hold for all tests after this one
    for name in IDLE:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    set_volume(quiet=True, verbose=False)
    assert is_quiet()
    assert [logging.getLogger(name).level for name in IDLE] == [logging.ERROR, logging.ERROR]
