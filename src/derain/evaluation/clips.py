"""Clips to be scored: their frames are written as pictures to a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from derain.errors import DerainError
from derain.pictures import Picture, to_rgb8, write_picture
from derain.pictures.kinds import file_kind
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import video_facts


@contextmanager
def with_frames(paths: Mapping[str, Path | None]) -> Iterator[dict[str, Path | None]]:
    """Paths with a folder of frames in place of every video: `00001.png`, `00002.png`, ... of 8 bits.

    The frames are upright, as they are displayed, and are kept in the system's folder for temporary files
    until the end of the block. Paths of other files stay the same.

    Raises:
        DerainError: a video cannot be read to its end, videos have different numbers of frames, or the
            disk is full.
    """
    with ExitStack() as kept:
        found: dict[str, Path | None] = {}
        counts: dict[Path, int] = {}
        for name, path in paths.items():
            if path is None or not _is_video(path):
                found[name] = path
                continue
            folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="derain-frames-")))
            counts[path] = _write_frames(path, folder)
            found[name] = folder
        if len(set(counts.values())) > 1:
            counted = " and ".join(f"{path} has {count} frames" for path, count in counts.items())
            raise DerainError(f"{counted}; clips that are compared must have the same frames.")
        yield found


def _is_video(path: Path) -> bool:
    kind = file_kind(path) if path.is_file() else None
    return kind is not None and kind.media == "video"


def _write_frames(path: Path, folder: Path) -> int:
    reader = VideoReader(video_facts(path))
    for number, frame in enumerate(reader, 1):
        write_picture(folder / f"{number:05d}.png", Picture(to_rgb8(Picture(frame.pixels))))
    if reader.shortfall:
        raise DerainError(f"{path}: {reader.shortfall}.")
    return reader.frames
