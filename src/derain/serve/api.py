"""The HTTP API below `/api`, the page, and the figures for those who run the server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import mimetypes
import tempfile
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from derain.checkpoints.bundled import DEFAULT, FOLDER, bundled_names
from derain.errors import DerainError, errors_of, unknown_name
from derain.serve.guard import COOKIE, Access, Guard, refusal
from derain.serve.jobs import Job, State, Store
from derain.serve.limits import Limits, Refused
from derain.serve.metrics import CONTENT_TYPE, Metrics
from derain.serve.previews import write_preview
from derain.serve.uploads import Kind, Upload, receive, safe_name
from derain.serve.worker import Worker

PAGE = Path(__file__).parent / "page"
ASSETS = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix != ".html"}
API_VERSION = "1"
FORM_BYTES = 10_000  # of an upload besides the file; of a login
CHECKS = 2  # uploads that are decoded at once: one that takes long holds nobody up
CHUNK = 1 << 16
PATIENCE = 10  # seconds that a login may take


class JobView(BaseModel):
    """A picture or clip on its way."""

    id: str
    name: str = Field(description="Of the file that was sent, without its path.")
    kind: Kind
    model: str
    state: State
    fraction: float = Field(description="Of the work that is done, 0 to 1.")
    ahead: int = Field(description="Jobs that come before it in the queue.")
    note: str = Field(description="Why it failed, or what to know of the result; one line.")
    result: str = Field(description="Name of the file to download.")
    mask: bool = Field(description="Whether there is a rain mask.")


class ModelView(BaseModel):
    """Bundled weights."""

    name: str
    title: str
    default: bool


class LimitsView(BaseModel):
    """What the server takes on."""

    upload_bytes: int
    pixels: int
    clip_seconds: float
    job_seconds: float
    keep_seconds: float


class Login(BaseModel):
    """The token, from the page."""

    token: str


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    error: str


@dataclass(frozen=True)
class Server:
    """What the endpoints work with."""

    store: Store
    limits: Limits
    metrics: Metrics
    access: Access
    checking: asyncio.Semaphore  # of `CHECKS`


def create_app(
    limits: Limits, *, token: str | None = None, hosts: frozenset[str] | None = None, device: str = "auto"
) -> FastAPI:
    """The application.

    Its files live in a temporary folder from the start of its lifespan to the end.

    Args:
        token: that clients must know; None for none.
        hosts: names that it may be asked by; None for any.
        device: see `derain.restore.Settings`.
    """
    access, metrics = Access(token), Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="derain-serve-", ignore_cleanup_errors=True) as folder:
            store = Store(Path(folder), limits)
            app.state.server = Server(store, limits, metrics, access, asyncio.Semaphore(CHECKS))
            worker = Worker(store, limits, metrics, device)
            worker.start()
            sweeping = asyncio.create_task(_sweep(store, min(30.0, limits.keep_seconds / 4)))
            yield
            sweeping.cancel()
            store.close()
            await run_in_threadpool(worker.join)

    app = FastAPI(
        title="derain",
        version=API_VERSION,
        description="Takes the rain out of pictures and short clips.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(Guard, hosts=hosts, access=access, responded=metrics.responded)
    app.add_exception_handler(DerainError, _say)
    app.add_exception_handler(HTTPException, _say)
    app.add_exception_handler(RequestValidationError, _say)
    _add_page(app)
    _add_api(app)
    return app


async def _sweep(store: Store, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await run_in_threadpool(store.sweep)


def _say(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, Refused):
        return refusal(error)
    if isinstance(error, HTTPException):
        return refusal(Refused(error.status_code, str(error.detail)))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return refusal(Refused(422, f"{where}: {first['msg']}."))
    return refusal(Refused(422, str(error)))


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(_server)]


def _job(job_id: str, server: ServerDep) -> Job:
    return server.store.get(job_id)


def _jobs(server: ServerDep, id: Annotated[list[str], Query(min_length=1, max_length=200)]) -> list[Job]:
    return [server.store.get(job_id) for job_id in dict.fromkeys(id)]


def _finished(job: Annotated[Job, Depends(_job)]) -> Job:
    if job.state == "failed":
        raise Refused(409, job.note)
    if job.state != "done":
        raise Refused(409, "not finished yet.")
    return job


JobDep = Annotated[Job, Depends(_job)]
JobsDep = Annotated[list[Job], Depends(_jobs)]
FinishedDep = Annotated[Job, Depends(_finished)]


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return FileResponse(PAGE / "docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in ASSETS:
            raise Refused(404, "no such file.")
        return FileResponse(ASSETS[name], headers={"Cache-Control": "no-cache"})

    @app.get("/health", summary="Whether the server is up")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    def metrics(server: ServerDep) -> Response:
        return Response(server.metrics.render(server.store), media_type=CONTENT_TYPE)


def _add_api(app: FastAPI) -> None:
    problems: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem, "description": "Refused"}}
    binary: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/octet-stream": {}}, "description": "The file"}, **problems
    }  # fmt: skip

    @app.post(
        "/api/login",
        summary="Exchange the token for a cookie",
        status_code=204,
        responses=problems,
        openapi_extra={"requestBody": _LOGIN_BODY},
    )
    async def login(request: Request, server: ServerDep) -> Response:
        if not server.access.knows((await _read_login(request)).token):
            raise Refused(401, "that is not the token.")
        response = Response(status_code=204)
        response.set_cookie(COOKIE, server.access.cookie, httponly=True, samesite="strict")
        return response

    @app.get("/api/models", summary="The weights to choose from")
    def models() -> list[ModelView]:
        return [ModelView(name=name, title=_title(name), default=name == DEFAULT) for name in bundled_names()]

    @app.get("/api/limits", summary="What the server takes on")
    def limits(server: ServerDep) -> LimitsView:
        return LimitsView.model_validate(server.limits, from_attributes=True)

    @app.post(
        "/api/jobs",
        summary="Send a picture or a short clip",
        status_code=201,
        response_model=JobView,
        responses=problems,
        openapi_extra={"requestBody": _UPLOAD_BODY},
    )
    async def submit(request: Request, server: ServerDep) -> JobView:
        with server.store.receiving() as folder:
            form = await _read_form(request, server.limits)
            try:
                file, model = _fields(form)
                async with server.checking:
                    upload = await run_in_threadpool(
                        _take, file.file, file.filename or "", folder, server.limits
                    )
                job = server.store.add(folder, upload, model)
            finally:
                await form.close()
        server.metrics.uploaded(file.size or 0)
        return _view(job, server)

    @app.get("/api/jobs/{job_id}", summary="How far it is", responses=problems)
    def job(job: JobDep, server: ServerDep) -> JobView:
        return _view(job, server)

    @app.delete("/api/jobs/{job_id}", summary="Cancel and delete", status_code=204, responses=problems)
    def delete(job: JobDep, server: ServerDep) -> None:
        server.store.delete(job.id)

    @app.get(
        "/api/events",
        summary="Progress of some jobs as server-sent events",
        description="An event 'job' (a JobView) at once and after each change of a job, an event 'gone' "
        "({id}) when it has been deleted. Ends when all have ended.",
        response_class=EventSourceResponse,
        responses=problems,
    )
    async def events(jobs: JobsDep, server: ServerDep) -> AsyncIterator[ServerSentEvent]:
        async for event in _events([job.id for job in jobs], server):
            yield event

    @app.get("/api/jobs/{job_id}/result", summary="The restored file", responses=binary)
    def result(job: FinishedDep) -> Response:
        return _file(job.result, job.result_name)

    @app.get("/api/jobs/{job_id}/mask", summary="The rain mask, an 8-bit grey PNG", responses=binary)
    def mask(job: FinishedDep) -> Response:
        if not job.mask.exists():
            raise Refused(404, "there is no mask; this network makes none.")
        return _file(job.mask, f"{Path(job.result_name).stem}-mask.png", inline=True)

    @app.get("/api/jobs/{job_id}/before", summary="The rainy picture to look at", responses=binary)
    def before(job: JobDep) -> Response:
        return _file(job.preview("before"), "before.jpg", inline=True)

    @app.get("/api/jobs/{job_id}/after", summary="The restored picture to look at", responses=binary)
    def after(job: FinishedDep) -> Response:
        return _file(job.preview("after"), "after.jpg", inline=True)

    @app.get("/api/results.zip", summary="Several restored files at once", responses=binary)
    def results(jobs: JobsDep) -> Response:
        return _stream(_zip([_finished(job) for job in jobs]), "derained.zip", "attachment")


_UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "PNG, JPEG, WebP, TIFF, BMP or AVIF; MP4, MOV, MKV, WebM, AVI or GIF.",
                    },
                    "model": {"type": "string", "description": "One of /api/models.", "default": DEFAULT},
                },
            }
        }
    },
}


_LOGIN_BODY = {
    "required": True,
    "content": {"application/json": {"schema": Login.model_json_schema()}},
}


async def _read_login(request: Request) -> Login:
    """The body of a login. Anybody may send one, so it is bounded before it is looked at.

    Raises:
        Refused: 413 too large, 408 too slow, 422 not a login.
    """
    body = b""
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES:
                    raise Refused(413, "larger than a login can be.")
        return Login.model_validate_json(body)
    except TimeoutError:
        raise Refused(408, f"the login took longer than {PATIENCE} s.") from None
    except ClientDisconnect:
        raise Refused(400, "the login was cut short.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise Refused(422, f"{place}: {first['msg']}.") from None


def _title(model: str) -> str:
    """What the first line of the model card calls it."""
    card = FOLDER / f"{model}.md"
    line = card.read_text(encoding="utf-8").splitlines()[0] if card.exists() else model
    return line.removeprefix("#").strip().removeprefix(f"`{model}`:").strip()


async def _read_form(request: Request, limits: Limits) -> FormData:
    """The parts of an upload; the file lies in memory or, when it is larger, in a file without a name.

    Raises:
        Refused: 415 not a form, 413 too large, 408 too slow, 400 broken.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(415, "send the file as multipart/form-data, in the field 'file'.")
    most = limits.upload_bytes + FORM_BYTES
    too_large = Refused(413, f"larger than the {limits.upload_bytes / 1e6:g} MB that are taken.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large

    async def bounded() -> AsyncGenerator[bytes, None]:
        read = 0
        async for chunk in request.stream():
            read += len(chunk)
            if read > most:
                raise too_large
            yield chunk

    parser = MultiPartParser(request.headers, bounded(), max_files=1, max_fields=1, max_part_size=FORM_BYTES)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            return await parser.parse()
    except TimeoutError:
        raise Refused(408, f"the upload took longer than {limits.upload_seconds:g} s.") from None
    except (MultiPartException, ClientDisconnect):
        raise Refused(400, "the upload is broken or was cut short.") from None


def _fields(form: FormData) -> tuple[UploadFile, str]:
    file, model = form.get("file"), form.get("model", DEFAULT)
    if not isinstance(file, UploadFile) or not isinstance(model, str):
        raise Refused(422, "no whole file has come in the field 'file'.")
    if not file.size:
        raise Refused(422, "the file is empty.")
    if model not in bundled_names():
        raise Refused(422, str(unknown_name("model", model, bundled_names())))
    return file, model


def _take(file: BinaryIO, name: str, folder: Path, limits: Limits) -> Upload:
    """The file, checked; whatever a decoder trips over is the upload's fault."""
    with errors_of(safe_name(name)):
        upload, picture = receive(file, name, folder, limits)
        write_preview(folder / "before.jpg", picture)
    return upload


def _view(job: Job, server: Server) -> JobView:
    return JobView(
        id=job.id,
        name=job.upload.name,
        kind=job.upload.kind,
        model=job.model,
        state=job.state,
        fraction=round(job.fraction, 3),
        ahead=server.store.ahead_of(job),
        note=job.note,
        result=job.result_name,
        mask=job.state == "done" and job.mask.exists(),
    )


async def _events(ids: list[str], server: Server) -> AsyncIterator[ServerSentEvent]:
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(changed.set)

    known: dict[str, JobView | None] = dict.fromkeys(ids)
    with server.store.following(tell):
        while known:
            changed.clear()
            for job_id, last in list(known.items()):
                try:
                    view = _view(server.store.get(job_id), server)
                except Refused:
                    del known[job_id]
                    yield ServerSentEvent(event="gone", data={"id": job_id})
                    continue
                if view != last:
                    known[job_id] = view
                    yield ServerSentEvent(event="job", data=view)
                if view.state in ("done", "failed"):
                    del known[job_id]
            if known:
                await changed.wait()


def _file(path: Path, name: str, *, inline: bool = False) -> Response:
    """A file of a job, which may be deleted while it is sent."""
    try:
        file = path.open("rb")
    except OSError:
        raise Refused(404, "no such job; it may have been deleted.") from None
    return _stream(file, name, "inline" if inline else "attachment")


def _stream(file: BinaryIO, name: str, shown: Literal["inline", "attachment"]) -> Response:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(CHUNK):
                yield chunk

    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    headers = {
        "Content-Disposition": f"{shown}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Length": str(size),
        "Cache-Control": "private, no-store",
    }
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(chunks(), media_type=kind, headers=headers)


def _zip(jobs: list[Job]) -> BinaryIO:
    """The results under their names, numbered where names recur; a file without a name on disk."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by who sends it
    names: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for job in jobs:
            name = Path(job.result_name)
            number = 1
            while str(name) in names:
                number += 1
                name = Path(job.result_name).with_stem(f"{Path(job.result_name).stem} ({number})")
            names.add(str(name))
            try:
                archive.write(job.result, str(name))
            except FileNotFoundError:
                file.close()
                raise Refused(404, f"{job.upload.name}: has been deleted.") from None
    return file
