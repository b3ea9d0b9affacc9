"""Who may request what: host names, origins, the token, and the headers of every response."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from derain.serve.envelope import API, VERSION
from derain.serve.limits import Refused
from derain.serve.problems import refusal

COOKIE = "derain_session"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Everything except the page itself needs the token, if there is one.
LOGIN = f"{VERSION}/login"
# How long a refused client may continue sending, so that it gets to read why.
DRAIN_SECONDS = 10.0
SILENCE = 1.0  # seconds after which it is assumed to have stopped
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Access:
    """The token of a server, and the cookie that a browser gets for it."""

    def __init__(self, token: str | None) -> None:
        """
        Args:
            token: the token that clients must know; None for none.
        """
        self._token = token
        self._key = secrets.token_bytes(32)

    @property
    def cookie(self) -> str:
        """The cookie's value: constant while the server runs, and useless for any other server."""
        return hmac.new(self._key, b"session", hashlib.sha256).hexdigest()

    def knows(self, token: str) -> bool:
        """Whether this is the token; compared in constant time."""
        if self._token is None:
            return False
        # A lone surrogate cannot be encoded as UTF-8, but JSON can contain one.
        given, wanted = (text.encode(errors="surrogatepass") for text in (token, self._token))
        return secrets.compare_digest(given, wanted)

    def admits(self, headers: Headers) -> bool:
        """Whether a request carries the token or the cookie, or none is needed."""
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.knows(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        given = "" if cookie is None else cookie.value
        return secrets.compare_digest(given.encode(errors="surrogatepass"), self.cookie.encode())


class Guard:
    """ASGI middleware around the application, inside `Envelope`.

    Refuses a request before the application sees it:

    - if its host name is not among `hosts` (400), which stops DNS rebinding;
    - if it changes something and comes from another site's page (403);
    - if it is for the API or the metrics and lacks the token (401).
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, access: Access) -> None:
        """
        Args:
            app: the application that it guards.
            hosts: host names that requests may use; None for any.
            access: says who is let in.
        """
        self._app, self._hosts, self._access = app, hosts, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(receive, expected="expect" in headers)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                if message["status"] >= 400:
                    await body.drain()
            await send(message)

        refused = self._refusal(headers, scope["method"], scope["path"])
        app = self._app if refused is None else refusal(refused)
        await app(scope, body.receive, answer)

    def _refusal(self, headers: Headers, method: str, path: str) -> Refused | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return Refused(400, "this server does not answer to that host name.")
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and not _is_of(host, origin):
            return Refused(403, "pages of other sites may not use this server.")
        guarded = (path.startswith(f"{API}/") and path != LOGIN) or path == "/metrics"
        if guarded and not self._access.admits(headers):
            return Refused(401, "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'.")
        return None


def _is_of(host: str, origin: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host name in a Host header, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


class _Body:
    """The body of a request as far as it has been read.

    A server that responds before it has read the body closes the connection, and the client, still sending,
    may never see the response. So the rest is read and dropped, for a limited time.
    """

    def __init__(self, receive: Receive, expected: bool) -> None:
        """
        Args:
            expected: whether the client waits for permission to send, so that there is nothing to drop.
        """
        self._receive, self._over = receive, expected

    async def receive(self) -> Message:
        message = await self._receive()
        self._over = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._over:
                    # In Python 3.11, `wait_for` ignores an outer timeout if a byte arrives at that moment.
                    async with asyncio.timeout(SILENCE):
                        await self.receive()
        except TimeoutError:
            return
