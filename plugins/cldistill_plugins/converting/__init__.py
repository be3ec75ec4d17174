"""``cldistill convert``: adapters that are not mounted (LoHa, DoRA, weight differences, fused projections) as plain LoRAs."""
