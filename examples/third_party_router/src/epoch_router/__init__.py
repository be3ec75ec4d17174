"""A stream router for cldistill: effects in shuffled epochs, and more of them as the run goes on."""
