"""Broken requests: sent to a real server, byte by byte, which must go on serving others."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from derain.errors import DerainError
from derain.serve.limits import Limits
from fuzz import clips, pictures
from fuzz.mutations import mutated
from fuzz.trial import Kind
from serving import in_thread

PATIENCE = 60  # seconds for one answer
BOUNDARY = "----rain"
PLACES = (
    *("/", "/health", "/metrics", "/api/models", "/api/limits", "/api/jobs/x", "/api/jobs/../../etc/passwd"),
    *(
        "/api/events?id=x",
        "/api/events",
        "/api/results.zip?id=a&id=b",
        "/api/jobs/%00/result",
        "/page/%2e%2e",
    ),
    *(
        "/api/openapi.json",
        "/docs",
        "/\xff",
        "/api/jobs/" + "x" * 3000,
        "/api/events?id=" + "&id=".join("abc"),
    ),
)
METHODS = ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "FOO", "")
HEADERS = (
    *("Content-Length: 5", "Content-Length: 99999999999", "Content-Length: -1", "Content-Length: a"),
    *("Transfer-Encoding: chunked", "Expect: 100-continue", "Host: example.org", "Origin: http://evil.test"),
    *(
        "Cookie: derain_session=\xff",
        "Cookie: " + "a=b;" * 500,
        "Authorization: Bearer \xff",
        "Upgrade: websocket",
    ),
    *(
        "Range: bytes=0-",
        "Content-Type: application/json",
        "X: " + "x" * 9000,
        "Connection: upgrade",
        ":",
        "a b: c",
    ),
    *("If-Modified-Since: x", "Accept: \x00", "Content-Encoding: gzip", "Content-Type: multipart/form-data"),
)
LOGINS = (
    *(b"{}", b"[]", b'{"token": "a"}', b'{"token": "\\ud800"}', b'{"token": 1}', b"\xff", b"[" * 3000),
    *(b'{"token": "' + b"x" * 9000 + b'"}', b'{"token": null}', b"", b"null", b"1e999", b'"\x00"'),
)


clients: list[httpx.Client] = []  # of the server that runs


@contextmanager
def server() -> Iterator[None]:
    limits = Limits(pixels=10**6, waiting=4, upload_seconds=5)
    with tempfile.TemporaryDirectory() as folder, in_thread(Path(folder), limits) as client:
        clients.append(client)
        try:
            yield
        finally:
            clients.remove(client)


def make(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "request"
    match int(rng.integers(5)):
        case 0:
            request = _upload(rng, broken=False)
        case 1:
            request = _upload(rng, broken=True)
        case 2:
            body = LOGINS[int(rng.integers(len(LOGINS)))]
            request = _head("POST", "/api/login", [f"Content-Length: {len(body)}"]) + body
        case _:
            method, place = METHODS[int(rng.integers(len(METHODS)))], PLACES[int(rng.integers(len(PLACES)))]
            headers = [HEADERS[int(rng.integers(len(HEADERS)))] for _ in range(int(rng.integers(4)))]
            request = _head(method, place, headers)
    if rng.random() < 0.3:
        request = mutated(request, _upload(rng, broken=False), rng)
    path.write_bytes(request)
    return path


def _head(method: str, place: str, headers: list[str]) -> bytes:
    lines = [f"{method} {place} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _upload(rng: np.random.Generator, broken: bool) -> bytes:
    groups = pictures.seeds() | {name: clips.seeds()[name] for name in (".mp4", ".gif")}
    files = groups[sorted(groups)[int(rng.integers(len(groups)))]]
    content, other = (files[int(rng.integers(len(files)))] for _ in range(2))
    if broken:
        content = mutated(content, other, rng)
    names = (
        "a.png",
        "../../x",
        "\xff",
        'a"b',
        "",
        "a\x00.jpg",
        "x" * 900,
        "CON",
        "a.png; filename*=utf-8''b",
    )
    name, model = names[int(rng.integers(len(names)))], ("everyday", "x", "../etc", "")[int(rng.integers(4))]
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode()
        if rng.random() < 0.3
        else b"",
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode(
            "latin-1"
        ),
        content,
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    body = b"".join(parts)
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return _head("POST", "/api/jobs", [kind, f"Content-Length: {len(body)}"]) + body


def use(source: Path, _: Path) -> None:
    (client,) = clients
    status = status_of(client.base_url.port or 0, source.read_bytes())
    assert status is None or status < 500 or status == 503, status
    assert client.get("/health").json() == {"status": "ok"}
    if status is None or status >= 400:
        raise DerainError(f"answered with {status}")


def status_of(port: int, request: bytes) -> int | None:
    """That of the answer; None where the server closed the connection without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(request)
            connection.settimeout(1)
            try:
                answer = connection.recv(4096)
            except TimeoutError:  # it waits for more
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(PATIENCE)
                answer = connection.recv(4096)
        except ConnectionError:
            return None
    return int(answer.split(None, 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


REQUESTS = Kind("requests", 1_000, make, use, server, quiet=False)
