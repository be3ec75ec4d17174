"""Manifests and effect catalogues that ship with cldistill."""
