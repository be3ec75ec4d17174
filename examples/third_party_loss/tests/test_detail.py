"""The example's own tests: its maths, the kit's check, and a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detail_loss import plugin
from detail_loss.detail import detail_weighted_error

from cldistill.testing import catalogue_with, check_loss_term, run_manifest

(DETAIL_FM,) = plugin.register_loss_terms()


def test_an_error_of_one_and_three_has_two_in_common_and_one_of_detail() -> None:
    predicted = torch.tensor([[1.0, 3.0]])
    assert float(detail_weighted_error(predicted, torch.zeros(1, 2), weight=5.0)) == pytest.approx(
        2.0**2 + 5.0 * 1.0**2
    )


def test_weight_one_is_the_mean_squared_error() -> None:
    predicted, wanted = torch.randn(2, 3, 16, 8, generator=torch.Generator().manual_seed(0)).unbind()
    expected = torch.nn.functional.mse_loss(predicted, wanted)
    torch.testing.assert_close(detail_weighted_error(predicted, wanted, weight=1.0), expected)


def test_it_conforms() -> None:
    check_loss_term(DETAIL_FM, {"weight": 3.0})


def test_a_run_with_it_learns(tmp_path: Path) -> None:
    done = run_manifest(tmp_path, catalogue_with(plugin), steps=12, losses=[{"use": "detail-fm"}])
    losses = done.losses("detail-fm")
    assert len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])
