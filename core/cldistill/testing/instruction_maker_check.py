"""What an instruction maker promises."""

from __future__ import annotations

from pathlib import Path

from cldistill.component import AnyComponent
from cldistill.protocols import InstructionMaker
from cldistill.records import CATEGORIES, InstructionRequest
from cldistill.testing.conformance import Options, check_component, read_settings, scratch_context
from cldistill.testing.pictures import write_pictures

SEEDS = 3


def check_instruction_maker(component: AnyComponent, options: Options = None, *, fresh: bool = True) -> None:
    """Assert that it writes one line for every category and draw, the same each time, and draws from its request alone.

    ``fresh``: see `cldistill.testing.check_component`.
    """
    checker, _ = check_component(component, "instruction_maker", options, fresh=fresh)
    settings = read_settings(component, options)
    require = checker.require
    with scratch_context() as context:
        maker: InstructionMaker = component.build(settings, context)
        require(
            isinstance(maker.concurrency, int) and maker.concurrency >= 1,
            f"its concurrency must be a whole number of at least 1, not {maker.concurrency!r}",
        )
        require(
            isinstance(maker.identity, str) and maker.identity == component.build(settings, context).identity,
            "its identity must be a text, the same for the same options: it is part of the key of what it writes",
        )
        asked = _requests(write_pictures(context.root / "pictures"))
        before = {request.picture: request.picture.read_bytes() for request in asked}
        with checker.leaves_global_random_alone("draw from random.Random(request.seed)"):
            made = [maker.instruction(request) for request in asked]
        require(all(path.read_bytes() == data for path, data in before.items()), "changed a picture")
        require(
            [maker.instruction(request) for request in reversed(asked)] == made[::-1],
            "the same request gives two instructions, or one call changes the next: a resumed file would not be the same",
        )
        for request, text in zip(asked, made, strict=True):
            fine = text is None or (isinstance(text, str) and text == " ".join(text.split()) and text != "")
            require(fine, f"{request.category}: must give one line of text, trimmed, or None; it gave {text!r}")


def _requests(folder: Path) -> list[InstructionRequest]:
    pictures = sorted(folder.iterdir())
    return [
        InstructionRequest(picture, category, seed)
        for picture in pictures
        for category in CATEGORIES
        for seed in range(SEEDS)
    ]
