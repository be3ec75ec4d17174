"""The command ``push``, registered: nothing here imports huggingface_hub."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``push``."""
    return [
        Command(
            "push",
            "Upload a collection to the Hugging Face hub, with a card that names its base and licence.",
            "cldistill_plugins.hub.command:push",
        )
    ]
