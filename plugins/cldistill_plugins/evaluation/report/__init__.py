"""An evaluation as a page to look at: one HTML file that holds everything it shows."""
