"""EffectBench: real effects whose truth is known, and metrics that need no hub."""
