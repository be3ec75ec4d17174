"""Flow-matching maths: pure functions of tensors, in diffusers' convention.

``x = (1 - sigma) * x0 + sigma * noise``, ``v = noise - x0``, ``x0 = x - sigma * v``, ``t = 1000 * sigma``
(arXiv 2605.25378 section 2 writes the same line with time reversed and the sign flipped).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def expand(sigma: Tensor, like: Tensor) -> Tensor:
    """Give ``sigma`` ``[B]`` trailing axes so that it broadcasts against ``like`` ``[B, ...]``."""
    return sigma.reshape(sigma.shape[0], *([1] * (like.ndim - 1)))


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return ``(1 - sigma) * x0 + sigma * noise``; ``sigma`` is ``[B]``."""
    s = expand(sigma, x0)
    return (1.0 - s) * x0 + s * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """Return the flow-matching target ``v = noise - x0``."""
    return noise - x0


def to_x0(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Return ``x0 = x - sigma * v``."""
    return x - expand(sigma, x) * v


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Return ``s * sigma / (1 + (s - 1) * sigma)`` (Esser et al. 2024, section 5.3.2)."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def unshift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Invert `shift_sigma`."""
    return sigma / (shift - (shift - 1.0) * sigma)


@dataclass(frozen=True)
class Schedule:
    """The student's sampler: ``steps`` sigmas, shifted once, and from one to the next by fresh noise or by Euler's method.

    The numbers of diffusers' ``FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=stochastic)`` given
    ``sigmas=linspace(1, 1/steps, steps)``; ``set_timesteps(steps)`` alone would shift twice.
    """

    steps: int = 8
    shift: float = 3.0
    integer_timesteps: bool = False
    """Round ``t`` down to an integer as the released code does (954, 833, 642)."""
    terminal: float | None = None
    """The last sigma to which all are stretched, as some stock pipelines do (diffusers' ``shift_terminal``)."""
    stochastic: bool = True
    """Fresh noise at every step (consistency sampling, LCM); else the noise that the step itself predicts: Euler's method."""

    def sigmas(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the ``[steps]`` sigmas, descending from 1."""
        import torch

        sigmas = shift_sigma(torch.linspace(1.0, 1.0 / self.steps, self.steps, dtype=torch.float64), self.shift)
        if self.terminal is not None and self.steps > 1:
            sigmas = 1.0 - (1.0 - sigmas) * (1.0 - self.terminal) / (1.0 - sigmas[-1])
        if self.integer_timesteps:
            sigmas = torch.floor(sigmas * 1000.0 + 1e-9) / 1000.0
        return sigmas.to(device=device, dtype=torch.float32)

    def advance(self, x: Tensor, sigma: Tensor, x0: Tensor, following: Tensor, noise: Tensor) -> Tensor:
        """Take ``x`` at ``sigma`` ``[B]``, of which ``x0`` was predicted, to the next sigma: by ``noise``, or by its own."""
        return add_noise(x0, noise if self.stochastic else x0 + (x - x0) / expand(sigma, x), following)

    def draw(self, uniform: Tensor, low: float = 0.0, high: float = 1.0, *, bound_before_shift: bool = False) -> Tensor:
        """Map ``uniform`` ``[B]`` in [0, 1) to shifted sigmas within ``(low, high)``.

        The distribution is that of a shifted uniform sigma, restricted to the bounds *after* the shift (the paper's
        reading); with ``bound_before_shift`` the bounds apply to the uniform sigma, as in the released code.
        """
        if bound_before_shift:
            return shift_sigma(low + uniform * (high - low), self.shift)
        bounds = unshift_sigma(uniform.new_tensor([low, high]), self.shift)
        return shift_sigma(bounds[0] + uniform * (bounds[1] - bounds[0]), self.shift)
