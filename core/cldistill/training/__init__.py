"""The training loop: a run's record, one generator step, optimisers, checkpoints, observers."""
