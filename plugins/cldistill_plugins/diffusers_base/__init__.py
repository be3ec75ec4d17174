"""Shared by bases over a pipeline folder of diffusers; registers nothing, lends `cldistill_plugins.diffusers_base.api`."""
