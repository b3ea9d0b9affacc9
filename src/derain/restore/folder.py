"""Restoring many pictures: what goes where, what is skipped, and one broken file stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        extras: the folder for comparison sheets and maps, and the name below it.
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


def plan(inputs: Sequence[Path], output: Path | None) -> list[Job]:
    """Which file becomes which.

    Names are kept and the structure of folders is mirrored below `output`. A single file may name
    its output file. Without an output, results go beside the input, as NAME-derained.

    Raises:
        UsageError: nothing was found, or a result would replace its source or another result.
    """
    if output is None:
        jobs = [job for given in inputs for job in _beside(given)]
    elif len(inputs) == 1 and not inputs[0].is_dir() and output.suffix.lower() in EXTENSIONS:
        jobs = [Job(inputs[0], output, (output.parent, Path(output.name)))]
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is a file; several results need a folder.")
        jobs = [
            Job(found.source, output / found.relative, (output, found.relative))
            for found in find_pictures(inputs)
            if output.resolve() not in found.source.resolve().parents
        ]
    if not jobs:
        raise UsageError("nothing to restore: all pictures found lie in the output folder.")
    for job in jobs:
        if job.target.resolve() == job.source.resolve():
            raise UsageError(f"{job.source}: the result would replace it; give another output.")
    return jobs


def _beside(given: Path) -> list[Job]:
    output = (
        given.with_stem(f"{given.stem}-derained")
        if not given.is_dir()
        else given.with_name(f"{given.resolve().name}-derained")
    )
    return plan([given], output)


def restore_all(
    derainer: Derainer,
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    maps: bool = False,
    compare: bool = False,
    jpeg_quality: int = 95,
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
                    where = job.extras[0] / MAPS / job.extras[1]
                    write_picture(where.with_name(f"{where.stem}-{name}.png"), grey_map(values))
            if compare:
                where = (job.extras[0] / COMPARE / job.extras[1]).with_suffix(".jpg")
                write_picture(where, Picture(side_by_side(to_rgb8(picture), to_rgb8(result))))
            # Last, so that a result that exists means that all of the picture's files do.
            write_picture(job.target, result, jpeg_quality)
        except DerainError as error:
            yield Outcome(job, "failed", str(error))
        else:
            yield Outcome(job, "restored", restored.note)
