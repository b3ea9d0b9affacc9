"""The endpoints: the page, monitoring, and the API."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from derain.errors import DerainError, errors_of
from derain.pictures import read_picture
from derain.serve.envelope import VERSION
from derain.serve.finishing import finish
from derain.serve.following import end_of, events
from derain.serve.forms import (
    FILES,
    Wishes,
    finish_body,
    finish_form,
    form_body,
    login_body,
    read_login,
    upload_form,
)
from derain.serve.guard import COOKIE, Access
from derain.serve.jobs import ServerJob, Store
from derain.serve.limits import Limits, Refused
from derain.serve.metrics import CONTENT_TYPE, Metrics
from derain.serve.models import OfferedModel
from derain.serve.previews import full_preview, write_preview
from derain.serve.responses import archive_response, bytes_response, file_response
from derain.serve.uploads import Upload, receive, safe_name
from derain.serve.views import BatchEntry, JobView, LimitsView, ModelView, Problem, Status, limits_view, view
from derain.serve.worker import Workers

PAGE = Path(__file__).parent / "page"
ASSETS = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix != ".html"}
EVENT_STREAM = "text/event-stream"
CHECKS = 2  # uploads that are decoded at once, so that a slow one does not block the others


@dataclass(frozen=True)
class Server:
    """What the endpoints share.

    Attributes:
        store: the jobs.
        limits: what is accepted.
        metrics: figures about requests and jobs.
        access: tells whether a client knows the token.
        checking: limits how many uploads are decoded at once to `CHECKS`.
        models: the models that clients may choose from; the first is the default.
        callback_hosts: the hosts to which callbacks may be sent; see `callbacks.allowed_hosts`.
        workers: the threads that restore.
    """

    store: Store
    limits: Limits
    metrics: Metrics
    access: Access
    checking: asyncio.Semaphore
    models: tuple[OfferedModel, ...]
    callback_hosts: frozenset[str]
    workers: Workers


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(_server)]


def _job(job_id: str, server: ServerDep) -> ServerJob:
    return server.store.get(job_id)


def _jobs(
    server: ServerDep, id: Annotated[list[str], Query(min_length=1, max_length=FILES)]
) -> list[ServerJob]:
    return [server.store.get(job_id) for job_id in dict.fromkeys(id)]


def _finished(job: Annotated[ServerJob, Depends(_job)]) -> ServerJob:
    if job.state == "failed":
        raise Refused(409, job.note)
    if job.state != "done":
        raise Refused(409, "not finished yet.")
    return job


JobDep = Annotated[ServerJob, Depends(_job)]
JobsDep = Annotated[list[ServerJob], Depends(_jobs)]
FinishedDep = Annotated[ServerJob, Depends(_finished)]


# For previews: all pixels of a picture, instead of at most 2000 on the longer side.
Full = Annotated[bool, Query(description="All pixels of a picture, however many.")]


def add_page(app: FastAPI) -> None:
    """Adds the page, and the endpoints for monitoring."""

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
    def health() -> Status:
        return Status(status="ok")

    @app.get(
        "/ready",
        summary="Whether all models are loaded, so that no job has to wait for them",
        responses={503: {"model": Status, "description": "Not yet"}},
    )
    def ready(response: Response, server: ServerDep) -> Status:
        if server.workers.ready:
            return Status(status="ok")
        response.status_code = 503
        return Status(status="loading models")

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    def metrics(server: ServerDep) -> Response:
        text = server.metrics.render(server.store, server.workers.ready)
        return Response(text, media_type=CONTENT_TYPE)


def add_api(app: FastAPI) -> None:
    """Adds the API for the page and for programs."""
    problems: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem, "description": "Refused"}}
    api = APIRouter(prefix=VERSION, responses=problems)
    _add_general(api)
    _add_uploads(api)
    _add_jobs(api)
    app.include_router(api)


def _add_general(api: APIRouter) -> None:
    @api.post(
        "/login", summary="Exchange the token for a cookie", status_code=204, openapi_extra=login_body()
    )
    async def login(request: Request, server: ServerDep) -> Response:
        if not server.access.knows((await read_login(request)).token):
            raise Refused(401, "wrong token.")
        response = Response(status_code=204)
        response.set_cookie(COOKIE, server.access.cookie, httponly=True, samesite="strict")
        return response

    @api.get("/models", summary="The models to choose from")
    def models(server: ServerDep) -> list[ModelView]:
        first = server.models[0]
        return [ModelView(name=m.name, title=m.title, default=m is first) for m in server.models]

    @api.get("/limits", summary="What the server accepts")
    def limits(server: ServerDep) -> LimitsView:
        return limits_view(server.limits)


def _add_uploads(api: APIRouter) -> None:
    @api.post(
        "/jobs",
        summary="Send a picture or a short clip",
        status_code=201,
        responses=_NO_ROOM,
        openapi_extra=form_body(("model", "strength", "folder", "callback")),
    )
    async def submit(request: Request, server: ServerDep) -> JobView:
        with server.store.receiving() as folder:
            async with upload_form(request, server.limits, server.models, server.callback_hosts) as form:
                job = await _add(form.files[0], form.wishes, folder, request, server)
        return view(job, server.store)

    @api.post(
        "/batches",
        summary="Send several pictures and clips at once",
        description="Together no larger than the limit of one upload. Each file becomes its own job or "
        "is refused separately.",
        status_code=201,
        responses=_NO_ROOM,
        openapi_extra=form_body(("model", "strength", "folder", "callback"), several=True),
    )
    async def batch(request: Request, server: ServerDep) -> list[BatchEntry]:
        with contextlib.ExitStack() as place:
            place.enter_context(server.store.receiving())
            form_of_request = upload_form(
                request, server.limits, server.models, server.callback_hosts, most=FILES
            )
            async with form_of_request as form:
                place.close()  # the place held for the request is free for its files
                return [await _entry(file, form.wishes, request, server) for file in form.files]

    @api.post(
        "/restore",
        summary="Send a picture and wait for the restored one",
        description="The response is the file that a job would give; the header Derain-Note has its note, "
        "percent-encoded. Nothing is stored. The request waits in the queue like a job; clips are refused.",
        response_class=Response,
        responses=_BINARY | _NO_ROOM,
        openapi_extra=form_body(("model", "strength")),
    )
    async def restore(request: Request, server: ServerDep) -> Response:
        with server.store.receiving() as folder:
            form_of_request = upload_form(
                request, server.limits, server.models, server.callback_hosts, ("model", "strength")
            )
            async with form_of_request as form:
                job = await _add(form.files[0], form.wishes, folder, request, server, clips=False)
        try:
            ended = await end_of(job.id, server.store, request)
            if ended.state == "failed":
                raise Refused(422, ended.note)
            response = file_response(ended.result, ended.result_name)
            response.headers["Derain-Note"] = quote(ended.note)
            return response
        finally:
            with contextlib.suppress(Refused):
                server.store.delete(job.id)


def _add_jobs(api: APIRouter) -> None:
    @api.get("/jobs/{job_id}", summary="How far it is")
    def job(job: JobDep, server: ServerDep) -> JobView:
        return view(job, server.store)

    @api.delete("/jobs/{job_id}", summary="Cancel and delete", status_code=204)
    def delete(job: JobDep, server: ServerDep) -> None:
        server.store.delete(job.id)

    @api.get(
        "/events",
        summary="Progress of some jobs as server-sent events",
        description="An event 'job' (a JobView) at once and after each change of a job, an event 'gone' "
        "({id}) when it has been deleted. Ends when all have ended.",
        response_class=Response,
        responses=_EVENTS,
    )
    async def follow(jobs: JobsDep, server: ServerDep) -> Response:
        # FastAPI's own event stream fails if a client disconnects while an event is being sent.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is for nginx
        followed = events([job.id for job in jobs], server.store)
        return StreamingResponse(followed, media_type=EVENT_STREAM, headers=headers)

    @api.get("/jobs/{job_id}/result", summary="The restored file", responses=_BINARY)
    def result(job: FinishedDep) -> Response:
        return file_response(job.download, job.result_name)

    @api.put(
        "/jobs/{job_id}/finish",
        summary="Reduce the change, everywhere or in places, without another run",
        description="From then on the job's result is blended from the files of the rainy and the restored "
        "picture. Fields that are not given are as in the job: strength 1, nothing protected.",
        openapi_extra=finish_body(),
    )
    async def finish_job(request: Request, job: FinishedDep, server: ServerDep) -> JobView:
        if job.upload.kind == "clip":
            raise Refused(409, "a clip has to be restored again; send it with the strength that you want.")
        async with finish_form(request, server.limits) as (strength, protect), server.checking:
            mask = None if protect is None else protect.file
            made = await run_in_threadpool(finish, job, strength, mask, server.limits)
        return view(server.store.finish(job.id, made), server.store)

    @api.get(
        "/jobs/{job_id}/protect", summary="Where nothing was changed, an 8-bit grey PNG", responses=_BINARY
    )
    def protect(job: FinishedDep) -> Response:
        if job.finish is None or job.finish.protect is None:
            raise Refused(404, "this job has no protection mask.")
        return file_response(job.finish.protect, "protect.png", inline=True)

    @api.get(
        "/jobs/{job_id}/film",
        summary="A clip before and after, side by side, without sound: H.264 in MP4",
        responses=_BINARY,
    )
    def film(job: FinishedDep) -> Response:
        if not job.film.exists():
            raise Refused(404, "comparison videos exist only for videos.")
        return file_response(job.film, "film.mp4", inline=True)

    @api.get("/jobs/{job_id}/mask", summary="The rain mask, an 8-bit grey PNG", responses=_BINARY)
    def mask(job: FinishedDep) -> Response:
        if not job.mask.exists():
            raise Refused(404, "there is no mask; this network makes none.")
        return file_response(job.mask, f"{Path(job.result_name).stem}-mask.png", inline=True)

    @api.get("/jobs/{job_id}/before", summary="The rainy picture as a JPEG preview", responses=_BINARY)
    async def before(job: JobDep, server: ServerDep, full: Full = False) -> Response:
        if full and job.upload.kind == "picture":
            return await _full(job.upload.source, "before.jpg", server)
        return file_response(job.preview("before"), "before.jpg", inline=True)

    @api.get(
        "/jobs/{job_id}/after",
        summary="The restored picture as a JPEG preview",
        responses=_BINARY,
    )
    async def after(job: FinishedDep, server: ServerDep, full: Full = False) -> Response:
        if full and job.upload.kind == "picture":
            return await _full(job.result, "after.jpg", server)
        return file_response(job.preview("after"), "after.jpg", inline=True)

    @api.get("/results.zip", summary="Several restored files at once", responses=_BINARY)
    def results(jobs: JobsDep) -> Response:
        return archive_response([_finished(job) for job in jobs])


_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file"}
}
_NO_ROOM: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "The store is full, or the server is stopping"}
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            EVENT_STREAM: {
                "itemSchema": {
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "event": {"type": "string", "enum": ["job", "gone"]},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                }
            }
        },
        "description": "The events",
    }
}


async def _full(path: Path, name: str, server: Server) -> Response:
    """All pixels of a picture in a form that browsers can show."""
    async with server.checking:
        content = await run_in_threadpool(lambda: full_preview(read_picture(path)))
    return bytes_response(content, name)


async def _entry(file: UploadFile, wishes: Wishes, request: Request, server: Server) -> BatchEntry:
    name = safe_name(file.filename or "")
    try:
        with server.store.receiving() as folder:
            job = await _add(file, wishes, folder, request, server)
    except DerainError as error:
        return BatchEntry(name=name, error=str(error))
    return BatchEntry(name=job.upload.name, job=view(job, server.store))


async def _add(
    file: UploadFile, wishes: Wishes, folder: Path, request: Request, server: Server, *, clips: bool = True
) -> ServerJob:
    """Checks a file and puts it into the queue.

    Raises:
        Refused: the file is not accepted.
    """
    if not file.size:
        raise Refused(422, "the file is empty.")
    async with server.checking:
        upload = await run_in_threadpool(_take, file.file, file.filename or "", folder, server.limits)
    if upload.kind == "clip" and not clips:
        raise Refused(415, "this address takes pictures only; send clips to /api/v1/jobs.")
    server.metrics.uploaded(file.size or 0)
    return server.store.add(folder, upload, request_id=request.scope["request_id"], **vars(wishes))


def _take(file: BinaryIO, name: str, folder: Path, limits: Limits) -> Upload:
    """The file, checked; a failure of the decoder is blamed on the upload."""
    with errors_of(safe_name(name)):
        upload, picture = receive(file, name, folder, limits)
        write_preview(folder / "before.jpg", picture)
    return upload
