"""A local page with live pictures, as Motion JPEG, which browsers and camera programs can show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse
from numpy.typing import NDArray

from derain.errors import Remedy
from derain.serve.envelope import Envelope
from derain.serve.guard import LOOPBACK_NAMES, Access, Guard
from derain.serve.limits import Refused
from derain.serve.problems import refusal, say_problems
from derain.serve.server import http_server, listen

QUALITY = 85  # of the JPEG pictures
VIEWERS = 16  # at most, at once
BOUNDARY = "frame"
PART = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()  # the header of a picture
HERE = Path(__file__).parent
PAGE = HERE / "live" / "index.html"
# The files of the page, by their addresses; some are shared with the server's page.
FILES = {
    "/live.css": HERE / "live" / "live.css",
    "/live.js": HERE / "live" / "live.js",
    "/icon.svg": HERE / "page" / "icon.svg",
    "/page/words.js": HERE / "page" / "words.js",
    "/page/words.json": HERE / "page" / "words.json",
}


class LivePage:
    """Serves the newest picture to all viewers; a context manager that serves while it is open.

    `/` is the page, `/live.mjpg` the stream, `/live.jpg` the newest picture, and `/live.json` the figures,
    which are missing before the first report, as are frames per second while the source is lost.

    Attributes:
        address: the page's address.
    """

    def __init__(self, port: int) -> None:
        """
        Args:
            port: a port of 127.0.0.1; 0 for any free one.

        Raises:
            DerainError: the port is taken or not permitted.
        """
        self._listener = listen("127.0.0.1", port, Remedy("use any free port", {"page": 0}))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pixels: NDArray[np.uint8] | None = None
        self._figures: Mapping[str, Any] = {}
        self._viewers, self._closed = 0, False
        self._fresh = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._server = http_server(self._app())
        sockets = [self._listener]
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=sockets), daemon=True)

    def show(self, pixels: NDArray[Any]) -> None:
        """Sets the newest picture, (H, W, 3) RGB in bytes or values of 0 to 65535."""
        self._pixels = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        if self._loop is not None and self._viewers:
            self._loop.call_soon_threadsafe(self._wake)

    def tell(self, figures: Mapping[str, Any]) -> None:
        """Sets the newest figures, as values for JSON."""
        self._figures = figures

    def __enter__(self) -> LivePage:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _wake(self) -> None:
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()

    def _app(self) -> FastAPI:
        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self._loop = asyncio.get_running_loop()
            self._started.set()
            yield

        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
        app.add_middleware(Guard, hosts=LOOPBACK_NAMES, access=Access(None))
        app.add_middleware(Envelope, responded=lambda *_: None)
        say_problems(app, "the page is at /.")

        @app.get("/")
        def page() -> Response:
            return FileResponse(PAGE)

        for address, path in FILES.items():
            app.get(address)(_file(path))

        @app.get("/live.mjpg")
        async def stream() -> Response:
            if self._viewers >= VIEWERS:
                return refusal(Refused(503, f"there are {VIEWERS} viewers already; try again later."))
            kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
            return StreamingResponse(self._parts(), media_type=kind)

        @app.get("/live.jpg")
        def newest() -> Response:
            if self._pixels is None:
                return refusal(Refused(503, "no picture has arrived yet."))
            return Response(_jpeg(self._pixels), media_type="image/jpeg")

        @app.get("/live.json")
        def figures() -> Response:
            return Response(json.dumps(self._figures), media_type="application/json")

        return app

    async def _parts(self) -> AsyncIterator[bytes]:
        """A stream of newest pictures; a slow reader misses some.

        Each picture is followed at once by the header of the next one, as Chromium shows a picture only when
        that arrives. So the header cannot state the length of its picture.
        """
        self._viewers += 1
        try:
            yield PART
            while not self._closed:
                fresh = self._fresh
                if self._pixels is not None:
                    picture = await asyncio.to_thread(_jpeg, self._pixels)
                    yield picture + b"\r\n" + PART
                await fresh.wait()
        finally:
            self._viewers -= 1


def _file(path: Path) -> Callable[[], Response]:
    return lambda: FileResponse(path, headers={"Cache-Control": "no-cache"})


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    encoded, content = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert encoded
    return content.tobytes()
