"""Restoring many pictures: what goes where, what is skipped, and one broken file stops nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from derain.errors import DerainError, UsageError
from derain.pictures import (
    EXTENSIONS,
    Picture,
    find_pictures,
    grey_map,
    read_picture,
    side_by_side,
    to_rgb8,
    to_tensor,
    with_pixels,
    write_picture,
)
from derain.restore.derainer import Derainer

if TYPE_CHECKING:
    from derain.restore.clips import ClipOutcome

Status = Literal["restored", "skipped", "failed"]
COMPARE, MAPS = "compare", "maps"


@dataclass(frozen=True)
class Job:
    """One picture to restore.

    Attributes:
        source: the rainy file.
        target: the file to write.
        extras: the folder for comparison sheets and maps, and the name below it, without extension.
    """

    source: Path
    target: Path
    extras: tuple[Path, Path]


@dataclass(frozen=True)
class Outcome:
    """What became of one job; `note` says why, or how it was done."""

    job: Job
    status: Status
    note: str = ""


def as_row(outcome: Outcome | ClipOutcome) -> dict[str, str]:
    """What became of a job, for programs to read."""
    return {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "status": outcome.status,
        "note": outcome.note,
    }


def plan(
    inputs: Sequence[Path],
    output: Path | None,
    *,
    output_is_folder: bool = False,
    suffix: str | None = None,
) -> list[Job]:
    """Which file becomes which.

    Names are kept and the structure of folders is mirrored below `output`. A single file may name
    its output file, unless `output_is_folder`. Without an output, results go beside the input, as
    NAME-derained. With a `suffix`, all results have that extension.

    Raises:
        UsageError: nothing was found, or a result would replace a source or another result.
    """
    if output is None:
        jobs = [job for given in inputs for job in _beside(given)]
    elif _names_a_file(inputs, output) and not output_is_folder:
        jobs = [Job(inputs[0], output, (output.parent, Path(output.stem)))]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is a file; several results need a folder.")
        jobs = _mirrored(inputs, output)
    if not jobs:
        raise UsageError("nothing to restore: all pictures found lie in the output folder.")
    if suffix is not None:
        jobs = [replace(job, target=job.target.with_suffix(suffix)) for job in jobs]
    sources = {job.source.resolve() for job in jobs}
    first: dict[Path, Path] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise UsageError(f"{job.target}: the result would replace it; give another output.")
        if first.setdefault(job.target, job.source) != job.source:
            raise UsageError(
                f"{first[job.target]} and {job.source} would both be written as {job.target}; run them apart."
            )
    return jobs


def _names_a_file(inputs: Sequence[Path], output: Path) -> bool:
    return len(inputs) == 1 and not inputs[0].is_dir() and output.suffix.lower() in EXTENSIONS


def _mirrored(inputs: Sequence[Path], output: Path) -> list[Job]:
    """All pictures below the inputs, but for those of an output folder that lies in an input folder."""
    places = [given.resolve() for given in inputs if given.is_dir()]
    inside = any(place in (output.resolve(), *output.resolve().parents) for place in places)
    found = [
        found
        for found in find_pictures(inputs)
        if not (inside and output.resolve() in found.source.resolve().parents)
    ]
    # a.jpg and a.png have sheets and maps of their own.
    stems = Counter(picture.relative.with_suffix("") for picture in found)
    jobs = []
    for picture in found:
        stem = picture.relative.with_suffix("")
        extra = stem if stems[stem] == 1 else picture.relative
        jobs.append(Job(picture.source, output / picture.relative, (output, extra)))
    return jobs


def _beside(given: Path) -> list[Job]:
    place = given.resolve() if given.name in ("", "..") else given
    if not place.name:
        raise UsageError(f"{given}: has no folder beside it; give an output.")
    name = f"{place.name if place.is_dir() else place.stem}-derained"
    return plan([given], place.with_name(name if place.is_dir() else f"{name}{place.suffix}"))


def extra_file(job: Job, kind: str, ending: str) -> Path:
    """Where what belongs to a result lies: FOLDER/KIND/NAME + ENDING."""
    folder, name = job.extras
    return folder / kind / name.with_name(f"{name.name}{ending}")


def restore_all(
    derainer: Derainer,
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    maps: bool = False,
    compare: bool = False,
    jpeg_quality: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Outcome]:
    """Restores one picture after the other, telling what became of each.

    A picture that cannot be read or written gives a failed outcome, and the rest goes on.
    `progress(done, total)` counts the tiles of the picture in work.
    """
    for job in jobs:
        if job.target.exists() and not overwrite:
            yield Outcome(job, "skipped", "exists already; --overwrite replaces it")
            continue
        try:
            picture = read_picture(job.source)
            restored = derainer.restore(to_tensor(picture), maps, progress)
            result = with_pixels(picture, restored.image)
            if maps:
                for name, values in restored.maps.items():
                    write_picture(extra_file(job, MAPS, f"-{name}.png"), grey_map(values))
            if compare:
                sheet = Picture(side_by_side(to_rgb8(picture), to_rgb8(result)))
                write_picture(extra_file(job, COMPARE, ".jpg"), sheet)
            # Last, so that a result that exists means that all of the picture's files do.
            lost = write_picture(job.target, result, jpeg_quality)
        except DerainError as error:
            yield Outcome(job, "failed", str(error))
        else:
            notes = [restored.note, *([f"left out: {', '.join(lost)}"] if lost else [])]
            yield Outcome(job, "restored", "; ".join(filter(None, notes)))
