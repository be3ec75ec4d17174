"""Weight differences of adapters, each as a product of two factors, and the nearest product of a given rank.

A difference is ``up @ down``, ``up`` ``[out, n]`` and ``down`` ``[n, in]``.  The nearest of rank r in the Frobenius norm is its
truncated singular value decomposition (Eckart and Young 1936); with ``up = Q1 R1`` and ``down.T = Q2 R2`` only the n x n matrix
``R1 R2.T`` is decomposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """``delta = up @ down``, in fp32."""

    up: Tensor
    """``[out, n]``"""
    down: Tensor
    """``[n, in]``"""

    @property
    def rank(self) -> int:
        """The inner dimension n."""
        return int(self.down.shape[0])

    def delta(self) -> Tensor:
        """``[out, in]``"""
        return self.up @ self.down

    def rows(self, start: int, stop: int) -> Factors:
        """The rows ``start`` to before ``stop`` of the difference: one of several projections that were fused."""
        return Factors(self.up[start:stop], self.down)


def of_matrix(delta: Tensor) -> Factors:
    """Return a full difference ``[out, in]`` as factors: itself, and an identity on its smaller side."""
    out, wide = delta.shape
    return Factors(torch.eye(out), delta) if out <= wide else Factors(delta, torch.eye(wide))


def of_loha(scale: float, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> Factors:
    """Return ``scale * (w1_a @ w1_b) * (w2_a @ w2_b)``, elementwise in the middle (FedPara, arXiv 2108.06098), of rank r1 r2.

    ``sum_ij (a_i * c_j)(b_i * d_j).T``, over the columns a, c of ``w1_a``, ``w2_a`` and the rows b, d of ``w1_b``, ``w2_b``.
    """
    up = (w1_a[:, :, None] * w2_a[:, None, :]).flatten(1)
    down = (w1_b[:, None, :] * w2_b[None, :, :]).flatten(0, 1)
    return Factors(scale * up, down)


def of_dora(inner: Factors, magnitude: Tensor, weight: Tensor) -> Factors:
    """Return ``magnitude * (W + delta) / norm(W + delta) - W`` (arXiv 2402.09353).

    ``magnitude`` is one number for each output (``[out]``, ``[out, 1]``) or, in some of LyCORIS, each input (``[1, in]``).
    """
    moved = weight + inner.delta()
    by_input = magnitude.dim() == 2 and magnitude.shape[0] == 1 and magnitude.shape[1] == weight.shape[1]
    norm = moved.norm(dim=0 if by_input else 1, keepdim=True)
    scale = magnitude.reshape(norm.shape) / norm.clamp_min(torch.finfo(torch.float32).tiny)
    return of_matrix(scale * moved - weight)


@dataclass(frozen=True)
class Nearest:
    """A LoRA of a module, and how far from the difference it is."""

    up: Tensor
    """``[out, rank]``"""
    down: Tensor
    """``[rank, in]``"""
    error: float
    """Norm of what is lacking."""
    size: float
    """Norm of the difference."""


def nearest(factors: Factors, rank: int) -> Nearest:
    """Return the LoRA of at most ``rank`` that is nearest; one that fits already keeps its factors, and its error is 0."""
    if factors.rank <= rank:
        size = float((factors.up.T @ factors.up * (factors.down @ factors.down.T)).sum().clamp_min(0).sqrt())
        return Nearest(factors.up, factors.down, 0.0, size)
    q1, r1 = torch.linalg.qr(factors.up)
    q2, r2 = torch.linalg.qr(factors.down.T)
    u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
    root = s[:rank].sqrt()
    return Nearest(
        q1 @ (u[:, :rank] * root), (root[:, None] * vh[:rank]) @ q2.T, float(s[rank:].norm()), float(s.norm())
    )
