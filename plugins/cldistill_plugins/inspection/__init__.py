"""`cldistill inspect`: an adapter or collection, described by its header."""
