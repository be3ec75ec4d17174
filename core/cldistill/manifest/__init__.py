"""The manifest: YAML with places, its models, its check without torch, its resolved form."""
