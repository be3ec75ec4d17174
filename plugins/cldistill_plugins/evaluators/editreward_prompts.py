"""The prompts that EditReward's weights were trained with, read (not run) from a checkout of its repository."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cldistill.errors import NotMeasured

FOLDERS = (Path("EditReward", "dataset"), Path("dataset"))
"""Folders in which the prompt files are looked for, from the checkout's root or from the Python package in it."""
TOKEN = "<|Reward|>"
"""The token at whose place the heads read the reward."""
GAP = "{text_prompt}"


@dataclass(frozen=True)
class RewardPrompts:
    """The questions to the reward model, read from its checkout by `read_prompts`: one text for each of its two heads."""

    following: str
    """Instruction following and semantic fidelity, for the first head; with a gap for the instruction."""
    quality: str
    """Visual quality and realism, for the second."""
    ending: str
    """The end of both texts, with the reward token."""

    def texts(self, instruction: str) -> tuple[str, str]:
        """Return both whole texts."""
        return tuple(  # type: ignore[return-value]
            prompt.replace(GAP, instruction) + self.ending for prompt in (self.following, self.quality)
        )

    @property
    def digest(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256("\0".join((self.following, self.quality, self.ending)).encode()).hexdigest()


def read_prompts(repository: Path) -> RewardPrompts:
    """Return the prompts of a checkout.

    Raises:
        NotMeasured: it is none, or of a version in which they are called otherwise.
    """
    folder = next((repository / inner for inner in FOLDERS if (repository / inner / "prompts.py").is_file()), None)
    if folder is None:
        raise NotMeasured(
            f"{repository} is no checkout of TIGER-AI-Lab/EditReward: it has no {FOLDERS[0] / 'prompts.py'}"
        )
    found = _texts(folder / "prompts.py") | _texts(folder / "data_collator_qwen_edit.py")
    names = ("INSTRUCTION_EDIT_FOLLOWING", "INSTRUCTION_EDIT_QUALITY", "prompt_with_special_token")
    missing = [name for name in names if name not in found]
    if missing:
        raise NotMeasured(f"{folder} does not define {', '.join(missing)}: another version of EditReward?")
    prompts = RewardPrompts(*(found[name] for name in names))
    if GAP not in prompts.following or GAP not in prompts.quality or prompts.ending.count(TOKEN) != 1:
        raise NotMeasured(f"the prompts in {folder} have no {GAP} or not one {TOKEN}: another version of EditReward?")
    return prompts


def _texts(file: Path) -> dict[str, str]:
    """Return the plain texts that a Python file gives names to; nothing in it is run."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return {}
    return {
        target.id: node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
