"""The backbone in fewer bits: diffusers' own way to quantise a transformer with torchao while it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from cldistill.errors import OptionsError
from cldistill_plugins.diffusers_base.settings import Quantised


def require_torchao() -> None:
    """Raise `OptionsError` where torchao is not installed."""
    if find_spec("torchao") is None:
        raise OptionsError("base.options.quantise needs torchao: pip install 'cldistill[quantise]'")


def weight_config(kind: Quantised) -> Any:
    """Return torchao's configuration of one linear module; activations stay as they are."""
    from torchao.prototype._nf4tensor_api import NF4WeightOnlyConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig, "nf4": NF4WeightOnlyConfig}[kind]()


def loading_config(kind: Quantised, block_lists: Sequence[str]) -> Any:
    """Return what ``from_pretrained`` takes: the blocks' matrices are quantised, embeddings and the last layer are not."""
    from diffusers import TorchAoConfig
    from torchao.quantization import FqnToConfig

    named = rf"re:^({'|'.join(block_lists)})\..*"
    return TorchAoConfig(FqnToConfig(OrderedDict({named: weight_config(kind)})))
