"""The live terminal display of a training run."""
