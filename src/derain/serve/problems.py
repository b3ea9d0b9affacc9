"""Errors as responses: each is one line, as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from derain.errors import DerainError
from derain.serve.limits import Refused

LONGEST_SHOWN = 80  # characters shown of an address that does not exist
METHODS = ("GET", "POST", "PUT", "DELETE")
# What is wrong with a part of a request, by the kinds of errors of pydantic.
FAULTS = {
    "missing": "is missing",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "json_invalid": "must be JSON",
    "model_type": "must be a JSON object",
}


def refusal(refused: Refused) -> JSONResponse:
    """The response to a refused request: one line, as JSON."""
    extra = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "30"}, 503: {"Retry-After": "30"}}.get(
        refused.status
    )
    return JSONResponse({"error": str(refused)}, refused.status, extra)


def say_problems(app: FastAPI, addresses: str) -> None:
    """Makes an application inside `Envelope` answer every error in one line.

    Args:
        app: the application; its routes tell which addresses and methods exist.
        addresses: a sentence that tells people where the addresses are listed.
    """
    say = _saying(app, addresses)
    for kind in (DerainError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, say)


def _saying(app: FastAPI, addresses: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def say(request: Request, error: Exception) -> Response:
        if isinstance(error, Refused):
            return refusal(error)
        if isinstance(error, HTTPException):
            return _of_http(app, addresses, request, error)
        if isinstance(error, RequestValidationError):
            return refusal(Refused(422, wrong_part(error.errors()[0])))
        return refusal(Refused(422, str(error)))

    return say


def wrong_part(error: Mapping[str, Any]) -> str:
    """What is wrong with a part of a request, in one sentence.

    Args:
        error: as pydantic describes it; its place is that of a parameter of the address, or of a value in the
            body.
    """
    kind, place, facts = error["type"], error["loc"], error.get("ctx", {})
    name = f"'{place[-1]}'" if place else "the body"
    if kind == "missing" and place[0] == "query":
        return f"{name} is missing; add it to the address: ?{place[-1]}=..."
    if kind == "too_long":
        return f"{name} was given {facts['actual_length']} times; at most {facts['max_length']}."
    return f"{name} {FAULTS.get(kind, error['msg'])}."


def _of_http(app: FastAPI, addresses: str, request: Request, error: HTTPException) -> Response:
    """What is wrong, and which addresses and methods exist if the requested one does not."""
    path = request.scope["asked"]
    asked = path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}..."
    headers, words = dict(error.headers or {}), str(error.detail)
    if error.status_code == 404:
        words = f"{asked}: there is no such address; {addresses}"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(app, request))
        words = f"{asked}: takes {headers['Allow']}, not {request.method}; {addresses}"
    said = refusal(Refused(error.status_code, words))
    said.headers.update(headers)
    return said


def _methods(app: FastAPI, request: Request) -> list[str]:
    """All methods of an address; each route has only one, and the error names only the first route's."""
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in app.routes)
    ]
