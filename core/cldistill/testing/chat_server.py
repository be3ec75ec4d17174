"""A real HTTP server on loopback that speaks the chat API, or misbehaves, as a test tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | Callable[[Any], None]
"""Status and body, perhaps headers; or a function that is given the request handler and answers (or does not) by itself."""
Rule = Callable[[dict[str, Any]], Answer]
"""Chooses an answer by what is asked: it is given the request's JSON."""


def completion(content: Any, **message: Any) -> bytes:
    """Return the body of a chat completion; ``message`` adds members, e.g. ``refusal``."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content, **message}}]}).encode()


class ChatServer:
    """Answers by ``rule``, or gives the queued ``answers`` one by one (the last again and again); keeps what it was asked."""

    def __init__(self, answers: Sequence[Answer] = (), rule: Rule | None = None) -> None:
        self.answers: list[Answer] = list(answers)
        self.rule = rule
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.busiest = 0
        """Most requests that were under way at one time."""
        self._busy = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def texts(self, index: int = -1) -> list[str]:
        """Return the texts of one request, the system's first."""
        system, user = self.requests[index]["messages"]
        return [system["content"], *(part["text"] for part in user["content"] if part["type"] == "text")]

    def pictures(self, index: int = -1) -> list[str]:
        """Return the data addresses of the pictures of one request."""
        content = self.requests[index]["messages"][1]["content"]
        return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def take(self, handler: BaseHTTPRequestHandler) -> Iterator[Answer]:
        """Note a request and yield its answer; requests inside the block are under way."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            rule = self.rule or self._queued()
        try:
            yield rule(body)
        finally:
            with self._lock:
                self._busy -= 1

    def _queued(self) -> Rule:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return lambda body: answer


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with server.take(self) as answer:
                if callable(answer):
                    answer(self)
                    return
                status, content, *more = answer
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

    return Handler
