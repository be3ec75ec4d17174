"""The errors that people see.

Every one is a ``ValueError`` whose text says what is wrong, where it is and what to do about it; the command line prints
that text without a traceback.  ``assert`` is kept for invariants of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 10_000  # characters of one message; what is quoted of a file may have any length
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SECRETS = re.compile(
    r"(?<=://)[^\s/?#'\"]+(?=@)"  # name and password of an address
    r"|(?<=\?)[^\s?#'\"=]+=[^\s#'\"]+"  # its query
    r"|\b(?:sk-|hf_|gh[opsu]_|xox[abp]-|AKIA)[\w-]{8,}"  # keys of well-known services
)


def readable(text: str) -> str:
    """Return a text as it can be shown: control characters written out, secrets masked, its middle cut where it is long."""
    text = text[: 5 * LONGEST] + text[5 * LONGEST :][-5 * LONGEST :]  # of a whole file's repr enough to mask, and quick
    text = _SECRETS.sub("***", text)  # before the cut that is shown could halve one
    text = "\n".join(f"{line[:1400]} [...] {line[-500:]}" if len(line) > 2000 else line for line in text.split("\n"))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class CldistillError(ValueError):
    """Base of all user errors: the command line shows the message alone, made `readable`, and exits with 2."""

    def __str__(self) -> str:
        """Return the message as a terminal may show it."""
        return readable(super().__str__())


class ManifestError(CldistillError):
    """A manifest is wrong: the message has file, line, key path, the value and the nearest valid name."""


class OptionsError(ManifestError):
    """The ``options`` of one part do not fit its settings."""


class PluginLoadError(CldistillError):
    """A manifest needs a component that no working plugin offers; quotes the first plugin failure."""


class AdapterFormatError(CldistillError):
    """An adapter file cannot be used: unknown keys, DoRA, shapes or modules that the base does not have."""


class UnsafePathError(CldistillError):
    """A path that a file names leads out of the file's folder, or to what is neither a plain file nor a folder."""


class CheckpointError(CldistillError):
    """A checkpoint is damaged, half-written or belongs to another manifest."""


class DataError(CldistillError):
    """Pictures, pairs or instructions are missing or unreadable."""


class CollectionError(CldistillError):
    """An exported collection is damaged, or was asked for an effect that it does not hold."""


class NonFiniteError(CldistillError):
    """Too many steps in a row had non-finite losses or gradients."""


class Stopped(CldistillError):  # noqa: N818 (nothing went wrong)
    """Somebody asked the run to stop before its loop began; everything done so far is saved."""


class LaunchError(CldistillError):
    """The processes of a run were started in a way that it cannot work with."""


class PluginError(CldistillError):
    """A part does at run time what its kind must not do; names the part."""


class EndpointError(CldistillError):
    """A remote endpoint (a VLM) did not give a usable answer."""


class NotMeasured(CldistillError):  # noqa: N818 (nothing went wrong)
    """A metric's weights, packages or endpoint are absent: raised by its builder or its call.

    The report lists the metric with the ``reason`` under ``not_measured``, and everything else goes on.  A setting that is
    wrong is an error all the same, and no metric ever measures something else under its own name instead.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = readable(reason)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name nearest to ``name``, else a list of what is valid."""
    names = sorted(valid)
    close = get_close_matches(name[:100], names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid: {', '.join(names)}" if names else ""
