"""Statistics of measured values that several plugins share."""
