"""How much a server accepts, and the refusal of more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from derain.errors import DerainError, UsageError

# What each limit is for, and the unit that people think in: its size and its name.
IN_WORDS = {
    "upload_bytes": ("one upload", 1e6, "MB"),
    "upload_seconds": ("the time of an upload", 1, "s"),
    "upload_pace": ("the pace of an upload", 1e3, "kB per second"),
    "pixels": ("one picture or frame", 1e6, "megapixels"),
    "clip_seconds": ("the length of a clip", 1, "s"),
    "job_seconds": ("the work on one picture or clip", 1, "s"),
    "waiting": ("the queue", 1, "pictures and clips"),
    "storage_bytes": ("all stored files together", 1e6, "MB"),
    "keep_seconds": ("keeping a result", 60, "minutes"),
}


@dataclass(frozen=True)
class Limits:
    """What one server accepts.

    Attributes:
        upload_bytes: the largest file.
        upload_seconds: how long one upload may take.
        upload_pace: the lowest mean speed of an upload, in bytes per second; a slower one is refused, so
            that nobody occupies a place by sending next to nothing. The first seconds may be slower.
        pixels: the most pixels in one picture, or in one frame of a clip.
        clip_seconds: the longest clip.
        job_seconds: how long restoring one picture or clip may take.
        waiting: the most uploads in progress and jobs in the queue, together.
        storage_bytes: the size of all stored uploads and results together, beyond which no job is accepted.
        keep_seconds: the time after which a finished job is deleted.

    Raises:
        UsageError: a limit is not a positive finite number.
    """

    upload_bytes: int = 100_000_000
    upload_seconds: float = 300
    upload_pace: float = 8_000
    pixels: int = 40_000_000
    clip_seconds: float = 30
    job_seconds: float = 900
    waiting: int = 32
    storage_bytes: int = 2_000_000_000
    keep_seconds: float = 3600

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                what, unit, written = IN_WORDS[name]
                raise UsageError(
                    f"the limit for {what} is {value / unit:g} {written}; give a positive number."
                )


class Refused(DerainError):
    """A request that is answered with an HTTP status and one line.

    Attributes:
        status: the HTTP status, 400 to 599.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
