"""`cldistill init`: a manifest from what lies on the disk."""
