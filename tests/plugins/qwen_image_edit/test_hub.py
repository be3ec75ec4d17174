"""Hub ids that are in the local cache: described and loaded without a network, and exported with their commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from cldistill.errors import OptionsError
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.description import describe_base
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the tiny pipeline as ``somebody/tiny-edit``, and no network."""
    repository = tmp_path / "hub" / "models--somebody--tiny-edit"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_cached_snapshot_is_found_described_and_loaded(hub: Path) -> None:
    settings = QwenImageEditSettings(model="somebody/tiny-edit", resolution=64, vl_resolution=56, dtype="float32")
    assert settings.folder.find() == hub
    assert describe_base(settings).layers == 2
    base = QwenImageEdit(settings)
    assert base.tokenize("manga")
    header = base.export_metadata()
    assert (header["cldistill.base"], header["cldistill.base_revision"]) == ("somebody/tiny-edit", COMMIT)
    assert json.loads(header["cldistill.base_options"])["model"] == "somebody/tiny-edit"


def test_a_hub_id_that_is_not_there_says_what_to_do(hub: Path) -> None:
    with pytest.raises(OptionsError, match="could not be downloaded"):
        QwenImageEdit(QwenImageEditSettings(model="Qwen/Qwen-Image-Edit-2509"))
    with pytest.raises(OptionsError, match="download it first"):
        describe_base(QwenImageEditSettings(model="somebody/other"))
