"""Public names of the plugin ``generation``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.generation.job import JOIN, Edit, file_name, indices, read_edits
from cldistill_plugins.generation.mounted import Mounted
from cldistill_plugins.generation.options import BaseOption, CollectionArgument, DeviceOption
from cldistill_plugins.generation.splits import PathInside, StoredGroup, StoredSplit, read_split

__all__ = [
    "JOIN",
    "BaseOption",
    "CollectionArgument",
    "DeviceOption",
    "Edit",
    "Mounted",
    "PathInside",
    "StoredGroup",
    "StoredSplit",
    "file_name",
    "indices",
    "read_edits",
    "read_split",
]
