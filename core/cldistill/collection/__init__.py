"""Exported collections: writing, reading, inspecting them, and generating with them."""
