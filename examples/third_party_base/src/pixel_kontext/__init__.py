"""A base model for cldistill: FLUX.1-Kontext's transformer, tiny and in pixel space."""
