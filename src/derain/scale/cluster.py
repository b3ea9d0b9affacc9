"""Restoring folders of any size on a Ray cluster: one model per worker, pictures in batches.

A worker that dies is restarted and its batch is repeated. A batch that fails nevertheless is handed out
once more, picture by picture, so that one bad picture fails alone. Workers read and write the files
themselves: on several machines, folders and weights must be on storage that all of them can access.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from derain.errors import DerainError, Remedy, UsageError
from derain.extras import extra
from derain.paths import exists
from derain.restore import Settings, load
from derain.restore.jobs import Job, Outcome, skipped
from derain.restore.rain import Rain
from derain.restore.run import PictureOptions, restore_all
from derain.scale.manifest import NAME, Manifest

LOCAL = "local"
BATCH = 16  # pictures at most
RETRIES = 2  # of a batch whose worker died


@dataclass(frozen=True)
class Assignment:
    """What workers do with each picture; see `restore_all` and `load`."""

    model: str | Path | None
    settings: Settings
    pictures: PictureOptions


class Worker:
    """One process of the cluster with one model; Ray Data calls it with batches of jobs."""

    def __init__(self, work: Assignment, threads: int) -> None:
        torch.set_num_threads(threads)
        self.work = work
        self.derainer = load(work.model, **asdict(work.settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes = restore_all(
            self.derainer,
            [_job(*texts) for texts in zip(*(batch[key] for key in _TEXTS), strict=True)],
            pictures=self.work.pictures,
            overwrite=True,  # what may not be replaced is not handed out
        )
        done = list(outcomes)
        return {
            "number": list(batch["number"]),
            "outcome": [_text(outcome) for outcome in done],
        }


_TEXTS = ("source", "target", "folder", "name", "note")


def _row(number: int, job: Job) -> dict[str, Any]:
    texts = (job.source.absolute(), job.target.absolute(), job.folder.absolute(), job.name, job.note)
    return {"number": number, **dict(zip(_TEXTS, map(str, texts), strict=True))}


def _job(source: str, target: str, folder: str, name: str, note: str) -> Job:
    return Job(Path(source), Path(target), Path(folder), Path(name), note=note)


def _text(outcome: Outcome) -> str:
    """An outcome without its job, as JSON."""
    remedy, rain = (None if part is None else asdict(part) for part in (outcome.remedy, outcome.rain))
    facts = {"status": outcome.status, "note": outcome.note, "precision": outcome.precision}
    return json.dumps({**facts, "remedy": remedy, "rain": rain})


def _outcome(job: Job, text: str) -> Outcome:
    """A worker's outcome, with the paths as the user gave them."""
    found = json.loads(text)
    note = found["note"]
    for path in (job.source, job.target):
        note = note.replace(str(path.absolute()), str(path))
    return Outcome(
        job,
        found["status"],
        note,
        found["remedy"] and Remedy(**found["remedy"]),
        precision=found["precision"],
        rain=found["rain"] and Rain(**found["rain"]),
    )


def restore_on_cluster(
    jobs: Sequence[Job], work: Assignment, address: str, output: Path, overwrite: bool = False
) -> Iterator[Outcome]:
    """Restores pictures on a cluster and reports the outcome of each, in the order of finishing.

    Existing results are skipped, as in `restore_all`; those made from a source that has changed since are
    reported.

    Args:
        jobs: pictures; see `derain.restore.jobs.plan`.
        work: what to do with each.
        address: HOST:PORT of a running cluster, or `LOCAL` for one on this machine that ends with the job.
        output: the folder of the results; its manifest gets a line for every picture that was handed out.
        overwrite: replace results that exist.

    Raises:
        UsageError: the address has another form, or the pictures are the frames of a clip.
        DerainError: Ray is not installed, the cluster cannot be reached, or the manifest cannot be
            read or written.
    """
    if work.pictures.sequence:
        raise UsageError("frames of a clip are restored together, and not on several machines.")
    manifest = Manifest(output / NAME)
    todo = []
    for job in jobs:
        if exists(job.target) and not overwrite:
            outdated = "exists, made from a source that has changed since."
            again = Outcome(job, "skipped", outdated, Remedy("replace it", {"overwrite": True}))
            yield again if manifest.is_outdated(job) else skipped(job)
        else:
            todo.append(job)
    if not todo:
        return
    with _cluster(address) as ray:
        left = dict(enumerate(todo))
        for size in (BATCH, 1):
            for rows in _rounds(ray, left, work, size):
                outcomes = [_outcome(left.pop(row["number"]), row["outcome"]) for row in rows]
                manifest.add(outcomes)
                yield from outcomes
            if not left:
                return
    lost = [
        Outcome(job, "failed", f"{job.source}: its worker died; see Ray's logs.") for job in left.values()
    ]
    manifest.add(lost)
    yield from lost


def _rounds(ray: Any, left: dict[int, Job], work: Assignment, size: int) -> Iterator[list[dict[str, Any]]]:
    """Hands all pictures out once, in batches of up to `size`; rows of those that came back."""
    threads = torch.get_num_threads()
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if work.settings.device in ("auto", "cuda") else 0
    workers = max(1, gpus or int(resources.get("CPU", 1)) // threads)
    size = max(1, min(size, len(left) // (4 * workers)))
    rows = [_row(number, job) for number, job in left.items()]
    blocks = -(-len(rows) // size)
    data = ray.data.from_items(rows, override_num_blocks=blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Ray 2.64 will take the last two in another way
        done = data.map_batches(
            Worker,
            fn_constructor_args=(work, threads),
            batch_size=len(rows) // blocks,  # the size of each block, so that none waits for another
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=None if gpus else threads,
            num_gpus=1 if gpus else None,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
    for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield batch.to_pylist()


@contextmanager
def _silent() -> Iterator[None]:
    """Silences standard error: Ray's core writes there that it was told to be quiet."""
    sys.stderr.flush()
    before = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(f"cluster '{address}': give {LOCAL}, or HOST:PORT of a running cluster.")
    return host.strip("[]"), int(port)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected and quiet."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # the rule of coming versions
    ray = extra("ray", "ray")
    extra("ray.data", "ray")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": 128 << 20}
    place = None if address == LOCAL else _host_and_port(address)
    try:
        if place is not None:  # Ray itself would retry for minutes
            socket.create_connection(place, timeout=10).close()
        with _silent():
            ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1][:160]
        raise DerainError(f"the cluster '{address}' cannot be reached ({reason}).") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # they are handed out again
    try:
        yield ray
    finally:
        ray.shutdown()
