"""`derain serve`: runs the web page and the HTTP API."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated

import typer

from derain.cli.output import is_quiet
from derain.cli.shared import MODEL, Device, Precision
from derain.serve.limits import Limits

LIMITS = Limits()
# In the units of the options, whole megabytes, megapixels and minutes.
UPLOAD, STORAGE = LIMITS.upload_bytes // 1_000_000, LIMITS.storage_bytes // 1_000_000
PIXELS = LIMITS.pixels // 1_000_000
KEEP = LIMITS.keep_seconds // 60


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; all but loopback addresses need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DERAIN_TOKEN",
            help="Secret shared by all users: password of the page, bearer token of the API. "
            "Set it as DERAIN_TOKEN: other users of this machine can read options.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help=f"{MODEL} May be given several times; users choose, and the first is the default.",
            show_default="all bundled",
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU cores for each job.", show_default="all")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Parallel jobs, each with its own copy of the models.")
    ] = 1,
    callback_host: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST or HOST:PORT to which callbacks may be sent; may be given several times.",
            show_default="none",
        ),
    ] = None,
    max_upload: Annotated[float, typer.Option(help="Megabytes per upload.")] = UPLOAD,
    max_pixels: Annotated[float, typer.Option(help="Megapixels per picture or frame.")] = PIXELS,
    max_clip: Annotated[float, typer.Option(help="Seconds per clip.")] = LIMITS.clip_seconds,
    max_time: Annotated[
        float, typer.Option(help="Seconds of work per picture or clip.")
    ] = LIMITS.job_seconds,
    max_waiting: Annotated[int, typer.Option(help="Pictures and clips in the queue.")] = LIMITS.waiting,
    max_storage: Annotated[float, typer.Option(help="Megabytes of all stored files together.")] = STORAGE,
    keep: Annotated[float, typer.Option(help="Minutes until a result is deleted.")] = KEEP,
) -> None:
    """Serve a web page and an HTTP API that remove rain from pictures and short clips.

    Each request and each job is logged as a line of JSON on standard error. Ctrl-C and SIGTERM stop
    the server with exit code 0.

    Example: derain serve --port 8080

    Example: derain serve --model everyday --model weights/mine.safetensors --threads 4

    Example: export DERAIN_TOKEN=$(openssl rand -hex 16); echo $DERAIN_TOKEN; derain serve --host 0.0.0.0
    """
    with suppress(KeyboardInterrupt):  # the usual way to stop a server, even while it starts
        from derain.extras import extra

        for module in ("fastapi", "python_multipart", "uvicorn"):
            extra(module, "serve")
        from derain.restore import Settings
        from derain.serve.logs import to_stderr
        from derain.serve.server import serve as run

        limits = Limits(
            upload_bytes=_millions(max_upload),
            pixels=_millions(max_pixels),
            clip_seconds=max_clip,
            job_seconds=max_time,
            waiting=max_waiting,
            storage_bytes=_millions(max_storage),
            keep_seconds=keep * 60,
        )

        def listening(address: str) -> None:
            typer.echo(f"{address}  (Ctrl-C stops it and deletes its files)")

        if not is_quiet():
            to_stderr()
        run(
            host,
            port,
            limits,
            models=model or (),
            settings=Settings(device=device, precision=precision),
            threads=threads,
            workers=workers,
            token=token,
            callback_hosts=callback_host or (),
            listening=listening,
        )


def _millions(number: float) -> int:
    """This many millions, rounded; 0, which no limit can be, for a number that is not finite."""
    return round(number * 1e6) if math.isfinite(number) else 0
