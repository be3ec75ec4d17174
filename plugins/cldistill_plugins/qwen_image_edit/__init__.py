"""Qwen-Image-Edit through diffusers' own classes: the paper's base model, and its miniature."""
