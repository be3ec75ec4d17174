"""Pictures, pairs and instructions as they lie on people's disks, read for the core (entry point group ``cldistill.data``)."""
