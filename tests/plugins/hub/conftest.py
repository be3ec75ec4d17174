"""A hub on loopback, and the command line in processes of their own that know no other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cldistill.testing import plugin_environment, run_manifest

Cli = Callable[..., subprocess.CompletedProcess[str]]


def _server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback_hub", Path(__file__).with_name("server.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback_hub"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def loopback() -> ModuleType:
    """The module ``server.py``."""
    return _server()


@pytest.fixture
def hub(loopback: ModuleType) -> Iterator[Any]:
    """A running hub without repositories."""
    made = loopback.Hub()
    server = loopback.serve(made)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection that a run of the kit exported: effects ``invert`` and ``soften``, four steps."""
    found = run_manifest(tmp_path_factory.mktemp("hub-run"), steps=2).collection
    assert found is not None
    return found


@pytest.fixture
def cli(hub: Any, tmp_path: Path, loopback: ModuleType) -> Iterator[Cli]:
    """Run ``cldistill WORDS`` in a process whose hub is the loopback one; ``token=None``: nobody is logged in."""
    with plugin_environment({}) as plugins:
        own = {name: value for name, value in plugins.items() if not name.startswith(("HF_", "HUGGING"))}

        def call(*words: object, token: str | None = loopback.TOKEN, **more: str) -> subprocess.CompletedProcess[str]:
            environment = own | {
                "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1",
                "OMP_NUM_THREADS": "1", "COLUMNS": "300", "CLDISTILL_CACHE": str(tmp_path / "cache"),
            } | more  # fmt: skip
            if token is not None:
                environment["HF_TOKEN"] = token
            return subprocess.run(
                [sys.executable, "-m", "cldistill", *map(str, words)], capture_output=True, text=True, check=False,
                env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
            )  # fmt: skip

        yield call
