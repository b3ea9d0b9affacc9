"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from derain.errors import DerainError


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on success it is synced and renamed to `path`.

    On any exception, Ctrl-C included, the temporary file is removed and `path` stays as it was.
    Parent folders are made.

    Raises:
        DerainError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DerainError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):  # the parent may be no folder at all
            temporary.unlink()


def replace_file(path: str | Path, content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all. Raises `DerainError` as `new_file` does."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name, or a copy on disks without hard links; raises `OSError`."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
