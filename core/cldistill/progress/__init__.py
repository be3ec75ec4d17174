"""Progress of long work and its stop: named stages, their live display, signals, worker processes."""
