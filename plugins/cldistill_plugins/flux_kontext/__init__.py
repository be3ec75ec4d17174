"""The base `flux-kontext`: FLUX.1-Kontext by diffusers (arrows: this plugin, then `diffusers_base.api`)."""
