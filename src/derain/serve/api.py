"""The application: state that lives as long as the server, and the middleware around its endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from derain.errors import DerainError
from derain.serve.callbacks import Call, Callbacks
from derain.serve.endpoints import CHECKS, Server, add_api, add_page
from derain.serve.envelope import VERSION, Envelope
from derain.serve.guard import COOKIE, Access, Guard
from derain.serve.jobs import ServerJob, Store
from derain.serve.limits import Limits
from derain.serve.metrics import Metrics
from derain.serve.problems import say_problems
from derain.serve.views import view
from derain.serve.worker import Workers, WorkerSettings


def create_app(
    limits: Limits,
    work: WorkerSettings,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    callback_hosts: frozenset[str] = frozenset(),
    gave_up: Callable[[DerainError], None] = lambda error: None,
) -> FastAPI:
    """Creates the application.

    Its files are in a temporary folder that lasts from the start of its lifespan to the end.

    Args:
        limits: what it accepts.
        work: the models, and how they run.
        token: the token that clients must know; None for none.
        hosts: host names that requests may use; None for any.
        callback_hosts: the hosts to which callbacks of jobs may be sent; see `callbacks.allowed_hosts`.
        gave_up: called with the reason why no job can be done.
    """
    access, metrics = Access(token), Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="derain-serve-", ignore_cleanup_errors=True) as folder:
            store, callbacks = Store(Path(folder), limits), Callbacks()

            def ended(job: ServerJob) -> None:
                if job.callback:
                    body = view(job, store).model_dump_json().encode()
                    callbacks.add(Call(job.callback, body, job.request_id))

            workers = Workers(work, store, limits, metrics, ended, gave_up)
            app.state.server = Server(
                store=store,
                limits=limits,
                metrics=metrics,
                access=access,
                checking=asyncio.Semaphore(CHECKS),
                models=work.models,
                callback_hosts=callback_hosts,
                workers=workers,
            )
            workers.start()
            sweeping = asyncio.create_task(_sweep(store, min(30.0, limits.keep_seconds / 4)))
            yield
            sweeping.cancel()
            store.close()
            callbacks.close()
            await run_in_threadpool(workers.join)

    app = FastAPI(
        title="derain",
        version=VERSION.rpartition("v")[2],
        description="Removes rain from pictures and short clips.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(Guard, hosts=hosts, access=access)
    app.add_middleware(Envelope, responded=metrics.responded)  # the last one added is the outermost
    say_problems(app, "/docs lists the addresses of the API, and the page is at /.")
    add_page(app)
    add_api(app)

    # FastAPI's own address for it has no route, by which the log and the metrics name it.
    @app.get(f"{VERSION}/openapi.json", include_in_schema=False)
    def description() -> dict[str, Any]:
        return _description(app, token is not None)

    return app


async def _sweep(store: Store, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await run_in_threadpool(store.sweep)


def _description(app: FastAPI, guarded: bool) -> dict[str, Any]:
    """The OpenAPI description, with the ways to send the token, if there is one."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        if guarded:
            found.setdefault("components", {})["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "description": "The token of the server."},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "From a login."},
            }
            found["security"] = [{"token": []}, {"cookie": []}]
            for path in ("/health", "/ready", f"{VERSION}/login"):
                for operation in found["paths"][path].values():
                    operation["security"] = []
        app.openapi_schema = found
    return app.openapi_schema
