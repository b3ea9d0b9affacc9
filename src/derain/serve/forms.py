"""What requests may contain: uploads with fields, or logins. Both are bounded before they are read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from derain.errors import UsageError, unknown_name
from derain.restore import Settings
from derain.serve.callbacks import refuse_unless_allowed
from derain.serve.limits import Limits, Refused
from derain.serve.models import OfferedModel
from derain.serve.problems import wrong_part
from derain.serve.uploads import safe_folder
from derain.serve.views import Login
from derain.strength import MAX_STRENGTH

FORM_BYTES = 10_000  # limit for an upload besides its files, and for a login
PATIENCE = 10  # seconds that a login may take, and an upload beyond what `Limits.upload_pace` allows
FILES = 500  # in one batch

_FIELDS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "One of /api/v1/models. Default: the first."},
    "strength": {
        "type": "number",
        "description": f"How much of the network's change to apply, 0 to {MAX_STRENGTH:g}.",
        "default": 1,
    },
    "folder": {
        "type": "string",
        "description": "Folder of the file, such as 'holiday/lake'; the result has "
        "the same folder in an archive.",
    },
    "callback": {
        "type": "string",
        "description": "Address to which the job is posted as JSON when it has ended; its host must be "
        "allowed by the operator.",
    },
}
_FILE = {
    "type": "string",
    "format": "binary",
    "description": "PNG, JPEG, WebP, TIFF, BMP or AVIF; MP4, MOV, MKV, WebM, AVI or GIF.",
}


@dataclass(frozen=True)
class Wishes:
    """What a client asks for besides its files."""

    model: str
    strength: float
    place: str
    callback: str


@dataclass(frozen=True)
class Form:
    """An upload; the files are in memory or, if larger, in unnamed temporary files."""

    files: tuple[UploadFile, ...]
    wishes: Wishes


def form_body(fields: Sequence[str], *, several: bool = False) -> dict[str, Any]:
    """The form of an upload, for the description of the API.

    Args:
        fields: the fields that it may have besides `file`.
        several: whether it takes several files.
    """
    file = {"type": "array", "items": _FILE} if several else _FILE
    properties = {"file": file, **{name: _FIELDS[name] for name in fields}}
    return _body({"type": "object", "required": ["file"], "properties": properties})


def finish_body() -> dict[str, Any]:
    """The form of `finish_form`, for the description of the API."""
    protect = {
        "type": "string",
        "format": "binary",
        "description": "A mask of any size, in the aspect ratio of the picture; white areas do not change.",
    }
    return _body({"type": "object", "properties": {"strength": _FIELDS["strength"], "protect": protect}})


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def login_body() -> dict[str, Any]:
    """The JSON of a login, for the description of the API."""
    content = {"application/json": {"schema": Login.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


@asynccontextmanager
async def upload_form(
    request: Request,
    limits: Limits,
    models: Sequence[OfferedModel],
    callback_hosts: frozenset[str],
    fields: Sequence[str] = tuple(_FIELDS),
    most: int = 1,
) -> AsyncIterator[Form]:
    """The form of a request; its files exist until the end of the block.

    Args:
        request: its body is read here.
        limits: the limits of size, time and pace.
        models: the models that clients may choose from; the first is the default.
        callback_hosts: the hosts to which callbacks may be sent; see `callbacks.allowed_hosts`.
        fields: the fields that it may have besides `file`.
        most: the largest number of files.

    Raises:
        Refused: 415 if it is not a form, 413 too large, 408 too slow, 400 broken; 422 if a field is wrong or
            unknown.
    """
    async with _parts(request, limits, most, "a file in the field 'file'") as parts:
        files, given = _sorted_out(parts, "file", fields, most)
        if not files:
            raise Refused(422, "the field 'file' is missing, or its file is not complete.")
        yield Form(files, _wishes(given, models, callback_hosts))


@asynccontextmanager
async def finish_form(request: Request, limits: Limits) -> AsyncIterator[tuple[float, UploadFile | None]]:
    """The strength, and the mask if anything is to be protected; the mask exists until the end of the block.

    Arguments and errors are those of `upload_form`.
    """
    what = "'strength' and, as a file, 'protect', or one of them"
    async with _parts(request, limits, 1, what) as parts:
        files, given = _sorted_out(parts, "protect", ("strength",), 1)
        yield _strength(given), files[0] if files else None


@asynccontextmanager
async def _parts(
    request: Request, limits: Limits, most: int, what: str
) -> AsyncIterator[list[tuple[str, UploadFile | str]]]:
    """The parts of a form, with at most one file more than `most`; they exist until the end of the block.

    `what` says what the form contains, for the error if none is sent.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(415, f"send multipart/form-data, {what}.")
    try:
        async with asyncio.timeout(min(PATIENCE, limits.upload_seconds)) as timeout:
            parser = MultiPartParser(
                request.headers,
                _bounded(request, limits, timeout),
                max_files=most + 1,  # one too many is read, to report it
                max_fields=len(_FIELDS),
                max_part_size=FORM_BYTES,
            )
            form = await parser.parse()
    except TimeoutError:
        raise Refused(
            408,
            f"the upload took longer than {limits.upload_seconds:g} s, or was slower than "
            f"{limits.upload_pace / 1000:g} kB per second.",
        ) from None
    except (MultiPartException, ClientDisconnect):
        raise Refused(400, "the upload is broken, was cut short, or has too many parts.") from None
    try:
        yield form.multi_items()
    finally:
        await form.close()


def _sorted_out(
    parts: Sequence[tuple[str, UploadFile | str]], file: str, fields: Sequence[str], most: int
) -> tuple[tuple[UploadFile, ...], dict[str, str]]:
    """Files, and other fields by their names. Raises `Refused` (422) for anything the form does not take."""
    files, given = [], dict[str, str]()
    for name, value in parts:
        if name == file and isinstance(value, UploadFile):
            files.append(value)
        elif name == file:
            raise Refused(422, f"'{name}' must be a file; it was sent as text.")
        elif name not in fields:
            raise Refused(422, str(unknown_name("field", name, (file, *fields))))
        elif not isinstance(value, str):
            raise Refused(422, f"'{name}' must be text; it was sent as a file.")
        elif name in given:
            raise Refused(422, f"'{name}' was given twice.")
        else:
            given[name] = value
    if len(files) > most:
        raise Refused(422, f"the field '{file}' takes {most} file{'s' * (most > 1)}; more were sent.")
    return tuple(files), given


async def _bounded(request: Request, limits: Limits, timeout: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, up to the size limit; each byte extends the time limit a little."""
    began = asyncio.get_running_loop().time()
    most = limits.upload_bytes + FORM_BYTES
    too_large = Refused(413, f"the upload is larger than the {limits.upload_bytes / 1e6:g} MB limit.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > most:
            raise too_large
        timeout.reschedule(began + min(PATIENCE + read / limits.upload_pace, limits.upload_seconds))
        yield chunk


def _wishes(given: dict[str, str], models: Sequence[OfferedModel], callback_hosts: frozenset[str]) -> Wishes:
    names = [model.name for model in models]
    model = given.get("model", names[0])
    if model not in names:
        raise Refused(422, str(unknown_name("model", model, names)))
    callback = given.get("callback", "")
    if callback:
        refuse_unless_allowed(callback, callback_hosts)
    return Wishes(model, _strength(given), safe_folder(given.get("folder", "")), callback)


def _strength(given: dict[str, str]) -> float:
    strength: Any = given.get("strength", "1")
    with contextlib.suppress(ValueError):
        strength = float(strength)
    try:
        return Settings(strength=strength).strength
    except UsageError as error:
        raise Refused(422, str(error)) from None


async def read_login(request: Request) -> Login:
    """The body of a login. Anybody may send one, so it is bounded before it is read.

    Raises:
        Refused: 413 if it is too large, 408 if too slow, 422 if it is not a login.
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
        raise Refused(422, wrong_part(error.errors()[0])) from None
