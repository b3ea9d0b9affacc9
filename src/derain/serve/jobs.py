"""The jobs of a server: their queue, their states and their folders, until they are deleted.

A job exists as long as it is in the store. Deleting it also cancels it, as the worker then finds it gone.
Times are in seconds of the store's `clock`.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from derain.paths import RESULT
from derain.serve.limits import Limits, Refused
from derain.serve.uploads import Upload

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class Finish:
    """A result that was changed without another run.

    Attributes:
        file: the file to download instead of the job's own.
        strength: how much of the job's change it contains.
        protect: a grey picture, white where nothing was changed; None for nowhere.
    """

    file: Path
    strength: float
    protect: Path | None


@dataclass(frozen=True)
class ServerJob:
    """One picture or clip; changed by replacing it in the store.

    Attributes:
        id: random; anybody who knows it may see and delete the job.
        folder: holds all its files.
        upload: what is to be restored.
        model: the name of a model that the server offers.
        strength: how much of the network's change to apply; see `derain.restore.Settings`.
        place: the file's folder on the client, "" for none; used in archives.
        callback: the address to notify at the end, or "".
        request_id: the id of the request that created the job.
        state: waiting, running, done or failed.
        fraction: the fraction of the work that is done, 0 to 1.
        note: why it failed, or what a user should know about the result.
        kept: what the result contains besides its pixels, in words.
        finish: the result as changed afterwards, if it was.
        ended: when it was done or failed.
        stored: the bytes in its folder.
    """

    id: str
    folder: Path
    upload: Upload
    model: str
    strength: float = 1.0
    place: str = ""
    callback: str = ""
    request_id: str = ""
    state: State = "waiting"
    fraction: float = 0.0
    note: str = ""
    kept: tuple[str, ...] = ()
    finish: Finish | None = None
    ended: float | None = None
    stored: int = 0

    @property
    def result(self) -> Path:
        """The restored file, once the job is done."""
        return self.folder / "out" / f"derained{self.upload.source.suffix}"

    @property
    def download(self) -> Path:
        """What a user downloads: the result, or its changed form."""
        return self.result if self.finish is None else self.finish.file

    @property
    def film(self) -> Path:
        """A clip before and after, side by side, for a browser to play; it may not exist."""
        return self.folder / "film.mp4"

    @property
    def mask(self) -> Path:
        """The rain mask; it does not exist if the network makes none."""
        return self.folder / "out" / "maps" / "derained-mask.png"

    def preview(self, side: Literal["before", "after"]) -> Path:
        """A JPEG for display."""
        return self.folder / f"{side}.jpg"

    @property
    def result_name(self) -> str:
        """What `derain run` calls the result."""
        name = Path(self.upload.name)
        return f"{name.stem}{RESULT}{name.suffix}"


class Store:
    """All jobs; safe to use from the server's thread and the workers'."""

    def __init__(self, folder: Path, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            folder: an existing folder, in which only the store puts files.
            limits: the limits of the queue, of storage, and of the time that finished jobs are kept.
            clock: returns seconds since some fixed moment.
        """
        self._folder, self._limits, self._clock = folder, limits, clock
        self._jobs: dict[str, ServerJob] = {}  # in the order of arrival
        self._receiving = 0
        self._running: set[str] = set()
        self._closed = False
        self._change = threading.Condition()
        self._followers: set[Callable[[], object]] = set()

    @contextmanager
    def receiving(self) -> Iterator[Path]:
        """A place in the queue, and a folder with the name of the future job, while an upload arrives.

        Raises:
            Refused: 429 if the queue is full, 503 if too much is stored already.
        """
        self.sweep()
        with self._change:
            if self._receiving + self.waiting >= self._limits.waiting:
                raise Refused(429, "the queue is full; try again in a minute.")
            if sum(job.stored for job in self._jobs.values()) >= self._limits.storage_bytes:
                raise Refused(503, "the store is full; delete some results, or try again later.")
            self._receiving += 1
        folder = self._folder / secrets.token_urlsafe(16)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            with self._change:
                self._receiving -= 1
                if folder.name not in self._jobs and folder.name not in self._running:
                    _remove(folder)

    def add(self, folder: Path, upload: Upload, model: str, **wishes: Any) -> ServerJob:
        """Puts a checked upload into the queue.

        Args:
            folder: from `receiving`; becomes the job's own.
            upload: what is to be restored.
            model: the name of a model that the server offers.
            wishes: further attributes of the job.

        Raises:
            Refused: 503 if the server is stopping.
        """
        job = ServerJob(folder.name, folder, upload, model, stored=_bytes_below(folder), **wishes)
        with self._changing():
            self._refuse_if_closed()
            self._jobs[job.id] = job
        return job

    def get(self, job_id: str) -> ServerJob:
        """A job. Raises `Refused`: 404 if it does not exist (any more), 503 if the server is stopping."""
        self.sweep()
        with self._change:
            return self._job(job_id)

    def holds(self, job_id: str) -> bool:
        """Whether a job is still wanted."""
        with self._change:
            return job_id in self._jobs

    def delete(self, job_id: str) -> None:
        """Deletes a job and its files; those of a running job as soon as it stops. Raises as `get`."""
        self.sweep()
        with self._changing():
            job = self._job(job_id)
            del self._jobs[job_id]
            if job_id not in self._running:
                _remove(job.folder)

    def sweep(self) -> None:
        """Deletes expired jobs."""
        with self._change:
            over = [
                job
                for job in self._jobs.values()
                if job.ended is not None and job.ended + self._limits.keep_seconds <= self._clock()
            ]
        if over:
            with self._changing():
                for job in over:
                    self._jobs.pop(job.id, None)
                    _remove(job.folder)

    def take(self) -> ServerJob | None:
        """Waits for the next job and marks it as running. None once the store is closed."""
        with self._changing():
            while not self._closed:
                waiting = next((job for job in self._jobs.values() if job.state == "waiting"), None)
                if waiting is not None:
                    self._running.add(waiting.id)
                    return self._replace(waiting.id, state="running")
                self._change.wait()
        return None

    def change(self, job_id: str, **changes: Any) -> None:
        """Replaces fields of a job, if it still exists."""
        with self._changing():
            if job_id in self._jobs:
                self._replace(job_id, **changes)

    def finish(self, job_id: str, finish: Finish | None) -> ServerJob:
        """Replaces a job's result with another file, None for the job's own; the previous file is removed.
        Raises as `get`."""
        self.sweep()
        with self._changing():
            job = self._job(job_id)
            for path in () if job.finish is None else (job.finish.file, job.finish.protect):
                if path is not None:
                    path.unlink(missing_ok=True)
            return self._replace(job_id, finish=finish, stored=_bytes_below(job.folder))

    def settle(self, job: ServerJob, state: State, note: str, kept: tuple[str, ...] = ()) -> ServerJob | None:
        """Ends a running job.

        Args:
            job: a job from `take`.
            state: done or failed.
            note, kept: see `ServerJob`.

        Returns:
            The job as it is now; None if it was deleted in the meantime, in which case its files are removed.
        """
        with self._changing():
            self._running.discard(job.id)
            if job.id not in self._jobs:
                _remove(job.folder)
                return None
            stored, now = _bytes_below(job.folder), self._clock()
            return self._replace(
                job.id, state=state, note=note, kept=kept, fraction=1.0, ended=now, stored=stored
            )

    def ahead_of(self, job: ServerJob) -> int:
        """How many jobs are ahead of a waiting one, including the running one."""
        with self._change:
            if job.state != "waiting" or job.id not in self._jobs:
                return 0
            order = [other.id for other in self._jobs.values() if other.state in ("waiting", "running")]
            return order.index(job.id)

    @property
    def waiting(self) -> int:
        """Number of waiting jobs."""
        with self._change:
            return sum(job.state == "waiting" for job in self._jobs.values())

    @property
    def running(self) -> int:
        """Number of running jobs."""
        with self._change:
            return len(self._running)

    @property
    def stored(self) -> int:
        """Bytes of all stored files."""
        with self._change:
            return sum(job.stored for job in self._jobs.values())

    @contextmanager
    def following(self, tell: Callable[[], object]) -> Iterator[None]:
        """Calls `tell`, from any thread, after each change to any job; the store is not locked meanwhile."""
        with self._change:
            self._followers.add(tell)
        try:
            yield
        finally:
            with self._change:
                self._followers.discard(tell)

    def close(self) -> None:
        """Ends all jobs, so that workers have nothing more to do and followers nothing to wait for."""
        with self._changing():
            self._closed = True
            self._jobs.clear()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds the lock; never nested. Followers are told once it is released, as they may use the store."""
        with self._change:
            yield
            self._change.notify_all()
            followers = tuple(self._followers)
        for tell in followers:
            tell()

    def _job(self, job_id: str) -> ServerJob:
        """As `get`, for callers that hold the lock."""
        self._refuse_if_closed()
        if job_id not in self._jobs:
            raise Refused(404, "no such job; it may have been deleted.")
        return self._jobs[job_id]

    def _replace(self, job_id: str, **changes: Any) -> ServerJob:
        """Replaces the job by one with other values; for callers that hold the lock."""
        self._jobs[job_id] = replace(self._jobs[job_id], **changes)
        return self._jobs[job_id]

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Refused(503, "the server is stopping.")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
