"""One process at a time works on a file or folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from derain.atomic import short_stem
from derain.errors import DerainError, reason

_held: set[IO[bytes]] = set()


def _let_go() -> None:
    """In a new process, which would hold on to the locks of its parent after that has ended."""
    while _held:
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def only_here(target: Path) -> Iterator[None]:
    """Holds a file or folder that is being made, so that no second process makes it at the same time.

    The lock is a hidden file beside `target`, locked by the system, which lets go of it when its process
    ends in whatever way; a file that a killed process left is taken over.

    Raises:
        DerainError: another process holds it (which one, is said), or the folder cannot be written to.
    """
    path = target.with_name(f".{short_stem(target)}{target.suffix}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except OSError as error:
        raise DerainError(f"{target}: cannot be written ({reason(error)}).") from error
    if file is None:
        raise DerainError(f"{target}: is being written by {_holder(path)}; wait for it, or end it.")
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if sys.platform == "win32":  # an open file cannot be removed there
            file.close()
        with suppress(OSError):
            path.unlink()
        file.close()


def _locked(path: Path) -> IO[bytes] | None:
    """The file, open and locked, with this process's name in it; None when another holds it."""
    while True:
        file = path.open("a+b")
        try:
            if not _lock(file):
                file.close()
                return None
            # Its last holder may have removed it between our opening and locking it.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                file.truncate(0)
                who = {"process": os.getpid(), "machine": platform.node()}
                file.write(json.dumps(who).encode())
                file.flush()
                return file
        except OSError:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes]) -> bool:
    """Whether the file is now ours; also where the disk knows no locks. Nobody is waited for."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # far behind what is in it, which others may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
    return True


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes())
        return f"process {int(who['process'])} on {who['machine']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
