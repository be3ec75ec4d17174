"""A GPU of any size that computes nothing: shapes and dtypes are exact, there is no data, and memory is counted.

Torch's FakeTensor mode runs a model of 20 B parameters on a laptop.  What lies on the pretended device is counted storage by
storage, as CUDA's caching allocator rounds it; workspaces inside kernels and fragmentation are not.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

GRAIN = 512
"""CUDA's caching allocator hands memory out in multiples of this many bytes."""
INDEX = torch.ops.aten.index.Tensor
READ = torch.ops.aten._local_scalar_dense.default
DEVICE = torch.ops.prim.device.default


@dataclass
class _Held:
    """The bytes that one storage takes."""

    bytes: int = 0


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage on the pretended GPU while it lives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._elsewhere = False
        self._seen: weakref.WeakKeyDictionary[Any, _Held] = weakref.WeakKeyDictionary()

    def start_over(self) -> None:
        """Forget the peak: from now on it is that of what follows."""
        self.peak = self.bytes

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Let what is made inside lie in the host's memory."""
        self._elsewhere = True
        yield
        self._elsewhere = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is DEVICE and isinstance(args[0], FakeTensor):  # more than half of all calls
            return args[0].fake_device
        if func is READ:  # there is no number behind a fake loss; any finite one goes on
            return 1.0 if args[0].is_floating_point() else 1
        if func is INDEX and any(index is not None and index.dtype == torch.bool for index in args[1]):
            return args[0].flatten()  # nor a mask: it is taken to be true everywhere
        result = func(*args, **(kwargs or {}))
        for tensor in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            # A quantised weight counts as the tensors that it is made of; its own storage is not there.
            if isinstance(tensor, Tensor) and not is_traceable_wrapper_subclass(tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self._seen:
            self._seen[storage] = held = _Held()
            weakref.finalize(storage, self._hold, held, 0)
            self._hold(held, 0 if self._elsewhere else storage.nbytes())

    def _hold(self, held: _Held, size: int) -> None:
        rounded = math.ceil(size / GRAIN) * GRAIN
        self.bytes += rounded - held.bytes
        held.bytes = rounded
        self.peak = max(self.peak, self.bytes)

    def resized(self, storage: Any) -> None:
        """Count a storage anew that was resized, as FSDP does with the weights that it gathers and lets go of."""
        if storage in self._seen:
            self._hold(self._seen[storage], storage.nbytes())


@contextmanager
def fake_gpu() -> Iterator[Meter]:
    """Let every tensor that is made inside be fake and lie on a GPU.

    Torch's backward asks the driver of a real GPU, so the pretended one is called ``cpu``; what autocast does otherwise on
    CUDA (layer norms in fp32) is done here.
    """
    layer_norm = F.layer_norm

    def in_fp32(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return layer_norm(x, shape, weight, bias, eps)
        weight, bias = (None if tensor is None else tensor.float() for tensor in (weight, bias))
        return layer_norm(x.float(), shape, weight, bias, eps)

    meter, resize = Meter(), torch.UntypedStorage.resize_

    def counted(storage: Any, size: int) -> Any:
        result = resize(storage, size)
        meter.resized(storage)
        return result

    patches = patch.object(F, "layer_norm", in_fp32), patch.object(torch.UntypedStorage, "resize_", counted)
    with patches[0], patches[1], FakeTensorMode(allow_non_fake_inputs=True), meter:
        yield meter
