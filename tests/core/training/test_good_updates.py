"""A run whose student learnt nothing of an effect fails, and exports nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cldistill.errors import NonFiniteError
from cldistill.testing import run_manifest
from cldistill.testing.pictures import write_pairs


@pytest.mark.slow
def test_an_effect_without_a_good_update_fails_the_run(tmp_path: Path) -> None:
    effects = [
        {
            "name": name, "prompt": f"{name} it", "pairs": str(write_pairs(tmp_path / name, seed=seed)),
            "teacher": {"use": "tiny-teacher", "options": {"strength": strength}},
        }
        for seed, (name, strength) in enumerate((("a", 0.5), ("b", 0.5), ("broken", 1e30)))
    ]  # fmt: skip
    with pytest.raises(NonFiniteError, match="no update on broken was good") as error:
        run_manifest(tmp_path, steps=16, effects=effects)
    assert "nothing is exported" in str(error.value)
    assert not (tmp_path / "run/collection").exists()
    with pytest.raises(NonFiniteError, match="broken"):  # the same command goes on to the same end
        run_manifest(tmp_path, steps=16, effects=effects)
