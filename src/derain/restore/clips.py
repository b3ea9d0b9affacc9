"""Restoring many videos with one network: what goes where, and one broken file stops nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.errors import DerainError, UsageError
from derain.pictures.video import VIDEO_KINDS, video_facts
from derain.pictures.video_writing import choose_encoding, refuse_misfit
from derain.restore.derainer import Derainer
from derain.restore.folder import Status
from derain.restore.video import Progress, restore_video

BATCH = 4  # frames at once on a graphics card; a CPU gains nothing from more than one


@dataclass(frozen=True)
class ClipJob:
    """One video to restore into another."""

    source: Path
    target: Path


@dataclass(frozen=True)
class ClipOutcome:
    """What became of one job; `note` says why, or what could not be kept."""

    job: ClipJob
    status: Status
    note: str = ""


@dataclass(frozen=True)
class VideoOptions:
    """See `restore_video`."""

    codec: str | None = None
    crf: int | None = None
    resume: bool = False
    temporal: bool = False


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video, by its name."""
    return path.suffix.lower() in VIDEO_KINDS and not path.is_dir()


def plan_clips(videos: Sequence[Path], output: Path | None, output_is_folder: bool = False) -> list[ClipJob]:
    """Which video becomes which.

    One video may name its output file; otherwise `output` is a folder and names are kept. Without an
    output, results go beside the input, as NAME-derained.

    Raises:
        UsageError: a file is missing, or a result would replace its source or another result.
    """
    jobs: dict[Path, Path] = {}
    for video in videos:
        if not video.exists():
            raise UsageError(f"{video}: no such file or folder.")
        if output is None:
            target = video.with_stem(f"{video.stem}-derained")
        elif len(videos) == 1 and not output_is_folder and output.suffix and not output.is_dir():
            target = output
        else:
            target = output / video.name
        if target.resolve() == video.resolve():
            raise UsageError(f"{video}: the result would replace it; give another output.")
        first = jobs.setdefault(target, video)
        if first.resolve() != video.resolve():
            raise UsageError(f"{first} and {video} would both be written as {target}; run them apart.")
    return [ClipJob(video, target) for target, video in jobs.items()]


def refuse_unfit(jobs: Sequence[ClipJob], options: VideoOptions) -> None:
    """Raises `UsageError` for the first video that cannot be written as the options ask, before any work.

    What cannot be read is left for `restore_clip` to report.
    """
    for job in jobs:
        try:
            facts = video_facts(job.source)
            refuse_misfit(facts, choose_encoding(facts, job.target, options.codec, options.crf), job.target)
        except UsageError:
            raise
        except DerainError:
            continue


def restore_clip(
    derainer: Derainer, job: ClipJob, options: VideoOptions, overwrite: bool, progress: Progress
) -> ClipOutcome:
    """Restores one video and tells what became of it; what is wrong with it is no exception."""
    if job.target.exists() and not overwrite:
        return ClipOutcome(job, "skipped", "exists already; --overwrite replaces it")
    try:
        result = restore_video(
            job.source,
            job.target,
            lambda rainy: derainer.restore(rainy).image,
            codec=options.codec,
            crf=options.crf,
            batch=1 if derainer.device.type == "cpu" else BATCH,
            resume=options.resume,
            temporal=options.temporal,
            identity=identity(derainer),
            progress=progress,
        )
    except DerainError as error:
        return ClipOutcome(job, "failed", str(error))
    if result.shortfall:
        return ClipOutcome(
            job, "failed", f"{job.source}: {result.shortfall}; what could be read is in {job.target}."
        )
    notes = [*result.left_out, *([f"{result.resumed} frames were there already"] if result.resumed else [])]
    return ClipOutcome(job, "restored", "; ".join(notes))


def identity(derainer: Derainer) -> str:
    """Changes with all that decides what a restored frame looks like."""
    digest = hashlib.sha256(repr((derainer.name, derainer.settings, str(derainer.dtype))).encode())
    for name, tensor in sorted(derainer.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
