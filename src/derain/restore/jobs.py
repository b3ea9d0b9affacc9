"""What goes where: the pictures and videos to restore, their results, and the outcome of each."""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from derain.atomic import refuse_unwritable
from derain.errors import DerainError, Remedy, UsageError, errors_of
from derain.notes import join_notes
from derain.paths import RESULT, exists, is_folder, parts_of, real, written_beside
from derain.pictures import EXTENSIONS, Found, Unread, find
from derain.pictures.finding import nothing_found, one_result_of_two
from derain.pictures.kinds import KNOWN_EXTENSIONS, VIDEO_KINDS
from derain.restore.rain import Rain

Status = Literal["restored", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("restored", "skipped", "failed")
EXISTS = "exists already, perhaps made with other settings."
NOT_WHOLE = (
    "exists already, but its source was damaged or cut off, or a run that was to replace it did not end."
)
# Bytes above which a job is done alone: as many as a picture of 50 megapixels and its result take.
MOST_HELD = 300 << 20

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """One picture or video to restore.

    Attributes:
        source: the rainy file.
        target: the file to write.
        folder, name: other files of the result go to FOLDER/KIND, and their names start with NAME (a path
            without extension); see `companion`.
        is_video: whether it is a video rather than a picture.
        note: what the user should know about the target.
        below: the source's path relative to the folder in which it was found, without extension; its mask is
            looked up by it. None stands for `name`.
    """

    source: Path
    target: Path
    folder: Path
    name: Path
    is_video: bool = False
    note: str = ""
    below: Path | None = None

    @property
    def mask_name(self) -> Path:
        """The name, without extension, of its mask in a folder of masks."""
        return self.name if self.below is None else self.below

    def companion(self, kind: str, ending: str) -> Path:
        """The path of another file that belongs to the result: FOLDER/KIND/NAME + ENDING."""
        return self.folder / kind / self.name.with_name(f"{self.name.name}{ending}")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one job.

    Attributes:
        job: the one that finished.
        status: one of `STATUSES`.
        note: why, how it was done, or what could not be kept; one or several sentences, or "".
        remedy: settings that would help, or None.
        exists: whether nothing was done because the result exists.
        precision: the one that the network computed in; "" where no network ran.
        rain: how much there was; None for videos and pictures that were not processed.
    """

    job: Job
    status: Status
    note: str = ""
    remedy: Remedy | None = None
    exists: bool = False
    precision: str = ""
    rain: Rain | None = None


@dataclass(frozen=True)
class Plan:
    """All jobs of a run, and the files in its folders that are not read."""

    jobs: tuple[Job, ...]
    unread: tuple[Unread, ...] = ()


def as_row(outcome: Outcome, note: str) -> dict[str, Any]:
    """The outcome of a job in a form for programs to read, with the note that is shown to users."""
    return {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "status": outcome.status,
        "note": note,
        **({"precision": outcome.precision} if outcome.precision else {}),
        **({} if outcome.rain is None else {"rain": outcome.rain.as_row()}),
    }


def failed(job: Job, error: DerainError) -> Outcome:
    """The outcome of a job that ended with an error."""
    return Outcome(job, "failed", error.message, error.remedy)


def skipped(job: Job) -> Outcome:
    """The outcome of a job whose result already exists; for a video, the result may be incomplete."""
    remedy = Remedy("replace it", {"overwrite": True})
    if job.is_video and exists(parts_of(job.target)):
        return Outcome(job, "failed", f"{job.target}: {NOT_WHOLE}", remedy)
    return Outcome(job, "skipped", EXISTS, remedy, exists=True)


@dataclass(frozen=True)
class Made:
    """What the work on a job reports about its result; see `Outcome`."""

    note: str = ""
    precision: str = ""
    rain: Rain | None = None
    status: Status = "restored"


def carry_out(
    jobs: Sequence[Job],
    work: Callable[[Job], Made],
    overwrite: bool = False,
    unwritable: Mapping[Path, DerainError] | None = None,
) -> Iterator[Outcome]:
    """Does every job whose result does not exist yet; a failure does not stop the others.

    Args:
        jobs: see `plan`.
        work: makes the result of a job.
        overwrite: replace results that exist.
        unwritable: folders that cannot be written to; None lets `prepare_folders` find them.

    Raises:
        DerainError: no result could be written; checked before any work is done.
    """
    if unwritable is None:
        unwritable = prepare_folders(jobs, overwrite)
    for job in jobs:
        found = begun(job, lambda job: None, overwrite, unwritable)
        yield found if isinstance(found, Outcome) else ended(job, work, job)


def carry_out_in_stages(
    jobs: Sequence[Job],
    read: Callable[[Job], Item],
    work: Callable[[Job, Item], Callable[[], Made]],
    unwritable: Mapping[Path, DerainError],
    overwrite: bool = False,
    *,
    held: Callable[[Item], int],
    at_once: int = 1,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """As `carry_out`, but reads the next job and writes an earlier one while others are worked on.

    Outcomes come in the order of the jobs.

    Args:
        jobs, overwrite: see `carry_out`.
        read: returns what `work` takes; runs in its own thread.
        work: returns a function that writes the result; both run in threads of their own.
        unwritable: folders that cannot be written to; see `prepare_folders`.
        held: bytes that a job occupies until it is written. One with more than `MOST_HELD` is done alone:
            the next is read only once it is written.
        at_once: jobs that are worked on at the same time.
        stop: set once outcomes are no longer wanted, such as after Ctrl-C, so that work may end early.
    """
    stop, permits = stop or threading.Event(), threading.Semaphore(at_once)
    at_work = deque[tuple[Future[Outcome], int]]()

    def done(job: Job, found: Item | Outcome) -> Outcome:
        with permits:
            worked = found if isinstance(found, Outcome) else _tried(job, work, job, found)
        return worked if isinstance(worked, Outcome) else ended(job, worked)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(at_once + 1) as workers:
        try:
            reading: Future[Item | Outcome] | None = None
            for job, following in itertools.zip_longest(jobs, jobs[1:]):
                found = reading.result() if reading else begun(job, read, overwrite, unwritable)
                size = 0 if isinstance(found, Outcome) else held(found)
                is_alone = following is None or size > MOST_HELD
                reading = None if is_alone else reader.submit(begun, following, read, overwrite, unwritable)
                while at_work and sum(other for _, other in at_work) + size > at_once * MOST_HELD:
                    yield at_work.popleft()[0].result()
                at_work.append((workers.submit(done, job, found), size))
                del found
                while at_work and (is_alone or len(at_work) > at_once):
                    yield at_work.popleft()[0].result()
        finally:
            stop.set()
            for future, _ in at_work:
                future.cancel()


def begun(
    job: Job, read: Callable[[Job], Item], overwrite: bool, unwritable: Mapping[Path, DerainError]
) -> Item | Outcome:
    """What was read for a job, or its outcome if there is nothing to do."""
    if exists(job.target) and not overwrite:
        return skipped(job)

    def checked() -> Item:
        if job.target.parent in unwritable:
            raise unwritable[job.target.parent]
        return read(job)

    return _tried(job, checked)


def _tried(job: Job, step: Callable[..., Item], *given: Any) -> Item | Outcome:
    """A step's result, or the outcome of the job if the step failed."""
    try:
        with errors_of(job.source, job.target):
            return step(*given)
    except DerainError as error:
        return failed(job, error)


def ended(job: Job, write: Callable[..., Made], *given: Any) -> Outcome:
    """The outcome of a job whose result is written by `write(*given)`."""
    made = _tried(job, write, *given)
    if isinstance(made, Outcome):
        return made
    note = join_notes(job.note, made.note)
    return Outcome(job, made.status, note, precision=made.precision, rain=made.rain)


def prepare_folders(jobs: Sequence[Job], overwrite: bool) -> dict[Path, DerainError]:
    """Removes leftovers of killed runs from the folders of the results, and checks that they are writable.

    Args:
        jobs: see `plan`.
        overwrite: also check the folders of results that exist.

    Returns:
        The folders that are not writable.

    Raises:
        DerainError: none of them is writable.
    """
    unwritable = {}
    folders = dict.fromkeys(job.target.parent for job in jobs if overwrite or not exists(job.target))
    for folder in folders:
        try:
            refuse_unwritable(folder)
        except DerainError as error:
            unwritable[folder] = error
    if unwritable and len(unwritable) == len(folders):
        raise next(iter(unwritable.values()))
    return unwritable


def plan(
    inputs: Sequence[Path], output: Path | None = None, *, suffix: str | None = None, videos: bool = True
) -> Plan:
    """Decides where each result goes.

    Names are kept and the folder structure is mirrored below `output`; the extension of a format that cannot
    be written is replaced. Results of an earlier run beside their sources are left out. For a single input,
    `output` may be a file. Without an output, results go beside the input, as NAME-derained.

    Args:
        inputs: files and folders; files in a folder are recognised by their content.
        output: a folder, or the file for a single input.
        suffix: the extension of all pictures that are written, in place of their own.
        videos: whether videos in folders are included.

    Raises:
        UsageError: nothing was found, or a result would replace a source or another result.
    """
    if output is None:
        plans = [_beside(given, suffix, videos) for given in inputs]
        jobs = with_distinct_names([job for planned in plans for job in planned.jobs])
        _refuse_clashes(jobs)
        return Plan(tuple(jobs), tuple(entry for planned in plans for entry in planned.unread))
    found, unread = find(inputs)
    found, earlier = _without_results(found, inputs)
    unread += earlier
    if not videos:
        found, passed = _without_videos(found, inputs)
        unread += passed
    if len(inputs) == 1 and len(found) == 1 and _names_a_file(inputs[0], found[0], output):
        below = found[0].relative.with_suffix("")
        job = Job(found[0].source, output, output.parent, Path(output.stem), found[0].is_video, below=below)
        jobs = [job if suffix is None or job.is_video else _with_suffix(job, suffix)]
    else:
        _refuse_file_for_several(output, inputs)
        found, unread = _outside_output(found, unread, inputs, output)
        jobs = mirrored(found, output, suffix)
    if not jobs and not unread:
        raise nothing_found(inputs, videos)
    _refuse_clashes(jobs)
    return Plan(tuple(jobs), tuple(unread))


def _without_results(found: Sequence[Found], inputs: Sequence[Path]) -> tuple[list[Found], list[Unread]]:
    """What was found, without what an earlier run wrote beside its sources in folders."""
    results = written_beside(entry.source for entry in found)
    kept, earlier = [], []
    for entry in found:
        if entry.source in results and entry.source not in inputs:
            earlier.append(Unread(entry.source, "from an earlier run", ""))
        else:
            kept.append(entry)
    return kept, earlier


def _without_videos(found: Sequence[Found], inputs: Sequence[Path]) -> tuple[list[Found], list[Unread]]:
    """What was found, without the videos in folders."""
    passed = [entry for entry in found if entry.is_video and entry.source not in inputs]
    kept = [entry for entry in found if entry not in passed]
    return kept, [Unread(entry.source, "video", "only pictures are taken here") for entry in passed]


def _outside_output(
    found: list[Found], unread: list[Unread], inputs: Sequence[Path], output: Path
) -> tuple[list[Found], list[Unread]]:
    """Both lists without what an earlier run wrote to an output folder inside an input folder."""
    within = real(output)
    if not any(real(given) in (within, *within.parents) for given in inputs if is_folder(given)):
        return found, unread
    kept = [entry for entry in found if within not in real(entry.source).parents]
    if found and not kept:
        raise UsageError("nothing to restore: all pictures found are in the output folder.")
    return kept, [entry for entry in unread if within not in (p := real(entry.source), *p.parents)]


def _refuse_file_for_several(output: Path, inputs: Sequence[Path]) -> None:
    """Raises `UsageError` if the output for several results is a file, or is named like one."""
    if exists(output) and not is_folder(output):
        raise UsageError(f"{output}: is a file; several results need a folder.")
    if len(inputs) > 1 and not exists(output) and output.suffix.lower() in (*EXTENSIONS, *VIDEO_KINDS):
        raise UsageError(
            f"{output}: is named like a file, but several results need a folder; give a name without "
            f"{output.suffix}."
        )


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    sources = {real(job.source) for job in jobs}
    first: dict[Path, Job] = {}
    for job in jobs:
        if real(job.target) in sources:
            raise UsageError(f"{job.target}: the result would replace a source; give another output.")
        earlier = first.setdefault(job.target, job)
        if earlier.source != job.source:
            raise one_result_of_two(earlier.source, job.source, job.target)


def _with_suffix(job: Job, suffix: str) -> Job:
    if job.target.suffix.lower() not in ("", suffix):
        raise UsageError(f"{job.target}: its extension does not match the format {suffix}.")
    return replace(job, target=job.target.with_suffix(suffix))


def with_distinct_names(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; results that would have the same name are given the full names of their sources.

    If results are written as PNG, a.jpg becomes a.jpg.png where there is also an a.png.
    """
    pairs = {(job.target, job.source) for job in jobs}
    shared = {target for target, count in Counter(target for target, _ in pairs).items() if count > 1}
    return [with_full_name(job) if job.target in shared and not _is_named_alike(job) else job for job in jobs]


def _is_named_alike(job: Job) -> bool:
    return job.target.name in (job.source.name, f"{job.source.stem}{RESULT}{job.source.suffix}")


def with_full_name(job: Job) -> Job:
    """The job, with its result named after the source with its extension."""
    is_beside = job.target.stem == f"{job.source.stem}{RESULT}"
    target = job.target.with_name(f"{job.source.name}{RESULT if is_beside else ''}{job.target.suffix}")
    name = Path(target.stem) if is_beside else job.name
    return replace(job, target=target, name=name, note=f"written as {target.name}")


def _names_a_file(given: Path, found: Found, output: Path) -> bool:
    """Whether the output of a single input is a file and not a folder; refuses unsupported extensions."""
    if is_folder(given) or is_folder(output):
        return False
    suffix = output.suffix.lower()
    if found.is_video or suffix in EXTENSIONS:
        return bool(suffix)
    if not suffix.strip(".0123456789"):  # "dry" and "dry-2026.11" are folders
        return False
    advice = "" if suffix in KNOWN_EXTENSIONS else " If it is to be a folder, make it first."
    raise UsageError(
        f"{output}: pictures are written as {' '.join(EXTENSIONS)}; choose one of these.{advice}"
    )


def mirrored(found: Sequence[Found], output: Path, suffix: str | None = None) -> list[Job]:
    """The jobs for files found in folders: results have the same relative paths below `output`.

    Args:
        found: the files.
        output: the folder of the results.
        suffix: the extension of all pictures that are written, in place of their own.
    """
    # a.jpg and a.png get separate sheets and maps.
    stems = Counter(entry.relative.with_suffix("") for entry in found)
    taken = {entry.relative for entry in found}
    jobs = []
    for entry in found:
        stem = entry.relative.with_suffix("")
        name = stem if stems[stem] == 1 else entry.relative
        result = _written_name(entry, taken)
        note = "" if result == entry.relative else f"written as {result.name}"
        if suffix is not None and not entry.is_video:
            result, note = result.with_suffix(suffix), ""
        jobs.append(Job(entry.source, output / result, output, name, entry.is_video, note, below=stem))
    return with_distinct_names(jobs)


def _written_name(entry: Found, taken: set[Path]) -> Path:
    """The name of a result: its source's, with another extension if that format cannot be written."""
    suffix = entry.relative.suffix.lower()
    if entry.kind is None or suffix in (VIDEO_KINDS if entry.is_video else EXTENSIONS):
        return entry.relative
    known = suffix in entry.kind.extensions or suffix in (*VIDEO_KINDS, *EXTENSIONS)
    name = entry.relative.stem if known else entry.relative.name  # "holiday 3.5" has no extension
    result = entry.relative.with_name(name + entry.kind.result)
    return entry.relative.with_name(entry.relative.name + entry.kind.result) if result in taken else result


def beside(folder: Path) -> Path:
    """The default folder for the results of a folder. Raises `UsageError` if it has no parent."""
    place = _named(folder)
    return place.with_name(f"{place.name}{RESULT}")


def _named(given: Path) -> Path:
    """The path, made to end in a name, which "." does not."""
    place = real(given) if given.name in ("", "..") else given
    if not place.name:
        raise UsageError(f"{given}: has no parent folder for the result; give an output.")
    return place


def _beside(given: Path, suffix: str | None, videos: bool) -> Plan:
    place = _named(given)
    if is_folder(place):
        return plan([given], beside(place), suffix=suffix, videos=videos)
    (job,) = plan([given], place.parent / "derained", suffix=suffix, videos=videos).jobs
    target = place.with_name(f"{job.target.stem}{RESULT}{job.target.suffix}")
    return Plan((replace(job, target=target, folder=place.parent, name=Path(target.stem)),))
