"""Watches a folder, and restores pictures and videos as soon as they are complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from derain.errors import UsageError
from derain.paths import is_folder, is_link, real, same, written_beside
from derain.pictures import Unread
from derain.pictures.finding import classify, walk
from derain.restore.derainer import Derainer
from derain.restore.jobs import Job, Outcome, beside, mirrored, with_full_name
from derain.restore.run import restore_all

SETTLED = 2.0  # seconds without a change after which a file counts as complete
# The same for a file that is empty or cannot be read: programs that are slow to write create it first.
SETTLED_EMPTY = 60.0
EVERY = 1.0  # seconds between checks
# Suffixes that programs use until a file is complete.
UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp", ".temp", ".upload")


@dataclass(frozen=True)
class _Seen:
    """A file at the last check: its size and modification time, since when, and whether it was returned."""

    state: tuple[int, int]
    since: float
    handed_out: bool = False


class Arrivals:
    """The files that have become complete in a folder and its subfolders.

    A file is complete once its size and modification time have not changed for `SETTLED` seconds, or for
    `SETTLED_EMPTY` if there is nothing in it, unless its name is one that programs give to unfinished files.
    One that changes later is returned again.
    """

    def __init__(self, folder: Path, leave_out: Path | None = None) -> None:
        """
        Args:
            folder: the folder to watch.
            leave_out: the folder of the results, which is skipped if it is in `folder`.
        """
        self._folder, self._leave_out = folder, None if leave_out is None else real(leave_out)
        if self._leave_out in real(folder).parents:
            self._leave_out = None
        self._seen: dict[Path, _Seen] = {}

    def complete(self, now: float) -> list[Path]:
        """The files completed since the last check, in alphabetical order.

        Args:
            now: the time in seconds, on a clock that never goes back.

        Raises:
            UsageError: the folder no longer exists.
        """
        if not is_folder(self._folder):
            raise UsageError(f"{self._folder}: is not a folder, or is gone.")
        before, self._seen = self._seen, {}
        found, files = [], [path for path in walk(self._folder) if not isinstance(path, Unread)]
        results = written_beside(files)
        for path in files:
            if path.suffix.lower() in UNFINISHED or path in results or self._is_left_out(path):
                continue
            try:
                status = path.stat()
                state = (status.st_size, status.st_mtime_ns)
            except FileNotFoundError:
                if not is_link(path):
                    continue  # removed since
                state = (0, 0)
            except OSError:
                state = (0, 0)
            seen = before.get(path)
            if seen is None or seen.state != state:
                seen = _Seen(state, now)
            elif not seen.handed_out and now - seen.since >= (SETTLED if state[0] else SETTLED_EMPTY):
                seen = replace(seen, handed_out=True)
                found.append(path)
            self._seen[path] = seen
        return sorted(found)

    def _is_left_out(self, path: Path) -> bool:
        return self._leave_out is not None and self._leave_out in real(path).parents


def watch(
    derainer: Derainer,
    folder: Path,
    output: Path | None = None,
    *,
    suffix: str | None = None,
    overwrite: bool = False,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
    **options: Any,
) -> Iterator[Outcome]:
    """Restores what is in a folder and what arrives there, indefinitely.

    Args:
        derainer: the network.
        folder: the folder to watch, with its subfolders.
        output: the folder for the results; None for FOLDER-derained beside it.
        suffix: the extension of all pictures that are written.
        overwrite: replace results that exist. Those of this call are replaced anyway if their source changes.
        clock: returns the time in seconds, which never goes back.
        wait: waits for this many seconds.
        options: see `restore_all`.

    Yields:
        The outcome of each file; those that are neither pictures nor videos are silently skipped.

    Raises:
        UsageError: the folder does not exist, or no longer does; the results would go into it; or its
            pictures are to be frames of a clip.
    """
    pictures = options.get("pictures")
    if pictures is not None and pictures.sequence:
        raise UsageError("frames of a clip are restored together, and not as they arrive.")
    target = beside(folder) if output is None else output
    if same(folder, target):
        raise UsageError(f"{target}: is the watched folder itself; write to another folder.")
    arrivals, made, owners = Arrivals(folder, target), set[Path](), dict[Path, Path]()
    while True:
        for path in arrivals.complete(clock()):
            entry = classify(path, path.relative_to(folder))
            if isinstance(entry, Unread):
                continue
            (job,) = mirrored([entry], target, suffix)
            if owners.setdefault(job.target, path) != path:  # such as a.png once a.jpg was written as PNG
                job = with_full_name(job)
            again = overwrite or job.target in made
            for outcome in restore_all(derainer, [_by_path(job, entry.relative)], overwrite=again, **options):
                if outcome.status != "skipped" or outcome.rain is not None:
                    made.add(job.target)
                yield outcome
        wait(EVERY)


def _by_path(job: Job, relative: Path) -> Job:
    """The job, with full names for the other files of its result, as a.jpg may arrive after a.png."""
    return replace(job, name=relative)
