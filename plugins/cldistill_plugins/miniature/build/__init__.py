"""Everything that makes the miniature base from scratch: `python -m cldistill_plugins.miniature.build --work DIR`."""
