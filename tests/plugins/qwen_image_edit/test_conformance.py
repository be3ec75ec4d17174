"""The base passes the public kit's own check, on a tiny pipeline of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cldistill.testing import check_base_model
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION
from cldistill_plugins.qwen_image_edit.description import idle_modules
from cldistill_plugins.qwen_image_edit.plugin import register_base_models

(COMPONENT,) = register_base_models()


@pytest.mark.slow
def test_the_base_conforms(folder: Path) -> None:
    options = {"model": str(folder), "resolution": TINY_RESOLUTION, "vl_resolution": TINY_VL_RESOLUTION}
    check_base_model(COMPONENT, {**options, "dtype": "float32"}, size=(64, 64))


def test_four_of_the_840_modules_of_the_paper_are_idle(folder: Path) -> None:
    settings = COMPONENT.settings.model_validate({"model": str(folder)})
    described = COMPONENT.describe(settings).base
    assert described is not None and len(described.targets) == 28 and described.idle == idle_modules({"num_layers": 2})
    assert idle_modules({})[0] == "transformer_blocks.59.attn.add_q_proj"
    narrow = COMPONENT.describe(COMPONENT.settings.model_validate({"model": str(folder), "targets": ["to_q"]})).base
    assert narrow is not None and narrow.idle == ()
