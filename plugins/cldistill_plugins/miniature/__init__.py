"""Qwen-Image-Edit in miniature: a complete stock pipeline, the pictures it edits, and the command that makes both."""
