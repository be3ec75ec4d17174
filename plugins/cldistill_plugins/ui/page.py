"""The page, laid out with gradio: picture and effects at the left, before and after under a slider at the right."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr

from cldistill.data.items import open_picture
from cldistill.errors import CldistillError
from cldistill_plugins.ui.result import EMPTY, render_result, render_words
from cldistill_plugins.ui.studio import Made, Studio

HEAD = '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
ALONE, TOGETHER = "each on its own", "all on one picture"
MOST_SEED = 2**31 - 1
MOST_STEPS = 100
TILE = 144
"""Side of an effect's sample on its tile, in pixels of the file."""


def build_page(studio: Studio) -> gr.Blocks:
    """Return the page of a collection; it is served by `cldistill_plugins.ui.serve`."""
    with gr.Blocks(title=f"{studio.title} · cldistill", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_header(studio), elem_id="head")
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(elem_id="controls", scale=0, min_width=300):
                picture = gr.Image(
                    type="filepath", sources=["upload"], label="Picture", elem_id="picture", height=172,
                    buttons=[], image_mode=None,
                )  # fmt: skip
                effects = gr.CheckboxGroup(
                    [effect.name for effect in studio.effects], label="Effects", elem_id="effects",
                    value=[studio.effects[0].name], info="One or several.",
                )  # fmt: skip
                how = gr.Radio([ALONE, TOGETHER], value=ALONE, label="Several effects", elem_id="how", visible=False)
                with gr.Row(elem_id="numbers"):
                    steps = gr.Number(
                        studio.steps, label="Steps", precision=0, minimum=1, maximum=MOST_STEPS, elem_id="steps",
                        min_width=80, buttons=[],
                    )  # fmt: skip
                    seed = gr.Number(
                        0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed", min_width=90,
                        buttons=[],
                    )  # fmt: skip
                    dice = gr.Button("New seed", elem_id="dice", min_width=90)
                go = gr.Button("Apply", variant="primary", elem_id="go")
            with gr.Column(elem_id="stage", scale=1, min_width=300):
                result = gr.HTML(
                    EMPTY,
                    elem_id="result",
                    js_on_load=_asset("result.js"),
                    apply_default_css=False,
                )
        _connect(studio, picture, effects, how, steps, seed, dice, go, result)
    return page


def _connect(
    studio: Studio, picture: Any, effects: Any, how: Any, steps: Any, seed: Any, dice: Any, go: Any, result: Any
) -> None:
    private: dict[str, Any] = {"api_visibility": "private"}
    effects.change(
        lambda chosen: gr.Radio(visible=len(chosen) > 1 and not studio.split), effects, how, show_progress="hidden", **private
    )  # fmt: skip
    dice.click(lambda: random.SystemRandom().randrange(MOST_SEED), None, seed, show_progress="hidden", **private)

    def apply(
        file: str | None, chosen: Sequence[str], said: str, count: float | None, number: float | None
    ) -> Iterator[str]:
        yield from edit(
            studio, file, chosen, said == TOGETHER and len(chosen) > 1, int(count or studio.steps), int(number or 0)
        )

    go.click(
        apply, [picture, effects, how, steps, seed], result, concurrency_limit=1, show_progress="hidden",
        trigger_mode="once", **private,
    )  # fmt: skip


def edit(
    studio: Studio, file: str | None, chosen: Sequence[str], together: bool, steps: int, seed: int
) -> Iterator[str]:
    """Yield what the page shows while the pictures are made: each appears as soon as it is there."""
    if file is None:
        yield render_words("Drop a picture first, or choose one.", wrong=True)
        return
    made: list[Made] = []
    try:
        order = [effect.name for effect in studio.effects if effect.name in chosen]
        edits = studio.edits(order, together)
        before = studio.source(Path(file), Path(file).name)
        yield render_result(before, made, [each.name for each in edits], seed, steps)
        for each in studio.make(Path(file), Path(file).name, edits, seed, steps):
            made.append(each)
            yield render_result(before, made, [each.name for each in edits], seed, steps)
    except CldistillError as error:
        yield render_words(str(error).replace(file, Path(file).name), wrong=True)
    except OSError as error:
        yield render_words(
            f"The picture cannot be kept: {error.strerror or error}. Make room in {studio.folder}.", wrong=True
        )


def theme() -> Any:
    """Return gradio's plain theme in the fonts of the reader's own system: nothing is fetched from elsewhere."""
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="zinc", radius_size="lg", font=fonts, font_mono=["ui-monospace", "monospace"]
    )


def style(studio: Studio) -> str:
    """Return the page's CSS, with a picture on the tile of every effect that has a sample."""
    tiles = []
    for number, effect in enumerate(studio.effects, start=1):
        if effect.name in studio.samples:
            tiles.append(
                f"#effects label:nth-of-type({number})::before {{ background-image: url({_tile(studio, effect.name)}) }}"
            )
    words = ["#effects label::before { display: none }"] if not tiles else []
    return "\n".join([_asset("page.css"), *words, *tiles])


def _tile(studio: Studio, effect: str) -> str:
    picture, buffer = open_picture(studio.samples[effect]), BytesIO()
    picture.thumbnail((TILE, TILE))
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _header(studio: Studio) -> str:
    from html import escape

    count = len(studio.effects)
    return f"<h1>{escape(studio.title)}</h1><p>{count} effect{'s' if count > 1 else ''} in one LoRA, {studio.steps} steps</p>"


def _asset(name: str) -> str:
    return files("cldistill_plugins.ui").joinpath("assets", name).read_text(encoding="utf-8")
