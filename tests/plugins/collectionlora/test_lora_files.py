"""``lora-files``: the sum is exact, strengths may be negative, and each file must fit."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cldistill.errors import AdapterFormatError
from cldistill.weights import AdapterState, LokrWeights, LoraWeights
from cldistill_plugins.collectionlora.lora_files import LoraFilesSettings, added


def state(source: str, seed: int, rank: int, alpha: float, *modules: str) -> AdapterState:
    draw = torch.Generator().manual_seed(seed)
    weights = {
        name: LoraWeights(torch.randn(rank, 5, generator=draw), torch.randn(7, rank, generator=draw), alpha)
        for name in modules
    }
    return AdapterState(weights, source, source)


def delta(adapter: AdapterState, module: str) -> Tensor | float:
    weights = adapter.modules.get(module)
    assert weights is None or isinstance(weights, LoraWeights)
    return 0.0 if weights is None else weights.scale * weights.up.float() @ weights.down.float()


def test_the_sum_of_adapters_of_any_rank_and_alpha_is_exact() -> None:
    one, other = state("one", 0, 2, 1.0, "a", "b").scaled(0.8), state("other", 1, 3, 6.0, "b", "c").scaled(-0.5)
    found = added([one, other])
    assert set(found.modules) == {"a", "b", "c"}
    for module in "abc":
        torch.testing.assert_close(delta(found, module), delta(one, module) + delta(other, module))
    assert found.digest == "one*0.8+other*-0.5"
    assert added([one]) is one
    gone = added([state("one", 0, 2, 1.0, "a"), state("one", 0, 2, 1.0, "a").scaled(-1.0)])
    torch.testing.assert_close(delta(gone, "a"), torch.zeros(7, 5))


def test_a_lokr_is_not_approximated() -> None:
    lokr = AdapterState({"a": LokrWeights(torch.ones(1, 1), torch.ones(7, 5), 1.0)}, "kron.safetensors", "k")
    with pytest.raises(AdapterFormatError, match=r"kron\.safetensors: is a LoKr in module 'a'.*cldistill convert"):
        added([state("one", 0, 2, 1.0, "a"), lokr])
    assert set(added([state("one", 0, 2, 1.0, "b"), lokr]).modules) == {"a", "b"}


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_strengths_that_mean_nothing(scale: float) -> None:
    with pytest.raises(ValidationError):
        LoraFilesSettings.model_validate({"files": [{"path": "x.safetensors", "scale": scale}]})
