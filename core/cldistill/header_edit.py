"""Another header for a safetensors file whose tensors stay as they are, byte for byte (torch-free)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_with_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copy ``source`` to ``target`` with other metadata, in pieces: a file of gigabytes never lies in memory.

    A safetensors file is 8 bytes of length (little endian), so much JSON, then data whose offsets count from its own start.
    """
    with source.open("rb") as old, target.open("wb") as new:
        header = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the tensors stay aligned
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new, 1024 * 1024)
