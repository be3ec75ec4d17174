"""The manifest's JSON schema, for completion in editors."""
