"""The seam between the command ``instructions`` and its makers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CATEGORIES = ("add", "remove", "adjust", "style")
"""Kinds of general instructions (paper, implementation details): add or remove something, adjust the look, restyle."""


@dataclass(frozen=True)
class InstructionRequest:
    """One general instruction that is to be written: drawn by `write_instructions`, answered by an `InstructionMaker`."""

    picture: Path
    category: str
    """One of `CATEGORIES`."""
    seed: int
    """Draw from ``random.Random(seed)``: a function of the run's seed, the picture's name and the instruction's number."""


class InstructionMaker(Protocol):
    """Writes the general stream's instructions for unlabelled pictures (paper: 20 K pictures, instructions by an MLLM)."""

    @property
    def concurrency(self) -> int:
        """Number of instructions that may be asked for at the same time, each in a thread of its own."""

    @property
    def identity(self) -> str:
        """All that an instruction depends on beside its request (a model, a wording's version): part of its key."""

    def instruction(self, request: InstructionRequest) -> str | None:
        """Return one line of text, the same for the same request, or None where a model refuses this picture.

        Raises `cldistill.errors.EndpointError` where nothing can be made for any picture.
        """
