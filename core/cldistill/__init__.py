"""The engine: kinds of parts, and how a run goes. Nothing in here names a plugin."""
