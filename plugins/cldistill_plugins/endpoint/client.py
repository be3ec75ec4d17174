"""One question to an OpenAI-compatible ``/chat/completions``: time-out, retries with back-off, and a key that stays secret.

The key is read from its environment variable for each request and kept nowhere: no attribute, file or error holds it.
What the server says is quoted in errors only after the key was taken out of it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from cldistill.errors import EndpointError
from cldistill_plugins.endpoint.answers import MalformedAnswerError, RefusedAnswerError, is_refusal, text_of

if TYPE_CHECKING:
    import httpx

    from cldistill_plugins.endpoint.settings import EndpointSettings

T = TypeVar("T")
LARGEST_ANSWER = 1 << 20
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the first retry, doubled each time up to the longest."""
RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass when asked again."""
QUOTED = 200
"""Characters of a server's answer that an error quotes."""


class NoUsableAnswerError(EndpointError):
    """The endpoint works, but to this question it gives no answer that can be used, asked as often as allowed."""

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused
        """True where the model declined to answer; else its answers could not be read."""


class _TryAgainError(Exception):
    """A failure that may pass; ``wait``: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Endpoint:
    """A server and model that can be asked, made from a part's options.  ``sleep`` is a seam for tests."""

    url: str
    """Base address, e.g. ``http://localhost:8000/v1``."""
    model: str
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key is sent."""
    timeout: float = 60.0
    """Seconds for one whole request."""
    retries: int = 4
    temperature: float | None = 0.0
    """None leaves it to the server (some models take no other)."""
    help: str = "check the options of the part that asks"
    """Advice at the end of an error."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members of every request, e.g. ``{"response_format": {"type": "json_object"}}``."""
    sleep: Callable[[float], None] = time.sleep

    @staticmethod
    def of(settings: EndpointSettings, help: str) -> Endpoint:
        """Return the endpoint that a component's options name."""
        return Endpoint(
            settings.endpoint,
            settings.model,
            settings.api_key_env,
            settings.timeout,
            settings.retries,
            settings.temperature,
            help,
            {"response_format": {"type": "json_object"}} if settings.json_mode else {},
        )

    def ask(self, messages: Sequence[Mapping[str, Any]], read: Callable[[str], T], about: str) -> T:
        """Send ``messages`` and return what ``read`` makes of the answer's text.

        ``read`` raises `MalformedAnswerError` for an answer that cannot be used: it is asked again.  ``about`` says in
        errors what the question was for.

        Raises:
            NoUsableAnswerError: the model declined, or no retry is left and the last answer was malformed.
            EndpointError: no retry is left and the server still fails, or a retry cannot help.
        """
        key = self._key(about)
        for attempt in range(self.retries + 1):
            try:
                return read(self._without_key(text_of(self._post(messages, key, about)), key))
            except RefusedAnswerError as error:
                raise NoUsableAnswerError(f"{self._where(about)}: {error}", refused=True) from None
            except (_TryAgainError, MalformedAnswerError) as error:
                reason = str(error)
                malformed = isinstance(error, MalformedAnswerError)
                wait = error.wait if isinstance(error, _TryAgainError) else None
            if attempt < self.retries:
                self.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt if wait is None else wait))
        times = "once" if self.retries == 0 else f"{self.retries + 1} times"
        text = f"{self._where(about)}: {reason} (asked {times}); {self.help}"
        raise NoUsableAnswerError(text, refused=False) if malformed else EndpointError(text)

    def _post(self, messages: Sequence[Mapping[str, Any]], key: str | None, about: str) -> bytes:
        """Return the body of a 200; raises _TryAgainError, RefusedAnswerError or EndpointError, all without the key."""
        import httpx

        payload: dict[str, Any] = {"model": self.model, "messages": list(messages), **self.extra}
        if self.temperature is not None:
            payload["temperature"] = self.temperature
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if key:  # at DEBUG it writes down what servers send, and some echo the key
            logging.getLogger("httpcore").setLevel(logging.INFO)
        try:
            with (
                # Reading the certificates takes a good part of a second: only where they are used.
                httpx.Client(timeout=self.timeout, verify=self.url.startswith("https:")) as client,
                client.stream("POST", self._address(), json=payload, headers=headers) as response,
            ):
                body = self._body(response)
        except httpx.TimeoutException:
            raise _TryAgainError(f"no answer within {self.timeout:g} s") from None
        except httpx.HTTPError as error:  # its request has the key in its headers: neither kept nor chained
            reason = _shorten(str(error).replace(key, "***") if key else str(error))
            raise _TryAgainError(f"cannot be reached ({reason})") from None
        if response.status_code == 200:
            return body
        raise self._failure(response, body, key, about)

    def _body(self, response: httpx.Response) -> bytes:
        """Read an answer with a bound on its size and on the whole time: httpx's time-out counts from byte to byte."""
        end = time.monotonic() + self.timeout
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > LARGEST_ANSWER:
                raise _TryAgainError(f"the answer has more than {LARGEST_ANSWER} bytes")
            if time.monotonic() > end:
                raise _TryAgainError(f"no whole answer within {self.timeout:g} s")
        return body

    def _failure(self, response: httpx.Response, body: bytes, key: str | None, about: str) -> Exception:
        status = response.status_code
        said = body.decode("utf-8", "replace")
        said = _shorten(said.replace(key, "***") if key else said)
        if status >= 500 or status in RETRIED:
            return _TryAgainError(f"answered with status {status}: {said}", _retry_after(response))
        if status in (401, 403):  # servers like to echo (parts of) the key here: not quoted
            source = f"the key in ${self.api_key_env}" if self.api_key_env else "a request without a key (api_key_env)"
            return EndpointError(f"{self._where(about)}: refused {source} with status {status}")
        if is_refusal(body):
            return RefusedAnswerError(f"the server's filter refused the question with status {status}")
        return EndpointError(f"{self._where(about)}: answered with status {status}: {said}; {self.help}")

    def _key(self, about: str) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise EndpointError(f"{self._where(about)}: the environment variable {self.api_key_env} holds no key")
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                f"{self._where(about)}: the key in ${self.api_key_env} holds characters that no key has"
            )
        return key

    def _without_key(self, text: str, key: str | None) -> str:
        """Refuse an answer that repeats the key: it would be cached and printed."""
        if key is not None and key in text:
            raise MalformedAnswerError("the answer repeats the key, and is not used")
        return text

    def _address(self) -> str:
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def _where(self, about: str) -> str:
        return f"{about}: {self._address()} (model {self.model})"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header; a date, or nothing, leaves it to the back-off."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= QUOTED else f"{line[:QUOTED]}…"
