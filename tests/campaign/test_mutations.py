"""Mutated manifests and adapter files: each is accepted or refused in words of our own, whatever was done to it.

Short here; ``CLDISTILL_MUTATIONS=10000 CLDISTILL_MUTATION_SEED=1`` tries more of each, and others.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save

from cldistill.adapters.files import fit, load_fitted
from cldistill.errors import CONTROL, CldistillError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.prompts import preview_prompts
from cldistill.manifest.resolved import resolved_text
from cldistill.testing import catalogue_with
from cldistill.testing.runs import tiny_manifest
from cldistill.weights import AdapterState

COUNT = int(os.environ.get("CLDISTILL_MUTATIONS", "150"))
SEED = int(os.environ.get("CLDISTILL_MUTATION_SEED", "0"))
VALUES: tuple[Any, ...] = (
    None, True, [], {}, [[]], [None], {"": None}, {"use": None}, {"use": []}, {"use": "x", "options": 5}, 0, -1, 2**64, 10**400,
    float("nan"), float("inf"), 1e308, 5e-324, "", " ", "\0", "a\0b", "\x1b[31mred", "[/red]", "\u202e", "\ud800",
    "x" * 100_000, "../" * 3000, "~", "~nobody/x", "/dev/zero", "/dev/stdin", "/proc/self/mem", "package:", "package:os/x",
    "package:..", "package:\0/x", "http://user:secret@example.org/", "C:\\x", "slot:x",
    "run:../../x", "${HOME}", "{0.__class__}", "(a+)+$",
)  # fmt: skip
LINES = (
    "&a [*a]", "*nobody", "!!python/object/apply:os.system ['true']", "!!int x", '"\\ud800"', '"\\x1b]0;t\\x07"', "9" * 5000,
    "[" * 300, "{" * 300, "? [a]", "<<: *x", "%YAML 9.9", "\t- x", "'", '"\\', "extends: quickstart", "extends: m.yaml",
    "effects: /dev/zero",
)  # fmt: skip
pytestmark = pytest.mark.slow


def spots(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a tree but its root."""
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in members:
        yield (*path, key)
        yield from spots(inner, (*path, key))


def mutated(manifest: dict[str, Any], dice: random.Random) -> bytes:
    """Return a manifest in which a value, a key, a line or some bytes are others."""
    tree, kind = copy.deepcopy(manifest), dice.choice(("value", "value", "key", "twice", "line", "bytes"))
    *above, last = dice.choice(list(spots(tree)))
    parent = tree
    for part in above:
        parent = parent[part]
    if kind == "value":
        parent[last] = dice.choice(VALUES)
    elif kind == "key" and isinstance(parent, dict):
        parent[dice.choice([value for value in VALUES if isinstance(value, str)])] = parent.pop(last)
    elif kind == "twice":
        parent[last] = [copy.deepcopy(parent[last])] * 200
    raw = yaml.safe_dump(tree, sort_keys=False, allow_unicode=False).encode("utf-8", "surrogatepass")
    lines = raw.split(b"\n")
    if kind == "line":
        lines.insert(dice.randrange(len(lines)), dice.choice(LINES).encode())
    if kind == "bytes":
        for _ in range(dice.choice((1, 3, 20))):
            line = dice.randrange(len(lines))
            lines[line] = lines[line][: dice.randrange(len(lines[line]) + 1)] + bytes([dice.randrange(256)])
    return b"\n".join(lines)


def told(error: CldistillError, name: str) -> None:
    """See that a refusal can be printed, says something, and has an end."""
    text = str(error)
    assert text.encode() and len(text) < 20_000 and not CONTROL.search(text.replace("\t", " ")), (name, text[:500])


def test_a_mutated_manifest_is_accepted_or_refused_in_words(tmp_path: Path) -> None:
    catalogue, dice = catalogue_with(), random.Random(SEED)
    manifest, path = tiny_manifest(tmp_path), tmp_path / "mutated.yaml"
    outcomes = {True: 0, False: 0}
    for number in range(-1, COUNT):
        raw = yaml.safe_dump(manifest).encode() if number < 0 else mutated(manifest, dice)
        path.write_bytes(raw)
        try:
            checked = check_manifest(str(path), catalogue=catalogue)
            preview_prompts(checked)
            resolved_text(checked)
            outcomes[True] += 1
        except CldistillError as error:
            assert number >= 0, error
            told(error, f"seed {SEED}, case {number}: {raw[:2000]!r}")
            outcomes[False] += 1
    assert outcomes[True] > COUNT // 50 and outcomes[False] > COUNT // 5  # else nothing was tried


def spoilt(good: bytes, dice: random.Random) -> bytes:
    """Return an adapter file with a broken header, other numbers, or a piece missing."""
    size = int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8 : 8 + size]), good[8 + size :]
    name = dice.choice([key for key in header if key != "__metadata__"])
    kind = dice.choice(
        ("cut", "bit", "length", "offsets", "dtype", "shape", "rename", "drop", "alpha", "metadata", "numbers")
    )
    if kind == "cut":
        return good[: dice.randrange(len(good))]
    if kind == "bit":
        place = dice.randrange(8 + size)
        return good[:place] + bytes([good[place] ^ 1 << dice.randrange(8)]) + good[place + 1 :]
    if kind == "length":
        return dice.choice((0, 1, 2**31, 2**63, 2**64 - 1, size - 1)).to_bytes(8, "little") + good[8:]
    if kind == "offsets":
        header[name]["data_offsets"] = dice.choice(
            ([8, 0], [-1, 4], [0, 2**60], [], [0, 4, 8], ["0", "4"], None, [1.5, 3])
        )
    elif kind == "dtype":
        header[name]["dtype"] = dice.choice(("F64", "I32", "BOOL", "F8_E4M3", "X", "", None, 5, ["F32"], "F32\x1b[31m"))
    elif kind == "shape":
        header[name]["shape"] = dice.choice(
            ([], [0, 0], [-2, -4], [2**31, 2**31], [10**30], ["a"], None, [1.0], [1] * 2000)
        )
    elif kind == "rename":
        header[
            dice.choice(("", "x", name.upper(), f"{name}\x1b[31m", "module." * 3000 + name, "\ud800.lora_A.weight"))
        ] = header.pop(name)
    elif kind == "drop":
        del header[name]
    elif kind == "alpha":
        header[f"{name.rsplit('.lora_', 1)[0]}.alpha"] = {
            "dtype": "F32",
            "shape": [],
            "data_offsets": [len(data), len(data) + 4],
        }
        data += torch.tensor(dice.choice((float("nan"), float("inf"), 0.0, -1.0))).numpy().tobytes()
    elif kind == "metadata":
        header["__metadata__"] = dice.choice(
            (5, [], {"a": 5}, {"format": "pt\x1b[31m"}, {"lora_alpha": "nan"}, {"x": "[" * 100_000})
        )
    else:
        begin, end = header[name]["data_offsets"]
        data = (
            data[:begin]
            + dice.choice((b"\xff", b"\x7f\x80", b"\x00")) * ((end - begin) // 2)
            + data[end - (end - begin) % 2 :]
        )
        data = data[: len(good) - 8 - size].ljust(len(good) - 8 - size, b"\xff")
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def finite(state: AdapterState) -> bool:
    """Return whether all numbers of an adapter are floats and finite."""
    values = [value for weights in state.modules.values() for value in vars(weights).values()]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return all(value.is_floating_point() and bool(value.float().isfinite().all()) for value in tensors)


def test_a_spoilt_adapter_is_refused_in_words_or_loads_with_finite_numbers(tmp_path: Path) -> None:
    dice, shapes = random.Random(SEED), {f"block.{index}.to_q": (4, 4) for index in range(3)}
    good = save(
        {f"{n}.lora_{s}.weight": torch.ones(2, 4) if s == "A" else torch.ones(4, 2) for n in shapes for s in "AB"}
    )
    path, loaded = tmp_path / "spoilt.safetensors", 0
    for number in range(-1, COUNT):
        raw = good if number < 0 else spoilt(good, dice)
        path.write_bytes(raw)
        try:
            fitted = fit(path, shapes)
        except CldistillError as error:
            assert number >= 0, error
            told(error, f"seed {SEED}, case {number}: {raw[:2000]!r}")
            continue
        assert finite(load_fitted(fitted)), (SEED, number, raw[:2000])
        loaded += 1
    assert 0 < loaded < COUNT
