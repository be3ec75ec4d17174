"""TensorBoard as an observer of a run."""
