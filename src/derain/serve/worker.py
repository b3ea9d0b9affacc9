"""The one thread that restores, job by job."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Literal

from derain.errors import DerainError
from derain.pictures import read_picture
from derain.pictures.video import video_facts
from derain.restore import Derainer, load
from derain.restore import jobs as restoring
from derain.restore.run import JobProgress, PictureOptions, restore_all
from derain.serve.jobs import Job, Store
from derain.serve.limits import Limits
from derain.serve.metrics import Metrics
from derain.serve.previews import write_preview
from derain.serve.uploads import first_frame
from derain.serve.watch import Watch

# Progress is told in steps of this much.
STEP = 0.01

log = logging.getLogger("derain.serve")


class Stopped(BaseException):
    """The job was deleted, or the server stops; no error of a file."""


class Worker:
    """Takes jobs from the store until it is closed. Networks are loaded when first asked for and kept."""

    def __init__(self, store: Store, limits: Limits, metrics: Metrics, device: str) -> None:
        self._store, self._limits, self._metrics, self._device = store, limits, metrics, device
        self._networks: dict[str, tuple[Derainer, Watch]] = {}
        self._thread = threading.Thread(target=self._work, name="restoring")

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Waits for the end; the store must be closed."""
        self._thread.join()

    def _work(self) -> None:
        while (job := self._store.take()) is not None:
            began = time.monotonic()
            state: Literal["done", "failed"] = "failed"
            try:
                note = self._restore(job, began + self._limits.job_seconds)
                state = "done"
            except Stopped:
                note = ""
            except DerainError as error:
                note = _in_words(job, str(error))
            except Exception:
                log.exception("job %s", job.id)
                note = f"{job.upload.name}: could not be restored because of an error in the program."
            kept = self._store.settle(job, state, note)
            self._metrics.job_ended(state if kept else "cancelled", time.monotonic() - began)

    def _restore(self, job: Job, deadline: float) -> str:
        """Writes result, mask and preview; gives what the user should know.

        Raises:
            DerainError: it failed, or took too long.
            Stopped: the job is gone.
        """
        derainer, watch = self._network(job.model)
        told = 0.0

        def step(fraction: float) -> None:
            nonlocal told
            if time.monotonic() > deadline:
                limit = f"{self._limits.job_seconds:g} s"
                raise DerainError(f"took longer than {limit}; send a smaller picture or a shorter clip.")
            if not self._store.holds(job.id):
                raise Stopped
            if fraction >= told + STEP:
                told = fraction
                self._store.change(job.id, fraction=fraction)

        if job.upload.kind == "picture":
            height, width = job.upload.size
            with watch.following(step, height * width):
                outcome = _outcome(derainer, job)
            if outcome.status != "restored":
                raise DerainError(outcome.note, outcome.remedy)
            write_preview(job.preview("after"), read_picture(job.result))
            return outcome.note
        limit = round(self._limits.clip_seconds * float(video_facts(job.upload.source).rate)) + 1

        def frames(_: restoring.Job, done: int, expected: int | None) -> None:
            if done > limit:
                raise DerainError(f"lasts longer than {self._limits.clip_seconds:g} s.")
            step(0.0 if expected is None else min(done / expected, 1.0))

        with watch.following(lambda _: step(told)):
            outcome = _outcome(derainer, job, frames)
        # A clip that was cut short is restored as far as it goes, and the note says so.
        if not job.result.exists():
            raise DerainError(outcome.note, outcome.remedy)
        write_preview(job.preview("after"), first_frame(video_facts(job.result)))
        return _in_words(job, outcome.note)

    def _network(self, model: str) -> tuple[Derainer, Watch]:
        if model not in self._networks:
            derainer = load(model, device=self._device)
            self._networks[model] = derainer, Watch(derainer)
        return self._networks[model]


def _outcome(
    derainer: Derainer, job: Job, progress: JobProgress = lambda job, done, total: None
) -> restoring.Outcome:
    result, is_clip = job.result, job.upload.kind == "clip"
    work = restoring.Job(job.upload.source, result, result.parent, Path(result.stem), is_clip)
    (outcome,) = restore_all(
        derainer, [work], pictures=PictureOptions(maps=True), overwrite=is_clip, progress=progress
    )
    return outcome


def _in_words(job: Job, text: str) -> str:
    """A message with the names that the user knows."""
    return text.replace(str(job.upload.source), job.upload.name).replace(str(job.result), job.result_name)
