"""`run.log`: what a run said, with the time, in its folder."""
