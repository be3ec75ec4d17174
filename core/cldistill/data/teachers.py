"""The teachers of a run: one adapter an effect, fetched when it is mounted, the last few kept in host memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from cldistill.weights import AdapterState

KEEP = 8


class TeacherBank:
    """Effect -> frozen adapter (None where the bare base teaches); ``fetch`` is called again after an eviction.

    ``known``: effect -> its digest, of those whose source tells it without reading the adapter.
    """

    def __init__(
        self, fetch: Mapping[str, Callable[[], AdapterState | None]], keep: int = KEEP,
        known: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:  # fmt: skip
        self._known = known or {}
        self._fetch = lru_cache(maxsize=keep)(lambda effect: fetch[effect]())
        self._digests: dict[str, str | None] = {}

    def state(self, effect: str) -> AdapterState | None:
        """Return the adapter of an effect."""
        state = self._fetch(effect)
        self._digests[effect] = None if state is None else state.digest
        return state

    def digest(self, effect: str) -> str | None:
        """Return the digest of an effect's adapter (None for the bare base), without loading it a second time."""
        if effect not in self._digests:
            if effect in self._known:
                return self._known[effect]()
            self.state(effect)
        return self._digests[effect]
