"""One tiny pipeline folder for all tests of the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, tiny_pipeline
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def settings(folder: Path) -> QwenImageEditSettings:
    return QwenImageEditSettings(
        model=str(folder), resolution=TINY_RESOLUTION, vl_resolution=TINY_VL_RESOLUTION, dtype="float32"
    )


@pytest.fixture
def base(settings: QwenImageEditSettings) -> QwenImageEdit:
    return QwenImageEdit(settings)
