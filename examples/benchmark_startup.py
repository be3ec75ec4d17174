"""Benchmark of start-up: the commands that need no model, and a run with fifty teachers of 2.2 GB.

    python examples/benchmark_startup.py                                   50 files for Qwen-Image-Edit-2509 at rank 128
    python examples/benchmark_startup.py --teachers 4 --rank 16 --out startup.json

The files have the header of a real one and no data: they are sparse, and take no room on a disk that knows holes.  A start is
a process of its own, which does what `cldistill run` does with teachers before it loads anything: it checks the manifest with
its files, hashes the manifest, and asks each teacher for the digest under which its targets are cached.  That they are is
supposed: then no teacher's weights are read, while the first start reads every byte.  Answers are kept by a file's place, size
and time, in a cache of the benchmark's own.  Wall seconds and seconds of processor are the system's, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cldistill.collection.index import read_index
from cldistill.manifest.check import check_manifest
from cldistill.manifest.resolved import manifest_digest
from cldistill.protocols import KnowsDigest

BASE = {"use": "qwen-image-edit", "options": {"model": "Qwen/Qwen-Image-Edit-2509"}}
PAIRS, GENERAL = "package:cldistill_plugins.effectbench/effects/halftone", "package:cldistill_plugins.miniature/general"

COMMANDS = (
    "--help", "check one-effect --no-files", "check collectionlora-50 --no-files", "plan collectionlora-50 --no-files",
    "plugins", "schema", "init --miniature --force --output {folder}/demo.yaml",
)  # fmt: skip
"""Commands that load no model, and no torch."""


IN_PLACE = ("inspect {collection}", "rename {collection} {effect} renamed", "remove {collection} renamed")
"""The same, of a copy of a collection."""


def write_manifest(folder: Path, teachers: int, rank: int) -> Path:
    """Write teachers and a manifest of the paper's losses."""
    effects = [
        {"name": f"effect-{number}", "prompt": f"make it number {number}", "pairs": PAIRS, "take": 1,
         "teacher": {"use": "lora-file", "options": {"path": str(folder / f"{number}.safetensors")}}}
        for number in range(teachers)
    ]  # fmt: skip
    manifest = {
        "cldistill": 1, "name": "startup", "effects": effects, "base": BASE,
        "router": {"use": "pdsr"}, "prompts": {"use": "aop"},
        "general": {"images": GENERAL, "instructions": f"{GENERAL}/general.jsonl"},
        "losses": [{"use": "bs-dmd"}, {"use": "ts-dmd", "streams": ["effect"]}, {"use": "ta-fm", "streams": ["effect"]},
                   {"use": "fake-score"}],
        "slots": {"student": {"rank": rank}, "critic": {"rank": rank}}, "targets": {"from": "teacher"},
    }  # fmt: skip
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    described = check_manifest(str(file), files=False).description
    for number in range(teachers):
        shapes = {name: described.modules[name] for name in described.targets}
        write_teacher(folder / f"{number}.safetensors", shapes, rank, f"teacher {number}")
    return file


def write_teacher(file: Path, shapes: dict[str, tuple[int, int]], rank: int, title: str) -> None:
    """Write an adapter file in bf16 whose data is a hole."""
    header: dict[str, Any] = {"__metadata__": {"modelspec.title": title}}
    end = 0
    for name, (out, inner) in shapes.items():
        for half, shape in (("A", [rank, inner]), ("B", [out, rank])):
            begin, end = end, end + 2 * shape[0] * shape[1]
            header[f"transformer.{name}.lora_{half}.weight"] = {
                "dtype": "BF16", "shape": shape, "data_offsets": [begin, end],
            }  # fmt: skip
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(stream.tell() + end)


def start(manifest: Path) -> int:
    """Do what a start does with teachers; return how many told their digests without being read."""
    checked = check_manifest(str(manifest))
    manifest_digest(checked)
    context = checked.context(manifest.parent, manifest.parent, weights=False)
    sources = [part.build(context) for part in checked.teachers.values() if part is not None]
    return len({source.digest() for source in sources if isinstance(source, KnowsDigest)})


def timed_start(manifest: Path) -> dict[str, float]:
    """Start in a process of its own; return its seconds."""
    return timed([__file__, "--start", str(manifest)], CLDISTILL_CACHE=str(manifest.parent / "cache"))


def timed(words: Sequence[str], **variables: str) -> dict[str, float]:
    """Run a Python process to its end; return its seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], env={**os.environ, **variables}, check=True, stdout=subprocess.DEVNULL)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "processor_seconds": round(processor, 2)}


def timed_commands(folder: Path, collection: Path | None) -> dict[str, dict[str, float]]:
    """Time the commands that load no model; those of a collection where there is one."""
    wanted, known = COMMANDS, {"folder": str(folder)}
    if collection is not None:
        wanted = (*COMMANDS, *IN_PLACE)
        known["collection"] = str(shutil.copytree(collection, folder / "collection"))
        known["effect"] = read_index(collection).effects[0].name
    return {words: timed(["-m", "cldistill", *(word.format(**known) for word in words.split())]) for words in wanted}


def main() -> None:
    """Write the teachers, start several times, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--teachers", type=int, default=50)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--later", type=int, default=3, help="starts after the first")
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile, on a disk that knows holes")
    parser.add_argument("--collection", type=Path, help="times `inspect`, `rename` and `remove` too, on a copy of it")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start is not None:
        start(given.start)
        return
    with TemporaryDirectory(dir=given.folder) as folder:
        manifest = write_manifest(Path(folder), given.teachers, given.rank)
        size = (manifest.parent / "0.safetensors").stat().st_size
        first, *later = (timed_start(manifest) for _ in range(1 + given.later))
        commands = timed_commands(Path(folder), given.collection)
    starts = {"teachers": given.teachers, "bytes_each": size, "first_start": first, "later_starts": later}
    text = json.dumps({**starts, "commands": commands}, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
