"""Pictures made by a network: samplers, the image generator, teachers' targets, labelled grids."""
