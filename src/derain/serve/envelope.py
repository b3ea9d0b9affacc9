"""What surrounds every request: its id, its log line, its version of the API, and HEAD."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from derain.serve.limits import Refused
from derain.serve.logs import log_event, request_id, short
from derain.serve.problems import refusal

API, VERSION = "/api", "/api/v1"
ID = "X-Request-ID"
# Called for each response with its method, route, status and the seconds until it began.
Responded = Callable[[str, str, int, float], None]


class Envelope:
    """ASGI middleware around everything else.

    - Every request has an id, the client's or a new one; it is in the response, the log and the scope.
    - API paths without a version mean version 1.
    - HEAD is answered as GET without a body.
    """

    def __init__(self, app: ASGIApp, responded: Responded) -> None:
        """
        Args:
            app: the application that it surrounds.
            responded: called for each response.
        """
        self._app, self._responded = app, responded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 0, 0
        name = request_id(Headers(scope=scope).get(ID, ""))
        method = scope["method"]
        asked = scope["path"]
        inner = {**scope, "path": versioned(asked), "asked": asked, "request_id": name}
        headless = _Headless(receive, send)
        if method == "HEAD":
            inner["method"] = "GET"
            receive, send = headless.receive, headless.send

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID] = name
                self._responded(method, route(inner), status, time.monotonic() - began)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(inner, receive, answer)
        except asyncio.CancelledError:  # the server has stopped waiting, such as for an upload
            if not status:
                await refusal(Refused(503, "the server is stopping."))(inner, receive, answer)
        except Exception:  # answered outside this middleware
            status = 500
            self._responded(method, route(inner), status, time.monotonic() - began)
            raise
        finally:
            facts: dict[str, Any] = {"method": method, "route": route(inner), "status": status}
            job = inner.get("path_params", {}).get("job_id")
            if job is not None:
                facts["job"] = short(job)
            seconds = round(time.monotonic() - began, 3)
            log_event("request", id=name, **facts, seconds=seconds, bytes=0 if method == "HEAD" else sent)


def versioned(path: str) -> str:
    """The path with an explicit version of the API."""
    if path.startswith(f"{API}/") and not path.startswith(f"{VERSION}/"):
        return VERSION + path.removeprefix(API)
    return path


def route(scope: Scope) -> str:
    """The path with names in place of its variable parts; "" for unknown paths."""
    return getattr(scope.get("route"), "path", "")


class _Headless:
    """Removes the body of a response, and ends it after its head, however long it would be."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send, self._over = receive, send, asyncio.Event()
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return await self._receive()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._over.set()
