"""Do the losses and the router's streams fit together?  From their descriptions alone."""

from __future__ import annotations

from collections.abc import Iterator

from cldistill.checked import STUDENT, CheckedLoss, CheckedManifest
from cldistill.errors import nearest
from cldistill.manifest_problems import show


def loss_streams(checked: CheckedManifest, index: int, loss: CheckedLoss) -> Iterator[str]:
    """Yield one line for every stream of a loss that the router or the loss itself does not know, or cannot teach."""
    yield from _names(checked, index, loss)
    yield from _mixed_streams(checked, index, loss)


def untaught_streams(checked: CheckedManifest) -> Iterator[str]:
    """A stream on which no loss ever trains the student makes updates that leave it as it is."""
    router, end = checked.router, checked.manifest.train.generator_steps
    for stream in sorted(router.needs.streams or ()):
        until = router.needs.mixed.get(stream)
        teaching = (
            loss
            for loss in checked.losses
            if loss.slot == STUDENT and loss.weight > 0 and (loss.streams is None or stream in loss.streams)
            if checked.meets(stream, loss.from_step, end if loss.until_step is None else loss.until_step)
        )
        if STUDENT in checked.manifest.slots and checked.meets(stream, 0, end) and next(teaching, None) is None:
            yield (
                f"{checked.file.where('losses')}: none trains the {STUDENT} on the stream {stream!r}, which the router "
                f"{router.name} yields{'' if until is None else f' until step {until}'}; add the stream to a loss, or give "
                "it no share in the router"
            )


def _names(checked: CheckedManifest, index: int, loss: CheckedLoss) -> Iterator[str]:
    file, routed, made_for = checked.file, checked.router.needs.streams, loss.part.needs.streams
    written = checked.manifest.losses[index].streams
    for position, stream in enumerate(written or ()):
        where = file.where("losses", index, "streams", position)
        if routed is not None and stream not in routed:
            yield f"{where}: the router {checked.router.name} yields no such stream ({show(stream)})" + nearest(
                stream, routed
            )
        elif made_for is not None and stream not in made_for:
            yield f"{where}: {loss.part.name} is not made for this stream ({show(stream)})" + nearest(stream, made_for)
    if not written and made_for is not None and routed is not None and not made_for & routed:
        yield (
            f"{file.where('losses', index)}: {loss.part.name} is made for the streams {sorted(made_for)}, but the "
            f"router {checked.router.name} yields {sorted(routed)}"
        )


def _mixed_streams(checked: CheckedManifest, index: int, loss: CheckedLoss) -> Iterator[str]:
    """A batch that mixes pools has no teacher: a loss that asks for one must start later, or keep to other streams."""
    router, written = checked.router, checked.manifest.losses[index].streams
    if not loss.part.needs.teacher:
        return
    for stream, until in sorted(router.needs.mixed.items()):
        meets = loss.streams is None or stream in loss.streams
        if not meets or (until is not None and loss.from_step >= until):
            continue
        others = sorted((loss.streams or router.needs.streams or frozenset()) - router.needs.mixed.keys())
        advice = [f"streams: [{', '.join(others)}]"] if others else []
        advice += (
            [f"from_step: {until}"] if until is not None and until < checked.manifest.train.generator_steps else []
        )
        where = checked.file.where("losses", index, *(() if written is None else ("streams", written.index(stream))))
        yield (
            f"{where}: {loss.part.name} asks the teacher, and a batch of the stream {stream!r}, which {router.name} yields "
            f"{'always' if until is None else f'until step {until}'}, mixes several effects and has none"
            f"{'; give it ' if advice else ''}{' or '.join(f'`{text}`' for text in advice)}"
        )
