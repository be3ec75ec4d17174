"""Files on disk: atomic writing, hashing, headers of safetensors files, the cache of tensors."""
