"""The threads that restore jobs."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from derain.cores import usable_threads
from derain.errors import DerainError, errors_of
from derain.pictures import read_picture
from derain.pictures.video_facts import video_facts
from derain.restore import Derainer, Settings, load
from derain.restore import jobs as restoring
from derain.restore.run import JobProgress, PictureOptions, restore_all
from derain.serve.jobs import ServerJob, Store
from derain.serve.kept import held_by_clip, held_by_picture
from derain.serve.layer_progress import LayerProgress
from derain.serve.limits import Limits
from derain.serve.logs import log_event, short
from derain.serve.metrics import Metrics
from derain.serve.models import OfferedModel
from derain.serve.previews import write_film, write_preview
from derain.serve.uploads import first_frame

# Progress is reported in steps of this much.
STEP = 0.01

# The state, the note and what the result contains.
Ending: TypeAlias = tuple[Literal["done", "failed"], str, tuple[str, ...]]


@dataclass(frozen=True)
class WorkerSettings:
    """How a server restores.

    Attributes:
        models: the models that clients choose from; the first is the default.
        settings: device and precision.
        threads: CPU threads for each job; None for PyTorch's default.
        workers: the number of parallel jobs, each with its own copy of the models.
    """

    models: tuple[OfferedModel, ...]
    settings: Settings
    threads: int | None = None
    workers: int = 1


class Cancelled(BaseException):
    """The job was deleted, or the server is stopping; not an error in a file."""


class Workers:
    """Threads that load the models and then take jobs from the store until it is closed."""

    def __init__(
        self,
        work: WorkerSettings,
        store: Store,
        limits: Limits,
        metrics: Metrics,
        ended: Callable[[ServerJob], None],
        gave_up: Callable[[DerainError], None],
    ) -> None:
        """
        Args:
            work: the models, and how they run.
            store: provides the jobs.
            limits: the limits of the time for a job and of the length of a clip.
            metrics: counts the jobs that have ended.
            ended: called with every job that is done or failed.
            gave_up: called with the reason why a model cannot be loaded; then no job is done.
        """
        self._work, self._store, self._limits, self._metrics = work, store, limits, metrics
        self._ended, self._gave_up = ended, gave_up
        self._lock, self._loaded = threading.Lock(), 0
        self._threads = [
            threading.Thread(target=self._run, name=f"restoring-{number}") for number in range(work.workers)
        ]

    @property
    def ready(self) -> bool:
        """Whether all models are loaded, so that jobs need not wait for them."""
        return self._loaded == self._work.workers

    def start(self) -> None:
        """Starts loading the models; jobs are taken once they are loaded."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for the threads to end; the store must have been closed."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        if self._work.threads is not None:
            torch.set_num_threads(usable_threads(self._work.threads))
        try:
            with self._lock:  # one at a time: loading a model takes more memory than keeping it
                networks = _open(self._work)
                self._loaded += 1
        except DerainError as error:
            self._gave_up(error)
            return
        if self.ready:
            log_event("ready", models=[model.name for model in self._work.models], workers=self._work.workers)
        while (job := self._store.take()) is not None:
            began = time.monotonic()
            state, note, kept = self._outcome(job, *networks[job.model])
            seconds = time.monotonic() - began
            settled = self._store.settle(job, state, note, kept)
            outcome = "cancelled" if settled is None else state
            self._metrics.job_ended(outcome, seconds)
            height, width = job.upload.size
            facts = {"kind": job.upload.kind, "width": width, "height": height, "model": job.model}
            log_event(
                "job",
                id=job.request_id,
                job=short(job.id),
                outcome=outcome,
                seconds=round(seconds, 3),
                **facts,
            )
            if settled is not None:
                self._ended(settled)

    def _outcome(self, job: ServerJob, derainer: Derainer, layers: LayerProgress) -> Ending:
        deadline = time.monotonic() + self._limits.job_seconds
        try:
            return "done", *self._restore(
                job, derainer.with_settings(strength=job.strength), layers, deadline
            )
        except Cancelled:
            return "failed", "", ()
        except DerainError as error:
            return "failed", _in_words(job, str(error)), ()
        except Exception:
            log_event("error", id=job.request_id, job=short(job.id), traceback=traceback.format_exc())
            text = f"{job.upload.name}: could not be restored because of an error in the program."
            return "failed", text, ()

    def _restore(
        self, job: ServerJob, derainer: Derainer, layers: LayerProgress, deadline: float
    ) -> tuple[str, tuple[str, ...]]:
        """Writes the result, mask and previews; returns what the user should know, and what was kept.

        Raises:
            DerainError: the job failed, or took too long.
            Cancelled: the job is gone.
        """
        step = _Steps(job.id, self._store, self._limits.job_seconds, deadline)
        if job.upload.kind == "picture":
            return _restore_picture(job, derainer, layers, step)
        return _restore_clip(job, derainer, layers, step, self._limits.clip_seconds)


@dataclass
class _Steps:
    """Called with the fraction of a job that is done: reports it, and ends work that should not continue.

    Attributes:
        seconds: the time that the job may take, for the message.
        deadline: when that time is over, by `time.monotonic`.
        reported: the fraction reported last.
    """

    job_id: str
    store: Store
    seconds: float
    deadline: float
    reported: float = 0.0

    def __call__(self, fraction: float) -> None:
        """Raises `DerainError` when the time is up, and `Cancelled` when the job is gone."""
        if time.monotonic() > self.deadline:
            raise DerainError(
                f"took longer than {self.seconds:g} s; send a smaller picture or a shorter clip."
            )
        if not self.store.holds(self.job_id):
            raise Cancelled
        if fraction >= self.reported + STEP:
            self.reported = fraction
            self.store.change(self.job_id, fraction=fraction)

    def go_on(self) -> None:
        """As calling it with the fraction reported last."""
        self(self.reported)


def _restore_picture(
    job: ServerJob, derainer: Derainer, layers: LayerProgress, step: _Steps
) -> tuple[str, tuple[str, ...]]:
    with layers.following(step, math.prod(derainer.seen_size(*job.upload.size))):
        outcome = _restored(derainer, job)
    if outcome.status != "restored":
        raise DerainError(outcome.note, outcome.remedy)
    result = read_picture(job.result)
    write_preview(job.preview("after"), result)
    return outcome.note, held_by_picture(result)


def _restore_clip(
    job: ServerJob, derainer: Derainer, layers: LayerProgress, step: _Steps, longest: float
) -> tuple[str, tuple[str, ...]]:
    """As `_restore_picture`; a clip of more than `longest` seconds is an error."""
    limit = round(longest * float(video_facts(job.upload.source).rate)) + 1

    def frames(_: restoring.Job, done: int, expected: int | None) -> None:
        if done > limit:
            raise DerainError(f"lasts longer than {longest:g} s.")
        step(0.0 if expected is None else min(done / expected, 1.0))

    with layers.following(lambda _: step.go_on()):
        outcome = _restored(derainer, job, frames)
    # A truncated clip is restored as far as it can be read, and the note says so.
    if not job.result.exists():
        raise DerainError(outcome.note)  # without its remedy: clients cannot resume
    before, after = video_facts(job.upload.source), video_facts(job.result)
    write_preview(job.preview("after"), first_frame(after))
    try:
        with errors_of(job.film):
            write_film(job.film, before, after, step.go_on)
    except DerainError as error:  # not worth losing the result: the page shows the first frames instead
        job.film.unlink(missing_ok=True)
        log_event(
            "film", id=job.request_id, job=short(job.id), error=error.message.rpartition("film.mp4: ")[2]
        )
    return _in_words(job, outcome.note), held_by_clip(after)


def _open(work: WorkerSettings) -> dict[str, tuple[Derainer, LayerProgress]]:
    """Every model and what follows its progress, by the model's name."""
    found = {}
    for model in work.models:
        with errors_of(model.source):
            derainer = load(model.source, **vars(work.settings))
            found[model.name] = derainer, LayerProgress(derainer)
    return found


def _restored(
    derainer: Derainer, job: ServerJob, progress: JobProgress = lambda job, done, total: None
) -> restoring.Outcome:
    result, is_clip = job.result, job.upload.kind == "clip"
    work = restoring.Job(job.upload.source, result, result.parent, Path(result.stem), is_clip)
    (outcome,) = restore_all(
        derainer, [work], pictures=PictureOptions(maps=True), overwrite=is_clip, progress=progress
    )
    return outcome


def _in_words(job: ServerJob, text: str) -> str:
    """A message with the user's own file names."""
    return text.replace(str(job.upload.source), job.upload.name).replace(str(job.result), job.result_name)
