"""JSON lines that survive a torn end: run logs, manifests, evaluations.

A process may be killed while it appends a line. Readers ignore incomplete lines, and the next line that is
appended begins on a new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from derain.errors import DerainError, reason


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file in order; none if there is no file. Incomplete lines are left out.

    Raises:
        DerainError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from error
    found = (_parsed(line) for line in lines)
    return [record for record in found if record is not None]


def append_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends a line for each record; they are on the disk when it returns.

    Raises:
        DerainError: the file cannot be written, e.g. because the disk is full.
    """
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            is_torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * is_torn + lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DerainError(f"{path}: cannot be written ({reason(error)}).") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
