"""The plan of a run before it starts: forwards, adapter sizes, memory and disk, and how they are printed."""
