"""Cards that people have, for ``--device``, and sizes of memory as people write them, for ``--memory``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from cldistill.errors import OptionsError, nearest
from cldistill_plugins.planning.fit import Device

MEBIBYTE = 2**20
CARDS: Mapping[str, tuple[str, int, float]] = {
    "a100-40gb": ("NVIDIA A100 40 GB", 40960, 312),
    "a100-80gb": ("NVIDIA A100 80 GB", 81920, 312),
    "a6000": ("NVIDIA RTX A6000", 49140, 155),
    "b200": ("NVIDIA B200", 183359, 2250),
    "gh200": ("NVIDIA GH200 96 GB", 97871, 989),
    "h100-80gb": ("NVIDIA H100 80 GB", 81559, 989),
    "h100-nvl": ("NVIDIA H100 NVL 94 GB", 95830, 835),
    "h200": ("NVIDIA H200", 143771, 989),
    "l4": ("NVIDIA L4", 23034, 121),
    "l40s": ("NVIDIA L40S", 46068, 362),
    "mi300x": ("AMD MI300X", 196592, 1307),
    "rtx-3090": ("NVIDIA GeForce RTX 3090", 24576, 71),
    "rtx-4080": ("NVIDIA GeForce RTX 4080", 16376, 97),
    "rtx-4090": ("NVIDIA GeForce RTX 4090", 24564, 165),
    "rtx-5090": ("NVIDIA GeForce RTX 5090", 32607, 209),
    "rtx-6000-ada": ("NVIDIA RTX 6000 Ada", 49140, 364),
    "rtx-pro-6000": ("NVIDIA RTX PRO 6000 Blackwell", 97887, 504),
    "t4": ("NVIDIA T4", 15360, 65),
    "v100-32gb": ("NVIDIA V100 32 GB", 32768, 125),
}
"""Name for ``--device`` -> its name, its memory in MiB as the driver states it, and dense bf16 (or fp16) TFLOP/s of its data
sheet."""
UNITS = {
    "": 1e9,
    "G": 1e9,
    "GB": 1e9,
    "GIB": 2**30,
    "T": 1e12,
    "TB": 1e12,
    "TIB": 2**40,
    "M": 1e6,
    "MB": 1e6,
    "MIB": 2**20,
}


def known_card(name: str) -> Device:
    """Return a card of the table by its name.

    Raises:
        OptionsError: it is not there; with the nearest name.
    """
    plain = name.lower().replace("_", "-").replace(" ", "-")
    if plain not in CARDS:
        alike = [card for card in CARDS if card.startswith(plain)]
        hint = f"; which of {', '.join(alike)}?" if alike else nearest(plain, CARDS)
        raise OptionsError(
            f"--device {name}: not in the table of cards{hint} It has {', '.join(CARDS)}; for any other give --memory 24GB"
        )
    title, mebibytes, tflops = CARDS[plain]
    return Device(title, float(mebibytes * MEBIBYTE), tflops)


def with_speed(device: Device) -> Device:
    """Return a device that was seen, with the speed of the card of the table that its name names."""
    # The longest name first: "H100 NVL" before "H100".
    for title, mebibytes, tflops in sorted(CARDS.values(), key=lambda card: -len(card[0])):
        words = [word for word in title.removeprefix("NVIDIA ").removeprefix("AMD ").split() if word != "GB"]
        model = " ".join(word for word in words if not word.isdigit() or len(word) > 3)
        near = abs(mebibytes * MEBIBYTE - device.bytes) < 0.1 * device.bytes
        if device.gpu and near and model.lower() in device.name.lower():
            return replace(device, tflops=tflops)
    return device


def memory_size(text: str) -> float:
    """Return bytes of a size such as ``24GB`` (1e9 bytes each) or ``24GiB`` (2**30); a bare number is in GB.

    Raises:
        OptionsError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS or not float(found[1]):
        raise OptionsError(f"--memory {text}: write a size such as 24GB or 79.6GiB")
    return float(found[1]) * UNITS[found[2].upper()]
