"""The wordings of the template maker: category -> sentences with gaps, and what may stand in each gap.

Nobody looks at the picture, so that nothing here presumes what is on it: "the main subject" is always there.
"""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "1"
"""Changes with every wording: it is part of the key of what the templates make."""

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "add": (
        "Add {object} {place}.",
        "Put {object} {place}.",
        "Place {object} {place}, with matching light and shadow.",
        "Insert {object} {place} and keep everything else as it is.",
        "Let {wearable} appear on the main subject.",
        "Add {weather} to the scene.",
        "Frame the picture with {border}.",
        'Write the word "{word}" {place}.',
    ),
    "remove": (
        "Remove {thing}.",
        "Take out {thing}.",
        "Erase {thing} and fill the gap naturally.",
        "Clean the picture up: remove {thing}.",
        "Make the picture simpler by removing {thing}.",
        "Remove the background and leave {plain} behind the main subject.",
    ),
    "adjust": (
        "Make the picture {degree} {quality}.",
        "Change the light to {light}.",
        "Make it look as if it were taken {time}.",
        "Change the weather to {weather}.",
        "Change the season to {season}.",
        "Replace the background with {scene}.",
        "Change the colour of the main subject to {colour}.",
        "Give the picture a {tint} tint.",
        "Make the main subject {size}.",
        "Blur the background {amount}, so that the main subject stands out.",
        "Show the main subject {view}.",
        "Make the main subject look as if it were made of {material}.",
    ),
    "style": (
        "Turn the picture into {style}.",
        "Redraw it as {style}.",
        "Make it look like {style}.",
        "Convert the whole picture to {style}, keeping the composition.",
        "Restyle the picture as {style} in {palette}.",
    ),
}

GAPS: Mapping[str, tuple[str, ...]] = {
    "object": (
        "a red umbrella", "a small wooden table", "a bunch of balloons", "a street lamp", "a potted plant", "a bicycle",
        "a stack of books", "a paper boat", "a vase of sunflowers", "a steaming cup of coffee", "a hot-air balloon",
        "a rainbow", "a full moon", "a flock of birds", "a sleeping cat", "a butterfly", "a lantern", "a wicker basket",
        "a toy robot", "a birthday cake", "a guitar", "a park bench", "a snowman", "a straw hat", "a kite", "a fountain",
        "an old suitcase", "a string of fairy lights", "a signpost", "a small pond",
    ),
    "place": (
        "in the foreground", "in the background", "next to the main subject", "behind the main subject",
        "on the left side", "on the right side", "in the lower left corner", "in the lower right corner",
        "in the upper part of the picture",
    ),
    "wearable": (
        "a woollen scarf", "round glasses", "a party hat", "a flower crown", "sunglasses", "a bow tie", "a small backpack",
        "headphones", "a golden medal", "a raincoat",
    ),
    "weather": ("light rain", "heavy snow", "thick fog", "a thunderstorm", "drifting clouds", "blowing leaves", "bright sun"),
    "border": ("a thin white border", "a wooden frame", "a wreath of leaves", "torn paper edges", "film-strip edges"),
    "word": ("HELLO", "OPEN", "SALE", "WELCOME", "2026", "DREAM"),
    "thing": (
        "everything behind the main subject", "all text and logos", "the shadows", "the reflections",
        "the small distracting objects in the background", "any people in the background",
        "the clutter around the main subject", "whatever draws the eye away from the main subject",
        "scratches, dust and noise", "the haze", "the objects at the edges of the picture", "everything in the foreground "
        "that covers the main subject", "the brightest spots",
        "the largest object beside the main subject",
    ),
    "plain": ("plain white", "a soft grey gradient", "plain black", "a single pastel colour", "a light blue wall"),
    "degree": ("slightly", "a little", "clearly", "much"),
    "amount": ("slightly", "strongly"),
    "quality": (
        "brighter", "darker", "warmer", "cooler", "sharper", "softer", "more colourful", "paler", "richer in contrast",
        "flatter in contrast",
    ),
    "light": (
        "soft window light", "hard midday sun", "candlelight", "neon light", "stage lighting", "light from behind",
        "moonlight", "golden light from the left", "cold light from above",
    ),
    "time": ("at sunrise", "at noon", "at sunset", "during the blue hour", "at night", "on a grey morning"),
    "season": ("spring", "summer", "autumn", "winter"),
    "scene": (
        "a quiet beach", "a snowy mountain", "a busy city street", "a dense forest", "a desert", "a library",
        "a flower meadow", "outer space", "an underwater reef", "a cosy kitchen", "an empty museum hall", "a harbour",
    ),
    "colour": ("red", "deep blue", "emerald green", "yellow", "purple", "white", "black", "orange", "pink", "silver"),
    "tint": ("sepia", "teal and orange", "rose", "cold blue", "faded green", "golden"),
    "size": ("a little larger", "a little smaller", "twice as large", "half as large", "fill the picture"),
    "view": ("from the side", "from behind", "from above", "from below", "from closer up", "from farther away"),
    "material": ("glass", "wood", "marble", "gold", "clay", "paper", "wool", "ice", "chrome", "chocolate"),
    "style": (
        "a watercolour painting", "an oil painting with thick strokes", "a pencil sketch", "a charcoal drawing",
        "a comic panel", "a woodcut print", "a stained-glass window", "pixel art", "a paper collage", "a mosaic of tiles",
        "an ink-wash painting", "a vintage postcard", "a black-and-white film still", "a flat vector illustration",
        "a low-poly 3D render", "a clay animation still", "a children's book illustration", "a pop-art poster",
        "an impressionist painting", "a blueprint", "a chalk drawing on a blackboard", "a pointillist painting",
        "a cross-stitch embroidery", "a double-exposure photo", "an art-deco poster", "a fresco on old plaster",
    ),
    "palette": (
        "pastel colours", "two colours only", "earth tones", "bright primary colours", "shades of blue", "warm autumn colours"
    ),
}  # fmt: skip
