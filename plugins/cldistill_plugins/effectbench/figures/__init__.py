"""The paper's Figures 4, 5 and 9 (arXiv 2605.25378), measured on runs: ``python -m cldistill_plugins.effectbench.figures``."""
