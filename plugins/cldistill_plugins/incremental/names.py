"""Names under which the parts of this plugin are registered, and which the manifests that ``add`` writes use."""

from __future__ import annotations

ROUTER = "incremental"
"""Stream router: new effects, old ones on a stream of their own, and the general stream."""
RECALL = "recall"
"""Loss term that holds old effects to what they were."""
COLLECTION = "collection"
"""Teacher source: a frozen collection teaches one of its own effects."""
EFFECT, MIXED, REHEARSAL = "effect", "mixed", "rehearsal"
"""Streams of a growing run, beside the general one: new effects, the first phase's batches, and old effects."""
