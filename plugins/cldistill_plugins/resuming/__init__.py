"""Going on with a run: what may have changed since, and what is refused."""
