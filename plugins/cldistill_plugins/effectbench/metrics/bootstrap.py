"""Bootstrap intervals over pictures: the engine's own (`cldistill.metrics.bootstrap`), by which every report is made."""

from cldistill.metrics.bootstrap import RESAMPLES, Interval, mean_interval, paired_difference

__all__ = ["RESAMPLES", "Interval", "mean_interval", "paired_difference"]
