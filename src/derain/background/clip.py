"""Where the frames of a static clip come from: a video, or pictures with numbers in their names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.errors import DerainError, Remedy, UsageError, reason
from derain.paths import is_folder, real
from derain.pictures import EXTENSIONS, Picture, read_picture, to_rgb8
from derain.pictures.finding import nothing_found
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import VideoFacts, video_facts

_PATTERN = re.compile(r"%0?\d*d")


@dataclass(frozen=True)
class Clip:
    """A clip whose frames can be read any number of times.

    Attributes:
        path: the path that the user gave.
        name: a name for files made from the clip, without spaces.
        source: the facts of a video, or the picture files in their order.
        limit: use only this many frames; None uses all.
    """

    path: Path
    name: str
    source: VideoFacts | tuple[Path, ...]
    limit: int | None

    @property
    def expected_frames(self) -> int | None:
        """The number of frames; None if the video does not state it."""
        if isinstance(self.source, tuple):
            return len(self.source)
        expected = self.source.expected_frames
        return expected if self.limit is None or expected is None else min(expected, self.limit)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """The frames, (H, W, 3) uint8 RGB; frames of more bits are rounded to 8.

        Raises:
            DerainError: a frame cannot be read, or there are fewer than `limit`.
        """
        if isinstance(self.source, tuple):
            yield from (to_rgb8(read_picture(file)) for file in self.source)
            return
        reader = VideoReader(self.source)
        count = 0
        for frame in itertools.islice(reader, self.limit):
            count += 1
            yield to_rgb8(Picture(frame.pixels))
        if reader.shortfall:
            raise DerainError(f"{self.path}: {reader.shortfall}.", Remedy("use those", {"frames": count}))
        if self.limit is not None and count < self.limit:
            raise _too_few(self.path, count, self.limit)


def open_clip(path: str | Path, limit: int | None = None) -> Clip:
    """A clip from a video, a folder of numbered pictures, or a pattern such as `rain_%04d.png`.

    Pictures are ordered by the last number in their names; gaps in the numbers do not matter.

    Args:
        path: see above.
        limit: use only this many frames, from the first.

    Raises:
        UsageError: nothing is found there, or pictures have no number or share one.
        DerainError: the video cannot be read, or there are fewer pictures than `limit`.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} frames cannot be used; give 1 or more.")
    if path.is_dir():
        files = [f for f in _entries(path) if f.suffix.lower() in EXTENSIONS and f.name[0] != "."]
    elif _PATTERN.search(path.name):
        expression = r"\d+".join(map(re.escape, _PATTERN.split(path.name)))
        files = [f for f in _entries(path.parent) if re.fullmatch(expression, f.name)]
    else:
        return Clip(path, _without_blanks(path.stem), video_facts(path), limit)
    if not files:
        raise nothing_found([path])
    ordered = _in_order(files)
    if limit is not None and len(ordered) < limit:
        raise _too_few(path, len(ordered), limit)
    name = real(path).name if is_folder(path) else _PATTERN.sub("", path.stem).strip("-_. ") or "clip"
    return Clip(path, _without_blanks(name), tuple(ordered[:limit]), limit)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({reason(error)}).") from None


def _in_order(files: list[Path]) -> list[Path]:
    numbered: dict[int, Path] = {}
    for file in files:
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise UsageError(f"{file}: has no number in its name, so its place is unknown; move it away.")
        first = numbered.setdefault(int(numbers[-1]), file)
        if first != file:
            raise UsageError(f"{first} and {file} have the same number; keep one sequence in a folder.")
    return [numbered[number] for number in sorted(numbered)]


def _too_few(path: Path, found: int, wanted: int) -> DerainError:
    return DerainError(
        f"{path}: has {found} frames, but {wanted} were requested.", Remedy("use those", {"frames": found})
    )


def _without_blanks(name: str) -> str:
    return re.sub(r"\s+", "_", name)
