"""Public names of the plugin ``collectionlora``, for other built-in plugins."""

from __future__ import annotations

LORA_FILE = "lora-file"
"""Teacher source that reads an adapter file: option ``path``."""
