"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_mb(device: str) -> float:
    """Return the peak in MB: of the GPU's allocator on CUDA, else of the process's resident set."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device)) / 1024**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
