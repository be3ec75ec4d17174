"""A loss term for cldistill that weighs fine detail."""
