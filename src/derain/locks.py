"""Locks, so that only one process at a time works on a file or folder."""

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


def _release_inherited() -> None:
    """Releases inherited locks in a new process, which would hold them after its parent has ended."""
    while _held:
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_inherited)


@contextmanager
def exclusive_lock(target: Path) -> Iterator[None]:
    """Locks a file or folder that is being made, so that no other process makes it at the same time.

    The lock is a hidden file beside `target`, locked by the system, which unlocks it however the process
    ends; a file left by a killed process is taken over.

    Raises:
        DerainError: another process holds it (the message names it), or the folder cannot be written to.
    """
    path = target.with_name(f".{short_stem(target)}{target.suffix}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except OSError as error:
        raise DerainError(f"{target}: cannot be written ({reason(error)}).") from error
    if file is None:
        raise DerainError(f"{target}: is being written by {_holder(path)}; wait for it, or stop it.")
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
    """The file, open and locked, with this process's name in it; None if another holds it."""
    while True:
        file = path.open("a+b")
        try:
            if not _lock(file):
                file.close()
                return None
            # Its last holder may have removed it after we opened it and before we locked it.
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
    """Whether the file is now ours, which it also is on disks without locks; does not wait."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # far beyond its content, which others may read
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
