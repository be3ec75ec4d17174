"""`cldistill plan`: what a run is, takes and costs, before anything is loaded."""
