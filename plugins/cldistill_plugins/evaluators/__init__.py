"""Evaluators that need weights or an endpoint, and makers of general instructions."""
