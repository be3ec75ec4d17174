"""Where weights are looked for: folders and the hub's cache, and never the network unless an option allows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cldistill.errors import NotMeasured
from cldistill_plugins.evaluators.models import find_model, fingerprint, need

SHA = "0123456789abcdef0123456789abcdef01234567"


def hub_snapshot(home: Path, repository: str = "someone/some-model") -> Path:
    """Write a cached snapshot as the hub's client lays it out."""
    root = home / "hub" / f"models--{repository.replace('/', '--')}"
    for folder in ("blobs", "refs", f"snapshots/{SHA}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(SHA)
    (root / "blobs" / "b10b").write_text("{}")
    (root / "snapshots" / SHA / "config.json").symlink_to("../../blobs/b10b")
    return root / "snapshots" / SHA


CODE = """
import json, sys
from cldistill_plugins.evaluators.models import find_model
for model, download in json.loads(sys.argv[1]):
    try:
        print(find_model(model, download=download))
    except Exception as error:
        print(type(error).__name__, *str(error).split())
"""


def found_by(home: Path, *calls: tuple[str, bool], offline: bool = False) -> list[str]:
    """Look for models in an interpreter of its own: the hub's client reads its variables when it is imported."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    # Whatever tries to reach the hub finds nobody, and says so.
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-c", CODE, json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert find_model(str(tmp_path), download=False) == tmp_path


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"there is no folder .*/nothing"):
        find_model(str(tmp_path / "nothing"), download=True)


@pytest.mark.slow
@pytest.mark.parametrize("offline", [False, True])
def test_the_cache_is_enough_and_the_network_is_for_those_who_ask(tmp_path: Path, offline: bool) -> None:
    folder = hub_snapshot(tmp_path)
    calls = [("someone/some-model", False), ("someone/other", False), ("someone/other", True)]
    cached, absent, failed = found_by(tmp_path, *calls, offline=offline)
    assert cached == str(folder)
    assert absent.startswith("NotMeasured someone/other is not in the hub's cache; give model: a folder, or allow")
    assert failed.startswith("NotMeasured someone/other")


def test_what_is_no_name_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="neither a folder nor the name"):
        find_model("a/b/c d", download=False)


def test_a_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    folder = hub_snapshot(tmp_path)
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / "config.json").unlink()
    (folder.parents[1] / "blobs" / "b10c").write_text("[]")
    (folder / "config.json").symlink_to("../../blobs/b10c")
    after = fingerprint(folder)
    assert after != before
    (folder / "weights.bin").write_bytes(b"1")
    assert fingerprint(folder) not in (before, after)


def test_a_missing_package_is_named() -> None:
    need("json", "nothing")
    with pytest.raises(NotMeasured, match=r"needs the package no_such_thing.*pip install cldistill\[eval\]"):
        need("no_such_thing", "cldistill[eval]")
