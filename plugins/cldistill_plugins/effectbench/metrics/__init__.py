"""Offline evaluation: how near an output is to an effect's truth, measured without any hub or network."""
