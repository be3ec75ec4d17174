"""The base `flux2-klein`: FLUX.2-klein-base by diffusers (arrows: this plugin, then `diffusers_base.api`)."""
