"""CollectionLoRA (arXiv 2605.25378): PDSR, AOP, TA-FM, TS-DMD, BS-DMD and the fake-score critic."""
