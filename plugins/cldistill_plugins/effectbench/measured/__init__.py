"""The offline metrics as the engine calls them; the arithmetic is in ``metrics/``."""
