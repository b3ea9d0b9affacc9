"""Restoring many files with one network; a broken file does not stop the others."""

from __future__ import annotations

import functools
import itertools
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

from derain.atomic import new_file
from derain.checkpoints.bundled import find_model
from derain.checkpoints.exported import is_exported
from derain.errors import DerainError, Remedy, UsageError, errors_of
from derain.notes import join_notes
from derain.paths import exists
from derain.pictures import (
    Picture,
    Unread,
    left_out,
    read_picture,
    side_by_side,
    to_rgb8,
    write_picture,
)
from derain.pictures.writing import FORMATS
from derain.restore.derainer import Derainer, RestoredPicture, load
from derain.restore.jobs import Job, Made, Outcome, carry_out, carry_out_in_stages, plan, prepare_folders
from derain.restore.protecting import WITHOUT_MASK, Protection
from derain.restore.sequence import restore_sequences
from derain.restore.settings import Settings, VideoOptions
from derain.restore.threads import divided_threads

COMPARE, MAPS = "compare", "maps"
# Called with the job in progress, the tiles or frames done, and their total if known.
JobProgress = Callable[[Job, int, int | None], None]


@dataclass(frozen=True)
class PictureOptions:
    """What to write for pictures.

    Attributes:
        maps: also write the network's rain mask or uncertainty map, to OUT/maps.
        compare: also write a sheet of before and after, to OUT/compare.
        jpeg_quality: the quality of JPEG results, 1 to 100; None: that of a JPEG source, else 95.
        skip_dry: copy pictures without rain unchanged.
        sequence: the pictures of each folder are the frames of a clip; see `derain.restore.sequence`.

    Raises:
        UsageError: an option for single pictures is combined with `sequence`.
    """

    maps: bool = False
    compare: bool = False
    jpeg_quality: int | None = None
    skip_dry: bool = False
    sequence: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("maps", "compare", "skip_dry") if getattr(self, name)]
        if self.sequence and given:
            raise UsageError(
                f"{' and '.join(given)} {_is(given)} for single pictures, and not for the frames of a clip.",
                Remedy("restore the frames", dict.fromkeys(given)),
            )


@dataclass(frozen=True)
class RunReport:
    """What a run did: the outcome of each job, and the files that were not read."""

    outcomes: tuple[Outcome, ...]
    unread: tuple[Unread, ...]

    @property
    def is_complete(self) -> bool:
        """Whether there was something to do, nothing failed, and no picture or video was passed over."""
        return is_complete(self.outcomes, self.unread)


def is_complete(outcomes: Sequence[Outcome], unread: Sequence[Unread]) -> bool:
    """Whether there was something to do, nothing failed, and no picture or video was passed over."""
    failed, passed = any(o.status == "failed" for o in outcomes), any(u.advice for u in unread)
    return bool(outcomes) and not failed and not passed


def restore_files(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    model: str | Path | None = None,
    settings: Settings | None = None,
    pictures: PictureOptions | None = None,
    videos: VideoOptions | None = None,
    overwrite: bool = False,
    protect: str | Path | None = None,
    progress: JobProgress = lambda job, done, total: None,
) -> RunReport:
    """Removes rain from pictures, videos and folders of them, as `derain run` does.

        >>> from derain.restore import restore_files
        >>> report = restore_files(["holiday"], "dry")  # doctest: +SKIP
        >>> [outcome.note for outcome in report.outcomes if outcome.status == "failed"]  # doctest: +SKIP
        []

    Args:
        inputs: files, and folders that are searched recursively.
        output: a folder, or the file for a single input; None puts results beside the input.
        model: see `load`.
        settings: how to restore; None for `Settings()`.
        pictures, videos: what to write, and how.
        overwrite: replace results that exist; else they are skipped.
        protect: a mask, or a folder with masks of the same names for some of the pictures: white areas stay
            unchanged; see `derain.restore.protecting`.
        progress: called with the job in progress, the tiles or frames done, and their total if known.

    Raises:
        UsageError: there is nothing to restore, a result would replace a source, or options contradict each
            other.
        DerainError: the model cannot be opened, or the output folder is not writable.
    """
    pictures, videos = pictures or PictureOptions(), videos or VideoOptions()
    planned = plan([Path(given) for given in inputs], None if output is None else Path(output))
    asked = {
        name: value
        for options in (pictures, videos)
        for name, value in vars(options).items()
        if value != getattr(type(options)(), name)
    }
    refuse_unused(planned.jobs, asked)
    refuse_unusable(planned.jobs, model, pictures, videos, overwrite)
    derainer = load(model, **vars(settings or Settings()))
    outcomes = restore_all(
        derainer,
        planned.jobs,
        pictures=pictures,
        videos=videos,
        overwrite=overwrite,
        protection=None if protect is None else Protection(Path(protect)),
        progress=progress,
    )
    return RunReport(tuple(outcomes), planned.unread)


def refuse_unused(jobs: Sequence[Job], asked: Collection[str]) -> None:
    """Refuses options that have no effect on any of the files.

    Args:
        jobs: all jobs of the run.
        asked: the options that a user gave: names of `PictureOptions` and `VideoOptions`, and "format".

    Raises:
        UsageError: there is such an option.
    """
    for_pictures = [name for name in asked if name == "format" or name in vars(PictureOptions())]
    for_videos = [name for name in asked if name in vars(VideoOptions())]
    if not jobs:
        return
    if for_videos and not any(job.is_video for job in jobs):
        raise UsageError(
            f"no video was given, and {' and '.join(for_videos)} {_is(for_videos)} for videos.",
            Remedy("restore the pictures", dict.fromkeys(for_videos)),
        )
    if for_pictures and all(job.is_video for job in jobs):
        raise UsageError(
            f"no picture was given, and {' and '.join(for_pictures)} {_is(for_pictures)} for pictures.",
            Remedy("restore the videos", dict.fromkeys(for_pictures)),
        )
    if "jpeg_quality" in asked and not any(FORMATS.get(job.target.suffix.lower()) == "JPEG" for job in jobs):
        raise UsageError(
            "no result is a JPEG, and jpeg_quality is for JPEG.",
            Remedy("restore the pictures", {"jpeg_quality": None}),
        )


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def refuse_unusable(
    jobs: Sequence[Job],
    model: str | Path | None,
    pictures: PictureOptions,
    videos: VideoOptions,
    overwrite: bool = False,
) -> None:
    """Checks before any work that maps can be made, and that videos can be written as requested.

    If there are several videos, and no codec or quality is requested, problems of one are left to its job.

    Raises:
        UsageError: they cannot be.
    """
    if pictures.maps and is_exported(find_model(model)):
        raise UsageError(
            f"{model}: exported files return only the picture; give a checkpoint for maps.",
            Remedy("restore without them", {"maps": None}),
        )
    todo = [job for job in jobs if job.is_video and (overwrite or not exists(job.target))]
    for job in todo:
        try:
            _refuse_misfit(job, videos)
        except UsageError:
            if len(jobs) == 1 or videos.codec is not None or videos.crf is not None:
                raise
        except DerainError:
            continue


def _refuse_misfit(job: Job, options: VideoOptions) -> None:
    from derain.pictures.video_encoding import choose_encoding
    from derain.pictures.video_facts import video_facts  # PyAV takes a while to load
    from derain.pictures.video_writing import refuse_misfit

    with errors_of(job.source, job.target):
        facts = video_facts(job.source)
        refuse_misfit(facts, choose_encoding(facts, job.target, options.codec, options.crf), job.target)


def restore_all(
    derainer: Derainer,
    jobs: Sequence[Job],
    *,
    pictures: PictureOptions | None = None,
    videos: VideoOptions | None = None,
    overwrite: bool = False,
    protection: Protection | None = None,
    progress: JobProgress = lambda job, done, total: None,
) -> Iterator[Outcome]:
    """Restores files and reports the outcomes in order; a CPU works on several pictures at once.

    A file that cannot be read or written has a failed outcome; the others are still restored.

    Args:
        derainer: the network.
        jobs: see `plan`.
        pictures, videos, overwrite, progress: see `restore_files`.
        protection: what stays unchanged.

    Raises:
        UsageError: dry pictures are to be copied, but these weights have no rain threshold.
        DerainError: no result could be written; checked before any work is done.
    """
    pictures, videos = pictures or PictureOptions(), videos or VideoOptions()
    if pictures.skip_dry and derainer.rain_threshold is None:
        raise UsageError(
            f"{derainer.name}: no threshold of rain has been measured for these weights.",
            Remedy("restore all pictures", {"skip_dry": None}),
        )

    unwritable = prepare_folders(jobs, overwrite)
    frames = [job for job in jobs if pictures.sequence and not job.is_video]
    clips = restore_sequences(derainer, frames, unwritable, overwrite, protection, pictures.jpeg_quality)

    def restored(group: Sequence[Job], are_videos: bool) -> Iterator[Outcome]:
        if not are_videos:
            return _restored_pictures(derainer, group, pictures, unwritable, overwrite, protection, progress)
        made = functools.partial(
            _restored_video, derainer, options=videos, protection=protection, progress=progress
        )
        return carry_out(group, made, overwrite, unwritable)

    others = [job for job in jobs if job.is_video or not pictures.sequence]
    groups = itertools.groupby(others, lambda job: job.is_video)
    outcomes = (restored(list(group), are_videos) for are_videos, group in groups)
    return itertools.chain(clips, itertools.chain.from_iterable(outcomes))


def _restored_pictures(
    derainer: Derainer,
    jobs: Sequence[Job],
    options: PictureOptions,
    unwritable: Mapping[Path, DerainError],
    overwrite: bool,
    protection: Protection | None,
    progress: JobProgress,
) -> Iterator[Outcome]:
    """Restores as many pictures at once as the machine has room for."""
    stop = threading.Event()

    def told(job: Job, done: int, total: int | None) -> None:
        if stop.is_set():
            raise CancelledError
        progress(job, done, total)

    def restore(job: Job, picture: Picture) -> Callable[[], Made]:
        return _restored_picture(derainer, job, picture, options, protection, told)

    at_once = derainer.passes_at_once(len(jobs))
    with divided_threads(at_once):
        yield from carry_out_in_stages(
            jobs,
            lambda job: read_picture(job.source),
            restore,
            unwritable,
            overwrite,
            held=lambda picture: 2 * picture.pixels.nbytes,
            at_once=at_once,
            stop=stop,
        )


def _restored_picture(
    derainer: Derainer,
    job: Job,
    picture: Picture,
    options: PictureOptions,
    protection: Protection | None,
    progress: JobProgress,
) -> Callable[[], Made]:
    """Restores a picture; returns a function that writes it."""
    keep = None if protection is None else protection.keep(picture.size, job.mask_name)
    tiles = functools.partial(progress, job)
    restored = derainer.restore_picture(picture, options.maps, tiles, protect=keep)
    unprotected = protection is not None and keep is None
    precision = derainer.precision_for(picture.bits)
    return functools.partial(_written, job, picture, restored, options, precision, unprotected)


def _written(
    job: Job,
    picture: Picture,
    restored: RestoredPicture,
    options: PictureOptions,
    precision: str,
    unprotected: bool,
) -> Made:
    """Writes all requested files of a picture."""
    rain = restored.rain
    if options.skip_dry and not rain.is_raining:
        return Made(_copied(job, picture), precision, rain, "skipped")
    for name, values in restored.maps.items():
        write_picture(job.companion(MAPS, f"-{name}.png"), values)
    if options.compare:
        sheet = Picture(side_by_side(to_rgb8(picture), to_rgb8(restored.picture)))
        write_picture(job.companion(COMPARE, ".jpg"), sheet)
    # Written last, so that if the result exists, all of the picture's files do.
    lost = write_picture(job.target, restored.picture, options.jpeg_quality)
    without_mask = WITHOUT_MASK if unprotected else ""
    note = join_notes(restored.note, left_out(lost), without_mask)
    return Made(note, precision, rain)


def _copied(job: Job, picture: Picture) -> str:
    """Writes a dry picture unchanged, byte for byte if its format stays; returns a note."""
    if job.source.suffix.lower() == job.target.suffix.lower():
        with new_file(job.target) as temporary:
            shutil.copyfile(job.source, temporary)
        return "no rain found, copied unchanged"
    lost = write_picture(job.target, picture)
    return join_notes("no rain found, pixels left unchanged", left_out(lost))


def _restored_video(
    derainer: Derainer,
    job: Job,
    options: VideoOptions,
    protection: Protection | None,
    progress: JobProgress,
) -> Made:
    result = derainer.restore_video(
        job.source,
        job.target,
        options,
        protect=None if protection is None else protection.path(job.mask_name),
        progress=lambda done, total: progress(job, done, total),
    )
    result.raise_if_damaged(job.source, job.target)
    resumed = f"{result.resumed} frames were already done" if result.resumed else ""
    return Made(join_notes(*result.left_out, resumed), derainer.precision_for(result.bits))
