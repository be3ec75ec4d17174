"""Public names of the plugin ``teachers``, for other built-in plugins."""

from __future__ import annotations

FROM_PAIRS = "from-pairs"
"""Teacher source that trains a LoRA on the effect's pairs; needs no option."""
