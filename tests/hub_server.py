"""A stand-in of the Hugging Face Hub on the loopback: the few requests of downloads and of one commit."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """Repositories: {OWNER/NAME: {revision: {file: content}}}; "main" is the newest.

    `private` ones answer only to `TOKEN`; `requests` are "METHOD /path" in order.
    """

    address: str
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def put(self, repository: str, files: dict[str, bytes], tag: str | None = None) -> str:
        """A new commit on main, also reachable by its hash and by `tag`."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        revisions = self.repositories.setdefault(repository, {})
        for revision in ("main", commit, *filter(None, [tag])):
            revisions[revision] = files
        return commit

    def commit_of(self, repository: str, revision: str) -> str:
        files = self.repositories[repository][revision]
        return next(r for r, f in self.repositories[repository].items() if f is files and len(r) == 40)

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which the hub library talks to this server and keeps its cache in `home`."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}


@contextmanager
def serving() -> Iterator[Hub]:
    """A running hub without repositories."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: Any) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            repository = self.path.removeprefix("/api/models/").partition("?")[0]
            if repository not in self.hub.repositories or not self._may_see(repository):
                return self._refuse(401, "RepoNotFound")
            return self._json(200, {"id": repository, "private": repository in self.hub.private})
        owner, name, verb, revision, *rest = [*self.path.strip("/").split("/"), "", "", "", ""]
        repository, file = f"{owner}/{name}", "/".join(part for part in rest if part)
        revisions = self.hub.repositories.get(repository)
        if verb != "resolve" or revisions is None or not self._may_see(repository):
            return self._refuse(401 if verb == "resolve" else 404, "RepoNotFound")
        if revision not in revisions:
            return self._refuse(404, "RevisionNotFound")
        content = revisions[revision].get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": self.hub.commit_of(repository, revision),
            "Accept-Ranges": "bytes",
        }
        return self._answer(200, content, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repository = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            known = repository in self.hub.repositories
            if not known and (wanted.get("private") or wanted.get("visibility") == "private"):
                self.hub.private.add(repository)
            self.hub.repositories.setdefault(repository, {})
            return self._json(
                409 if known else 200, {"url": f"{self.hub.address}/{repository}", "id": repository}
            )
        if path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        _, kind, owner, name, verb, *_ = [*path.strip("/").split("/"), "", "", "", ""]
        repository = f"{owner}/{name}"
        if kind == "models" and verb == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._json(200, {"files": files})
        if kind == "models" and verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = self.hub.put(repository, added)
            url = f"{self.hub.address}/{repository}/commit/{commit}"
            return self._json(200, {"success": True, "commitOid": commit, "commitUrl": url})
        return self._refuse(404, "")

    def _may_see(self, repository: str) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        return allowed or repository not in self.hub.private

    def _refuse(self, code: int, reason: str) -> None:
        self._answer(code, b"", {"X-Error-Code": reason} if reason else {})

    def _json(self, code: int, content: Any) -> None:
        self._answer(code, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
