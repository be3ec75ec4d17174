"""The two pluggy markers, in a module of their own so that a plugin can import them without the specs."""

from __future__ import annotations

import pluggy

PROJECT = "cldistill"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
