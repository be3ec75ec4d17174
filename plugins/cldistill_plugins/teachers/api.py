"""Public names of the plugin ``teachers``, for other built-in plugins."""

from __future__ import annotations

LORA_FILE = "lora-file"
"""Teacher source that reads an adapter file: option ``path``."""
FROM_PAIRS = "from-pairs"
"""Teacher source that trains a LoRA on the effect's pairs; needs no option."""
