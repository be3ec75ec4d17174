"""Shares of a command's work for machines that share nothing but a cache: `api` holds its public names."""
