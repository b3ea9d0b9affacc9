"""Files as responses: results, previews, and several results in one archive."""

from __future__ import annotations

import io
import mimetypes
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse

from derain.serve.jobs import ServerJob
from derain.serve.limits import Refused

CHUNK = 1 << 16


def file_response(path: Path, name: str, *, inline: bool = False) -> Response:
    """A file of a job, which may be deleted while it is sent.

    Args:
        path: the file.
        name: the name under which it is saved.
        inline: whether it is to be shown rather than saved.

    Raises:
        Refused: 404 if it is gone.
    """
    try:
        file = path.open("rb")
    except OSError:
        raise Refused(404, "no such job; it may have been deleted.") from None
    return _stream(file, name, "inline" if inline else "attachment")


def bytes_response(content: bytes, name: str) -> Response:
    """Bytes to be shown; the type follows from the extension of `name`."""
    return _stream(io.BytesIO(content), name, "inline")


def archive_response(jobs: Sequence[ServerJob]) -> Response:
    """The results of several jobs in their folders and under their names, numbered if a name recurs.

    Args:
        jobs: finished jobs.

    Raises:
        Refused: 404 if one of them is gone.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed once it is sent
    names: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for job in jobs:
            wanted = name = PurePosixPath(job.place, job.result_name)
            number = 1
            while str(name) in names:
                number += 1
                name = wanted.with_stem(f"{wanted.stem} ({number})")
            names.add(str(name))
            try:
                archive.write(job.download, str(name))
            except FileNotFoundError:
                file.close()
                raise Refused(404, f"{job.upload.name}: has been deleted.") from None
    return _stream(file, "derained.zip", "attachment")


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
