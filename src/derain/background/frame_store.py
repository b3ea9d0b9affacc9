"""The frames of a clip, kept in memory if they fit, otherwise in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from derain.background.histories import MAX_FRAMES
from derain.errors import DerainError, reason

IN_MEMORY = 384 * 2**20  # bytes of frames that are kept without a scratch file


class FrameStore:
    """All frames of one clip; any stretch of pixels can be read across all of them.

    Attributes:
        height, width: the size of a frame.
        frames: the number of frames.
    """

    def __init__(self, frames: Iterable[NDArray[np.uint8]], scratch: Path | None = None) -> None:
        """Reads all of `frames`.

        Args:
            frames: pictures (H, W, 3) uint8 of one size.
            scratch: the folder for a temporary file of 3 H W bytes a frame, which is needed when
                the clip exceeds `IN_MEMORY`; None takes the system's.

        Raises:
            DerainError: there are no frames, too many, or some of another size, or the disk is full.
        """
        self.frames = self.height = self.width = 0
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115, closed on exit
            max_size=IN_MEMORY, dir=None if scratch is None else str(scratch)
        )
        try:
            for frame in frames:
                self._append(frame)
        except OSError as error:
            raise DerainError(
                f"{scratch or tempfile.gettempdir()}: the frames do not fit "
                f"({reason(error)}); free space or use fewer frames."
            ) from error
        if self.frames == 0:
            raise DerainError("the clip has no frames; at least one is needed.")

    def _append(self, frame: NDArray[np.uint8]) -> None:
        if self.frames == 0:
            self.height, self.width = frame.shape[:2]
        if frame.shape != (self.height, self.width, 3):
            raise DerainError(
                f"frame {self.frames + 1} is {frame.shape[1]}x{frame.shape[0]}, the first is "
                f"{self.width}x{self.height}; all frames must have one size."
            )
        if self.frames == MAX_FRAMES:
            raise DerainError(f"the clip has more than {MAX_FRAMES:,} frames; use fewer frames.")
        self._file.write(np.ascontiguousarray(frame).data)
        self.frames += 1

    @property
    def pixels(self) -> int:
        """Pixels of one frame."""
        return self.height * self.width

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The pixels `start` to `stop` (row-major) of all frames: (T, stop - start, 3)."""
        samples = np.empty((self.frames, stop - start, 3), np.uint8)
        for number, row in enumerate(samples):
            self._file.seek(3 * (number * self.pixels + start))
            self._file.readinto(row.data.cast("B"))
        return samples

    def frame(self, number: int) -> NDArray[np.uint8]:
        """One frame, (H, W, 3)."""
        picture = np.empty((self.height, self.width, 3), np.uint8)
        self._file.seek(3 * number * self.pixels)
        self._file.readinto(picture.data.cast("B"))
        return picture

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
