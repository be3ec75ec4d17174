"""Deployment: how many files a bank of effects needs, which effects share one, and what it costs to find the right one."""
