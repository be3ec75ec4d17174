"""`cldistill generate`: pictures edited with the effects of a finished collection."""
