"""Pictures that are the frames of a clip: each is restored, and corrected by its neighbours."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from derain.errors import DerainError
from derain.paths import exists
from derain.pictures import Picture, left_out, read_picture, to_tensor, with_pixels, write_picture
from derain.restore.jobs import Job, Made, Outcome, begun, ended, failed, prepare_folders, skipped
from derain.restore.neighbours import RADIUS
from derain.restore.prefetch import prefetch
from derain.restore.protecting import WITHOUT_MASK, Protection

if TYPE_CHECKING:
    from derain.pictures.video import Frame
    from derain.restore.derainer import Derainer


def restore_sequences(
    derainer: Derainer,
    jobs: Sequence[Job],
    overwrite: bool = False,
    protection: Protection | None = None,
    jpeg_quality: int | None = None,
) -> Iterator[Outcome]:
    """Restores the pictures of each folder as the frames of a clip, in the order of their names, in which
    numbers count as such: 2.png comes before 10.png.

    Args:
        derainer: the network.
        jobs: pictures.
        overwrite: replace results that exist.
        protection: what stays unchanged.
        jpeg_quality: of JPEG results; see `PictureOptions`.

    Raises:
        DerainError: no result could be written; checked before the work.
    """
    todo = [job for job in jobs if overwrite or not exists(job.target)]
    unwritable = prepare_folders(todo)
    ordered = sorted(jobs, key=lambda job: (job.source.parent, _in_order(job.source.name)))
    for _, frames in itertools.groupby(ordered, key=lambda job: job.source.parent):
        clip = _Clip(derainer, list(frames), overwrite, unwritable)
        yield from clip.outcomes(protection, jpeg_quality)


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


@dataclass
class _Clip:
    """The frames of one folder, and what became of those that are not in its clip."""

    derainer: Derainer
    jobs: Sequence[Job]
    overwrite: bool
    unwritable: Mapping[Path, DerainError]
    open: dict[int, Picture] = field(default_factory=dict)  # read, and not written yet
    unread: dict[int, Outcome] = field(default_factory=dict)

    def outcomes(self, protection: Protection | None, jpeg_quality: int | None) -> Iterator[Outcome]:
        """Of the jobs, in their order."""
        there = [exists(job.target) and not self.overwrite for job in self.jobs]
        # Those that are there are still the neighbours of others.
        needed = [
            number
            for number in range(len(there))
            if not all(there[max(number - RADIUS, 0) : number + RADIUS + 1])
        ]
        made = self._restored(needed)
        number = 0
        try:
            for frame in made:
                while number < frame.pts:
                    yield self._not_restored(number)
                    number += 1
                picture = self.open.pop(number)
                if there[number]:
                    yield skipped(self.jobs[number])
                else:
                    yield self._written(number, picture, frame, protection, jpeg_quality)
                number += 1
        except DerainError as error:  # of the network, which ends the clip
            for job, done in zip(self.jobs[number:], there[number:], strict=True):
                yield skipped(job) if done else failed(job, error)
            return
        for rest in range(number, len(self.jobs)):
            yield self._not_restored(rest)

    def _not_restored(self, number: int) -> Outcome:
        return self.unread.get(number) or skipped(self.jobs[number])

    def _restored(self, needed: Sequence[int]) -> Iterator[Frame]:
        from derain.restore.video import restored_frames  # PyAV takes a while to load

        frames = prefetch(self._frames(needed))
        first = next(frames, None)
        if first is None:
            return
        bits = 8 * first.pixels.itemsize
        restore, _ = self.derainer.for_frames(bits)
        every, batch = itertools.chain([first], frames), self.derainer.frames_at_once
        restored = restored_frames(every, restore, bits, batch, frame_by_frame=False, finish=None)
        with contextlib.closing(frames), contextlib.closing(prefetch(restored)) as source:
            yield from source

    def _frames(self, needed: Sequence[int]) -> Generator[Frame]:
        """Those that can be read; `pts` is the number of the job."""
        from derain.pictures.video import Frame, frame_from_tensor

        first = None
        for number in needed:
            job = self.jobs[number]
            read = begun(job, lambda job: read_picture(job.source), True, self.unwritable)
            if isinstance(read, Outcome):
                self.unread[number] = read
                continue
            first = first or read
            if (read.size, read.bits) != (first.size, first.bits):
                height, width = read.size
                error = DerainError(
                    f"{job.source}: is {width}x{height} with {read.bits} bits, unlike the frames before it "
                    f"({first.size[1]}x{first.size[0]} with {first.bits}); leave it out of the folder."
                )
                self.unread[number] = failed(job, error)
                continue
            self.open[number] = read
            yield Frame(frame_from_tensor(to_tensor(read)[0], read.bits), number, 0)

    def _written(
        self,
        number: int,
        picture: Picture,
        frame: Frame,
        protection: Protection | None,
        jpeg_quality: int | None,
    ) -> Outcome:
        from derain.pictures.video import frame_to_tensor

        def write(job: Job) -> Made:
            keep = None if protection is None else protection.keep(picture.size, job.name)
            image = frame_to_tensor(frame.pixels)[None]
            _, finish = self.derainer.for_frames(picture.bits, keep)
            if finish is not None:
                image = finish(to_tensor(picture), image)
            lost = write_picture(job.target, with_pixels(picture, image), jpeg_quality)
            without_mask = WITHOUT_MASK if protection is not None and keep is None else ""
            note = "; ".join(part for part in (left_out(lost), without_mask) if part)
            return Made(note, self.derainer.precision_for(picture.bits))

        return ended(self.jobs[number], write, self.jobs[number])
