"""The right side of the page as HTML: before and after under one slider, a tab for each picture, a link that saves it.

The slider is the browser's own: arrow keys, Home and End move it, and so does a finger.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from cldistill_plugins.ui.studio import Made

FILES = "/gradio_api/file="
EMPTY = (
    '<div class="empty"><p>Drop a picture, choose effects, and press <b>Apply</b>.</p>'
    "<p>Before and after appear here, under a slider.</p></div>"
)


def render_words(text: str, *, wrong: bool = False) -> str:
    """Return a sentence in place of pictures."""
    return f'<div class="empty{" wrong" if wrong else ""}" role="{"alert" if wrong else "status"}"><p>{escape(text)}</p></div>'


def render_result(before: Path, made: Sequence[Made], wanted: Sequence[str], seed: int, steps: int) -> str:
    """Return the comparison of what is made so far; the newest is shown."""
    status = _status(made, wanted)
    if not made:
        return f'<div class="waiting" data-run="{_run(before)}">{_picture(before, "the picture before", "plain")}</div>{status}'
    newest = len(made) - 1
    panels = "".join(_panel(before, each, number == newest, seed, steps) for number, each in enumerate(made))
    return f'{_tabs(made, newest)}<div class="panels" data-run="{_run(before)}">{panels}</div>{status}'


def _tabs(made: Sequence[Made], shown: int) -> str:
    if len(made) < 2:
        return ""
    tabs = "".join(
        f'<button type="button" role="tab" aria-selected="{str(number == shown).lower()}" '
        f'tabindex="{0 if number == shown else -1}"><img alt="" src="{_url(each.file)}">'
        f"<span>{escape(_title(each))}</span></button>"
        for number, each in enumerate(made)
    )
    return f'<div class="tabs" role="tablist" aria-label="Results">{tabs}</div>'


def _panel(before: Path, made: Made, shown: bool, seed: int, steps: int) -> str:
    with Image.open(made.file) as picture:
        width, height = picture.size
    name = escape(_title(made))
    return (
        f'<figure class="panel" role="tabpanel" aria-label="{name}"{"" if shown else " hidden"} '
        f'style="--ratio: {width / height:.5f}"><div class="compare" style="--at: 50%">'
        f"{_picture(made.file, f'after: {name}', 'after')}{_picture(before, 'before', 'before')}"
        '<span class="tag left" aria-hidden="true">before</span><span class="tag right" aria-hidden="true">after</span>'
        '<span class="line" aria-hidden="true"></span>'
        f'<input type="range" min="0" max="100" step="1" value="50" aria-label="Before and after: {name}"></div>'
        f"<figcaption><div><b>{name}</b><span>{width} × {height} · {steps} steps · seed {seed}</span></div>"
        f'<a class="save" href="{_url(made.file)}" download="{escape(made.file.name)}">Save</a></figcaption></figure>'
    )


def _status(made: Sequence[Made], wanted: Sequence[str]) -> str:
    if len(made) == len(wanted):
        count = f"{len(made)} pictures are" if len(made) > 1 else "The picture is"
        return f'<p class="status done" role="status">{count} ready.</p>'
    turn = f" ({len(made) + 1} of {len(wanted)})" if len(wanted) > 1 else ""
    name = escape(wanted[len(made)].replace("+", " + "))
    return f'<p class="status" role="status"><i aria-hidden="true"></i>Making {name}{turn} …</p>'


def _picture(file: Path, alt: str, kind: str) -> str:
    return f'<img class="{kind}" alt="{alt}" src="{_url(file)}" draggable="false">'


def _run(before: Path) -> str:
    """Return what tells the pictures of one press of the button from the next one's."""
    return escape(before.parent.name)


def _title(made: Made) -> str:
    return made.name.replace("+", " + ")


def _url(file: Path) -> str:
    return escape(FILES + quote(str(file)))
