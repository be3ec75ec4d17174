"""Public names of the plugin ``using``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.using.job import JOIN, Edit, file_name, indices, read_edits
from cldistill_plugins.using.mounted import Mounted
from cldistill_plugins.using.options import BaseOption, CollectionArgument, DeviceOption
from cldistill_plugins.using.splits import judge_groups

__all__ = [
    "JOIN",
    "BaseOption",
    "CollectionArgument",
    "DeviceOption",
    "Edit",
    "Mounted",
    "file_name",
    "indices",
    "judge_groups",
    "read_edits",
]
