"""The data that a run trains on: items found on disk, their encodings, batches, and the effects' teachers."""
