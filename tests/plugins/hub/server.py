"""A hub on loopback: the few endpoints that huggingface_hub asks for repositories, uploads (git LFS too) and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "w" * 34
"""The one token that may write and read what is private."""


@dataclass
class Repository:
    """Commits of one repository, each with all of its files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        """Add files over those of ``main`` and return the commit."""
        whole = {**self.commits.get(self.refs.get("main", ""), {}), **files}
        oid = hashlib.sha1(repr((sorted(whole.items()), message, len(self.commits))).encode()).hexdigest()
        self.commits[oid], self.refs["main"] = whole, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, or a commit itself."""
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """The state of the hub, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    made: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests that make a repository."""
    address: str = ""

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> str:
        """Put a repository there and return its commit."""
        self.repositories.setdefault(name, Repository(private))
        return self.repositories[name].commit(files)


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Start the server on a free port; ``server.shutdown()`` ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            """Be silent."""

        def do_GET(self) -> None:
            self.answer(b"")

        do_HEAD = do_GET  # noqa: N815 (the standard library's name)

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        do_PUT = do_POST  # noqa: N815

        def answer(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            for pattern, method in ROUTES:
                found = re.fullmatch(pattern, path)
                if found:
                    method(self, hub, body, *found.groups())
                    return
            self.reply(404, {"error": "no such page"})

        @property
        def known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def reply(self, status: int, body: Any, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def missing(self) -> None:
            self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

        def open(self, name: str) -> Repository | None:
            found = hub.repositories.get(name)
            return None if found is None or (found.private and not self.known) else found

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def create(handler: Any, hub: Hub, body: bytes) -> None:
    asked = json.loads(body)
    if not handler.known:
        handler.reply(401, {"error": f"Invalid token {handler.headers.get('Authorization')}"})  # a hub that blabs
        return
    if asked["organization"] == "foreign":
        handler.reply(403, {"error": "You don't have the rights"})
        return
    hub.made.append(asked)
    name = f"{asked['organization']}/{asked['name']}"
    if name in hub.repositories:
        handler.reply(409, {"error": "You already created this model repo", "url": f"{hub.address}/{name}"})
        return
    hub.repositories[name] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
    handler.reply(200, {"url": f"{hub.address}/{name}", "name": name, "id": name})


def validate(handler: Any, hub: Hub, body: bytes) -> None:
    """Look at a card as the hub does before it takes one: of the licence alone."""
    content = json.loads(body)["content"]
    known = re.search(r"^license: (apache-2.0|mit)$", content, flags=re.MULTILINE)
    errors = [] if known else [{"message": '"license" must be one of [apache-2.0, mit]'}]
    handler.reply(400 if errors else 200, {"errors": errors, "warnings": []})


def info(handler: Any, hub: Hub, body: bytes, name: str, revision: str | None) -> None:
    repository = handler.open(name)
    if repository is None:
        handler.missing()
        return
    commit = repository.resolve(revision or "main")
    if revision is not None and commit is None:
        handler.reply(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return
    files = repository.commits.get(commit or "", {})
    handler.reply(200, {"id": name, "modelId": name, "sha": commit, "private": repository.private, "tags": [],
                        "siblings": [{"rfilename": path} for path in files]})  # fmt: skip


def tree(handler: Any, hub: Hub, body: bytes, name: str, revision: str) -> None:
    repository = handler.open(name)
    files = repository.commits[repository.resolve(revision)]
    handler.reply(200, [
        {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for path, data in files.items()
    ])  # fmt: skip


def preupload(handler: Any, hub: Hub, body: bytes, name: str, revision: str) -> None:
    files = json.loads(body)["files"]
    handler.reply(200, {"files": [
        {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
         "shouldIgnore": False, "oid": None}
        for file in files
    ]})  # fmt: skip


def batch(handler: Any, hub: Hub, body: bytes, name: str) -> None:
    objects = json.loads(body)["objects"]
    handler.reply(200, {"transfer": "basic", "objects": [
        {**each, "actions": {"upload": {"href": f"{hub.address}/lfs/{each['oid']}", "header": {}}}} for each in objects
    ]}, Content_Type="application/vnd.git-lfs+json")  # fmt: skip


def put(handler: Any, hub: Hub, body: bytes, oid: str) -> None:
    hub.blobs[oid] = body
    handler.reply(200, b"")


def commit(handler: Any, hub: Hub, body: bytes, name: str, revision: str) -> None:
    if not handler.known:
        handler.reply(403, {"error": "no"})
        return
    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }
    files |= {line["value"]["path"]: hub.blobs[line["value"]["oid"]] for line in lines if line["key"] == "lfsFile"}
    oid = hub.repositories[name].commit(files)
    handler.reply(
        200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{name}/commit/{oid}", "hookOutput": ""}
    )


def resolve(handler: Any, hub: Hub, body: bytes, name: str, revision: str, path: str) -> None:
    repository = handler.open(name)
    found = repository and repository.resolve(revision)
    data = repository.commits[found].get(path) if repository and found else None
    if data is None:
        handler.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        return
    handler.reply(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=found)


ROUTES = (
    (r"/api/repos/create", create),
    (r"/api/validate-yaml", validate),
    (r"/api/models/([^/]+/[^/]+)()?", lambda handler, hub, body, name, _: info(handler, hub, body, name, None)),
    (r"/api/models/([^/]+/[^/]+)/revision/(.+)", info),
    (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", tree),
    (r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", preupload),
    (r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", commit),
    (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", batch),
    (r"/lfs/(\w+)", put),
    (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", resolve),
)
