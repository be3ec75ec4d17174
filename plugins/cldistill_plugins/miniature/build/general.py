"""The general-instruction files of the quickstart: pictures that ship, each with a few edits in one wording.

`general.jsonl` (training pictures) and `general-held-out.jsonl` (held-out pictures, with the name of the edit and its true
result in `truth/`, so that an output can be measured). Paths are relative to the files.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cldistill_plugins.miniature.instructions import INSTRUCTIONS

TRAIN_PICTURES, EDITS_A_PICTURE = 40, 4
HELD_OUT_PICTURES, HELD_OUT_ROUNDS = 40, 3


def write_general(folder: Path) -> None:
    """Write both files into `folder`, beside `pictures/`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "general.jsonl", _training_lines())
    lines = _held_out_lines()
    _write(folder / "general-held-out.jsonl", lines)
    (folder / "truth").mkdir(exist_ok=True)
    for line in lines:
        picture = np.asarray(Image.open(folder / line["image"]).convert("RGB"), dtype=np.uint8)
        Image.fromarray(INSTRUCTIONS[line["edit"]].apply(picture)).save(folder / line["target"], optimize=True)


def _training_lines() -> list[dict[str, str]]:
    """160 lines: every edit ten times, every picture four times, wordings in turn."""
    names = list(INSTRUCTIONS)
    lines = []
    for picture in range(TRAIN_PICTURES):
        # Four pictures meet all sixteen edits; the shift changes from four to four, so that they group differently.
        turn = picture * EDITS_A_PICTURE // len(names)
        for place in range(EDITS_A_PICTURE):
            wordings = INSTRUCTIONS[names[(picture * EDITS_A_PICTURE + place + turn) % len(names)]].wordings
            instruction = wordings[turn % len(wordings)]
            lines.append({"image": f"../pictures/train/{picture:03d}.png", "instruction": instruction})
    return lines


def _held_out_lines() -> list[dict[str, str]]:
    """48 lines: every edit three times, on different pictures."""
    lines = []
    for place in range(len(INSTRUCTIONS) * HELD_OUT_ROUNDS):
        name = list(INSTRUCTIONS)[place % len(INSTRUCTIONS)]
        wordings = INSTRUCTIONS[name].wordings
        lines.append(
            {
                "image": f"../pictures/held-out/{place % HELD_OUT_PICTURES:03d}.png",
                "instruction": wordings[place // len(INSTRUCTIONS) % len(wordings)],
                "edit": name,
                "target": f"truth/{place:03d}.png",
            }
        )
    return lines


def _write(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
