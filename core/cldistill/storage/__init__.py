"""Files on disk: atomic writing, hashing, the cache of tensors, the store of measured values."""
