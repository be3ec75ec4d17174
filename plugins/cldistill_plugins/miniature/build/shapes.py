"""The shapes of picture that the miniature knows: what the stock pipeline makes of any picture at an area of 128² pixels.

`calculate_dimensions` keeps the area and rounds both sides to multiples of 32. So below an aspect of 1 : 2.56 these five come
up, and in the sliver from 1.27 to 1.30 one of 160×128.
"""

from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

AREA = 128 * 128
EYE_AREA = 56 * 56
SHAPES: dict[tuple[int, int], float] = {
    (128, 128): 0.46,
    (160, 96): 0.21,
    (96, 160): 0.21,
    (192, 96): 0.06,
    (96, 192): 0.06,
}
"""(width, height) in pixels → share of the pictures that the transformer trains on."""
PIXELS_A_TOKEN = 16


def shape_of(width: int, height: int) -> tuple[int, int]:
    """The (width, height) to which the stock pipeline resizes a picture of these sides."""
    wide, high = calculate_dimensions(AREA, width / height)
    return int(wide), int(high)


def eye_size(width: int, height: int) -> tuple[int, int]:
    """The (width, height) at which the text encoder sees a picture of these sides."""
    wide, high = calculate_dimensions(EYE_AREA, width / height)
    return int(wide), int(high)


def token_grid(width: int, height: int) -> tuple[int, int, int]:
    """Frames, rows and columns of tokens of a picture, as the stock pipeline passes them."""
    return 1, height // PIXELS_A_TOKEN, width // PIXELS_A_TOKEN
