"""Files that appear whole or not at all."""

from __future__ import annotations

import functools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from derain.errors import DerainError, Remedy, UsageError, reason
from derain.paths import exists

# .NAME.PROCESS.RANDOM.part.EXTENSION; see `_process`.
_PART = re.compile(r"\..*\.([^.]+-\d+-\d+)\.[0-9a-f]{8}\.part(\.[^.]*)?")
PROBE = bytes(1 << 16)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on success it is synced and renamed to `path`.

    On any exception, Ctrl-C included, the temporary file is removed and `path` stays as it was. Parent
    folders are made. Leftovers of killed processes are removed from the folder on first use.

    Raises:
        DerainError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{short_stem(path)}.{_process()}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DerainError(f"{path}: cannot be written ({reason(error)}).") from error
    finally:
        with suppress(OSError):  # the parent may not be a folder
            temporary.unlink()


def short_stem(path: Path) -> str:
    """The start of a file's name, short enough that no file system refuses it with what is added."""
    return path.stem.encode(errors="surrogateescape")[:80].decode(errors="ignore")


def _process() -> str:
    """Identifies this process across machines and restarts: machine, process id and start time."""
    machine = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:20] or "machine"
    process = psutil.Process()
    return f"{machine}-{process.pid}-{round(process.create_time() * 100)}"


def _has_ended(process: str) -> bool:
    """Whether the process that `_process` named ran on this machine and has ended."""
    machine, number, start = process.rsplit("-", 2)
    if machine != _process().rsplit("-", 2)[0]:
        return False
    try:
        return round(psutil.Process(int(number)).create_time() * 100) != int(start)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed processes from a folder; those of running ones stay."""
    with suppress(OSError):
        for entry in folder.iterdir():
            part = _PART.fullmatch(entry.name)
            if part is not None and _has_ended(part[1]):
                with suppress(OSError):
                    entry.unlink()


@functools.lru_cache(maxsize=1000)
def _remove_leftovers_once(folder: Path) -> None:
    remove_leftovers(folder)


def refuse_unwritable(folder: Path) -> None:
    """Checks before the work that results can be written below a folder, which need not exist yet.

    Removes leftovers of killed processes where it tries that: there, one may have been killed while it tried.

    Raises:
        DerainError: it is a file, read-only or on a full disk.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    remove_leftovers(existing)
    probe = existing / f".probe.{_process()}.{secrets.token_hex(4)}.part"
    try:
        with probe.open("xb") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DerainError(f"{folder}: cannot be written to ({reason(error)}).") from error
    finally:
        with suppress(OSError):
            probe.unlink()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises `UsageError` for a file that exists and is not to be replaced."""
    if not overwrite and exists(path):
        raise UsageError(f"{path}: exists already.", Remedy("replace it", {"overwrite": True}))


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
