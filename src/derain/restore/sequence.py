"""Restores pictures that are the frames of a clip, and corrects each by its neighbours."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from derain.errors import DerainError
from derain.notes import join_notes
from derain.paths import exists
from derain.pictures import Picture, left_out, read_picture, to_tensor, with_pixels, write_picture
from derain.restore.jobs import Job, Made, Outcome, begun, ended, failed, skipped
from derain.restore.neighbours import RADIUS
from derain.restore.prefetch import prefetch
from derain.restore.protecting import WITHOUT_MASK, Protection

if TYPE_CHECKING:
    from derain.pictures.video import Frame
    from derain.restore.derainer import Derainer


def restore_sequences(
    derainer: Derainer,
    jobs: Sequence[Job],
    unwritable: Mapping[Path, DerainError],
    overwrite: bool = False,
    protection: Protection | None = None,
    jpeg_quality: int | None = None,
) -> Iterator[Outcome]:
    """Restores the pictures of each folder as the frames of a clip, in the natural order of their names, in
    which 2.png comes before 10.png. Where their size or depth changes, a new clip begins.

    Args:
        derainer: the network.
        jobs: pictures.
        unwritable: folders that cannot be written to; see `prepare_folders`.
        overwrite: replace results that exist.
        protection: what stays unchanged.
        jpeg_quality: the quality of JPEG results; see `PictureOptions`.
    """
    ordered = sorted(jobs, key=lambda job: (job.source.parent, _in_order(job.source.name)))
    for _, frames in itertools.groupby(ordered, key=lambda job: job.source.parent):
        yield from _Folder(derainer, list(frames), unwritable, overwrite, protection).outcomes(jpeg_quality)


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


class _Folder:
    """The frames of one folder in progress.

    `open` holds the pictures that were read but not yet written, each with its keep map; `unread` holds the
    outcomes of those that could not be read.
    """

    def __init__(
        self,
        derainer: Derainer,
        jobs: Sequence[Job],
        unwritable: Mapping[Path, DerainError],
        overwrite: bool,
        protection: Protection | None,
    ) -> None:
        self.derainer, self.jobs = derainer, jobs
        self.unwritable, self.protection = unwritable, protection
        self.there = [exists(job.target) and not overwrite for job in jobs]
        self.open: dict[int, tuple[Picture, Tensor | None]] = {}
        self.unread: dict[int, Outcome] = {}

    def outcomes(self, jpeg_quality: int | None) -> Iterator[Outcome]:
        """The outcomes of the jobs, in order."""
        number = 0
        while number < len(self.jobs):
            try:
                for frame in self._restored(number):
                    while number < frame.pts:
                        yield self._not_restored(number)
                        number += 1
                    yield self._written(frame, jpeg_quality)
                    number += 1
            except DerainError as error:
                # From the network, at the first frame not yielded; the frames after it form a new clip.
                while number in self.unread:
                    yield self._not_restored(number)
                    number += 1
                yield skipped(self.jobs[number]) if self.there[number] else failed(self.jobs[number], error)
                number += 1
                self.open.clear()
                continue
            for rest in range(number, len(self.jobs)):
                yield self._not_restored(rest)
            return

    def _not_restored(self, number: int) -> Outcome:
        return skipped(self.jobs[number]) if self.there[number] else self.unread[number]

    def _restored(self, first: int) -> Iterator[Frame]:
        """Those frames from `first` on, restored, that can be read and are needed."""
        from derain.restore.video import restored_frames  # PyAV takes a while to load

        with contextlib.closing(prefetch(self._frames(first))) as frames:
            alike = itertools.groupby(frames, key=lambda frame: (frame.pixels.shape, frame.pixels.itemsize))
            for (_, itemsize), clip in alike:
                bits = 8 * itemsize
                restored = restored_frames(
                    clip,
                    self.derainer.frame_restorer(bits),
                    bits,
                    self.derainer.frames_in_a_pass,
                    self.derainer.passes_at_once(),
                    frame_by_frame=False,
                    finish=None,
                )
                with contextlib.closing(prefetch(restored)) as source:
                    yield from source

    def _frames(self, first: int) -> Generator[Frame]:
        """The frames as read; `pts` is the index of the job."""
        from derain.pictures.video import Frame, frame_from_tensor

        for number in range(first, len(self.jobs)):
            # Frames whose results exist are still read if they are neighbours of others.
            if all(self.there[max(number - RADIUS, 0) : number + RADIUS + 1]):
                continue
            read = begun(self.jobs[number], self._read, True, {} if self.there[number] else self.unwritable)
            if isinstance(read, Outcome):
                self.unread[number] = read
                continue
            self.open[number] = read
            yield Frame(frame_from_tensor(to_tensor(read[0])[0], read[0].bits), number, 0)

    def _read(self, job: Job) -> tuple[Picture, Tensor | None]:
        picture = read_picture(job.source)
        return picture, None if self.protection is None else self.protection.keep(picture.size, job.mask_name)

    def _written(self, frame: Frame, jpeg_quality: int | None) -> Outcome:
        from derain.pictures.video import frame_to_tensor

        job, (picture, keep) = self.jobs[frame.pts], self.open.pop(frame.pts)
        if self.there[frame.pts]:
            return skipped(job)

        def write() -> Made:
            image = frame_to_tensor(frame.pixels)[None]
            finish = self.derainer.frame_finish(keep)
            if finish is not None:
                image = finish(to_tensor(picture), image)
            lost = write_picture(job.target, with_pixels(picture, image), jpeg_quality)
            without_mask = WITHOUT_MASK if self.protection is not None and keep is None else ""
            note = join_notes(left_out(lost), without_mask)
            return Made(note, self.derainer.precision_for(picture.bits))

        return ended(job, write)
