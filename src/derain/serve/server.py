"""Starts the server: where it listens, and who can reach it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from derain.errors import DerainError, Remedy, UsageError, reason
from derain.restore import Settings
from derain.serve.api import create_app
from derain.serve.callbacks import allowed_hosts
from derain.serve.guard import LOOPBACK_NAMES
from derain.serve.limits import Limits
from derain.serve.models import offered
from derain.serve.worker import WorkerSettings

CONNECTIONS = 1024
PATIENCE = 10  # seconds within which a connection must have sent the header of its next request
GRACE = 2  # seconds for responses in progress when the server stops


def serve(
    host: str,
    port: int,
    limits: Limits,
    *,
    models: Sequence[str] = (),
    settings: Settings = Settings(),  # noqa: B008  # frozen
    threads: int | None = None,
    workers: int = 1,
    token: str | None = None,
    callback_hosts: Sequence[str] = (),
    listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves until Ctrl-C or SIGTERM; then all uploads and results are deleted, and the signal acts as usual.

    Args:
        host: an address or name of this machine.
        port: the port; 0 for any free one.
        limits: what it accepts.
        models: the models that users choose from, in forms that `derain.load` takes, the default first; empty
            for all bundled weights.
        settings: device and precision.
        threads: CPU threads for each job; None for PyTorch's default.
        workers: the number of parallel jobs, each with its own copy of the models.
        token: the token that clients must know; required beyond loopback.
        callback_hosts: HOST or HOST:PORT to which callbacks of jobs may be sent.
        listening: called with the address of the page.

    Raises:
        UsageError: no token beyond loopback, or an unknown model.
        DerainError: it cannot listen on the address, or a model cannot be loaded.
    """
    if token is not None and not token.strip():
        raise UsageError("the token is empty; give a long random one, such as from 'openssl rand -hex 16'.")
    if not is_loopback(host) and token is None:
        raise UsageError(
            f"{host} is open to other machines, so it needs a token; 127.0.0.1 does not.",
            Remedy("listen there", {"token": "SECRET"}),
        )
    work = WorkerSettings(offered(models), settings, threads, workers)
    allowed = allowed_hosts(tuple(callback_hosts))
    written = in_address(host)
    hosts = LOOPBACK_NAMES | {written.lower()} if is_loopback(host) else None
    failures: list[DerainError] = []

    def give_up(error: DerainError) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(limits, work, token=token, hosts=hosts, callback_hosts=allowed, gave_up=give_up)
    server = http_server(app, stopping=lambda: app.state.server.store.close())  # ends all waiting requests
    listener = listen(host, port, Remedy("use any free port", {"port": 0}))
    with listener:
        listening(f"http://{written}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def http_server(app: FastAPI, stopping: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """The HTTP server for the application; trusts no header about where a request comes from.

    Args:
        app: the application that it serves.
        stopping: called when the server stops, before it waits for the responses in progress.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken upload
    config = uvicorn.Config(
        app,
        http=TimeoutH11Protocol,
        ws="none",
        lifespan="on",
        log_level="error",  # lower levels report broken requests, of which clients can send any number
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    return Stopping(config, stopping)


class Stopping(uvicorn.Server):
    """A server that announces that it is stopping; some responses would otherwise last as long as jobs."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)


class TimeoutH11Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose first or next request does not arrive in time.

    Nothing else closes it once part of a request has arrived, and a few hundred such connections would block
    all others.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # the last request; None before the first
        if cycle is None or cycle.response_complete:
            self.transport.close()


def listen(host: str, port: int, remedy: Remedy) -> socket.socket:
    """A socket that listens on an address or name of this machine, and on a port; 0 for any free one.

    Raises:
        DerainError: it cannot listen there; the error has the given remedy if another port would help.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OverflowError:
        why, is_port = "ports end at 65535", True
    except (OSError, TypeError) as error:
        why, is_port = _why_not(error)
    raise DerainError(f"cannot listen on {in_address(host)}:{port} ({why}).", remedy if is_port else None)


def _why_not(error: OSError | TypeError) -> tuple[str, bool]:
    """Why nothing can listen at an address, and whether that is because of the port.

    Args:
        error: of `socket.create_server`; a `TypeError` for a name that cannot be encoded.
    """
    cause = error.__context__  # the system's error; Python replaces it by one that repeats the address
    system = cause if isinstance(cause, OSError) else error
    if isinstance(system, socket.gaierror | TypeError) or system.errno == errno.EADDRNOTAVAIL:
        return "neither an address nor a name of this machine; 127.0.0.1 is one", False
    if system.errno == errno.EADDRINUSE:
        return "another program uses this port", True
    return reason(system), system.errno == errno.EACCES


def in_address(host: str) -> str:
    """A host as it is written before a colon and a port."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
