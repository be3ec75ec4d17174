"""Requests to measure, and small models with random weights, of the classes that the real ones have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cldistill.testing import metric_request
from cldistill.testing.metric_check import TinyMetricRequest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def request_(tmp_path: Path) -> TinyMetricRequest:
    """Four pictures of one effect, and of the general pool, by three systems."""
    return metric_request(tmp_path / "request")
