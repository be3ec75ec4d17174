"""Muon: momentum whose matrix form is made orthogonal, for weights of two and more dimensions; Adam for the rest.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). On the miniature's VAE it needs far fewer
steps than Adam. Convolutions are matrices of (outputs, inputs · kernel).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Muon:
    """Muon for matrices and Adam for vectors, one learning rate factor for both.

    Args:
        parameters: what to train; those of fewer than two dimensions go to Adam.
        adam: more parameters for Adam, whatever their shape: first and last layers that are no hidden matrices.
        lr: step of a matrix, in units of its root mean square per update (0.2 · √max(shape), as in Moonlight).
        adam_lr: step of everything else.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        adam: Iterable[nn.Parameter] = (),
    ) -> None:
        chosen = [parameter for parameter in parameters if parameter.requires_grad]
        self.matrices = [p for p in chosen if _is_matrix(p)]
        self.momentum, self.lr, self.adam_lr = momentum, lr, adam_lr
        self.buffers = [torch.zeros_like(p) for p in self.matrices]
        rest = [p for p in chosen if not _is_matrix(p)] + list(adam)
        self.adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update with both learning rates times `factor`; gradients are kept, and what has none stays."""
        for parameter, buffer in zip(self.matrices, self.buffers, strict=True):
            if parameter.grad is None:  # a layer whose output nobody reads, such as the last block's text branch
                continue
            buffer.lerp_(parameter.grad, 1 - self.momentum)
            update = orthogonal(parameter.grad.lerp(buffer, self.momentum).reshape(len(buffer), -1))
            scale = 0.2 * max(update.shape) ** 0.5
            parameter.add_(update.reshape(parameter.shape), alpha=-self.lr * factor * scale)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * factor
        self.adam.step()

    def state_dict(self) -> dict[str, object]:
        """Everything that resuming needs."""
        return {"buffers": self.buffers, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore `state_dict()`."""
        buffers = state["buffers"]
        assert isinstance(buffers, list) and len(buffers) == len(self.buffers)
        for own, stored in zip(self.buffers, buffers, strict=True):
            own.copy_(stored)
        adam = state["adam"]
        assert isinstance(adam, dict)
        self.adam.load_state_dict(adam)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: Newton–Schulz iterations on (n, m); singular values end in 0.7–1.2.

    Every iteration multiplies by a polynomial of x xᵀ, so those of an oblong matrix run on that small square alone, and
    their product meets the matrix once: half of the time at 6 to 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    if x.shape[1] < 2 * x.shape[0]:
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
    else:
        gram, product = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
        for _ in range(steps):
            factor = a * torch.eye(len(x), dtype=x.dtype, device=x.device) + b * gram + c * gram @ gram
            product, gram = factor @ product, factor @ gram @ factor
        x = product @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) > 1
