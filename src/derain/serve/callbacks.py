"""Callbacks once a job has ended: a POST to an address whose host the operator allows."""

from __future__ import annotations

import contextlib
import http.client
import queue
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from derain.errors import UsageError
from derain.serve.limits import Refused
from derain.serve.logs import log_event

PORTS = {"http": 80, "https": 443}
TRIES = 3
PAUSE = 5.0  # seconds between attempts
PATIENCE = 10.0  # seconds that a response may take
WAITING = 1000  # calls that may wait; more are dropped, with a line in the log


@dataclass(frozen=True)
class Call:
    """A callback to make: its address, its JSON body, and the id of the request that asked for it."""

    url: str
    body: bytes
    request_id: str


def allowed_hosts(names: tuple[str, ...]) -> frozenset[str]:
    """The hosts that an operator allows, as HOST or HOST:PORT. Raises `UsageError` for anything else."""
    for name in names:
        if not name or set(name) & set("/@?#*\\") or name != name.strip():
            raise UsageError(f"callback host '{name}': give HOST or HOST:PORT.")
    return frozenset(name.lower() for name in names)


def refuse_unless_allowed(url: str, hosts: frozenset[str]) -> None:
    """Refuses a callback unless it is plain HTTP(S) to a host that the operator allows.

    Args:
        url: the address, as the client gave it.
        hosts: from `allowed_hosts`; one without a port allows the usual one of the scheme.

    Raises:
        Refused: 422 if it is not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise Refused(422, "the callback is not an address.") from None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc or not _is_plain(url):
        raise Refused(422, "the callback must be an http or https address without a user name.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port == PORTS[parts.scheme]
    if f"{host}:{port}" not in hosts and not (usual and host in hosts):
        raise Refused(422, "the operator of this server does not allow callbacks to that host.")


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


class Callbacks:
    """Makes calls one after the other in its own thread, with up to three attempts each.

    It follows no redirects and reads only the status of responses.
    """

    def __init__(self) -> None:
        self._calls: queue.Queue[Call | None] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="callbacks", daemon=True)
        self._thread.start()

    def add(self, call: Call) -> None:
        """Queues a call, or drops it, with a line in the log, if too many are waiting."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            log_event("callback", id=call.request_id, error="too many callbacks are queued")

    def close(self) -> None:
        """Stops making calls."""
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and not self._closed.is_set():
            self._make(call)

    def _make(self, call: Call) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                status, error = post(call), ""
            except (OSError, http.client.HTTPException) as problem:
                status, error = 0, type(problem).__name__
            host = urlsplit(call.url).netloc
            log_event("callback", id=call.request_id, host=host, status=status, error=error, attempt=attempt)
            if 0 < status < 500 or self._closed.wait(PAUSE):
                return


def post(call: Call) -> int:
    """Sends a call; returns the HTTP status of the response.

    Raises:
        OSError, http.client.HTTPException: there was none.
    """
    parts = urlsplit(call.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json", "X-Request-ID": call.request_id}
        connection.request("POST", target, call.body, headers)
        return connection.getresponse().status
