"""Trackers (TensorBoard, Weights & Biases, MLflow, ...) as observers of a run, through accelerate."""
