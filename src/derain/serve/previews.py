"""What the page shows: JPEG pictures and films of files that browsers may be unable to show."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from derain.pictures import Picture, encode_picture, to_rgb8, write_picture
from derain.pictures.picture import Array
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import VideoFacts

SIDE = 2000  # pixels: the longest side of a preview of a whole picture
QUALITY, QUALITY_FULL = 92, 97
FILM_SIDE = 960  # pixels: the longest side of each half of a film


def write_preview(path: Path, picture: Picture) -> None:
    """Writes `picture` as 8-bit RGB, its longer side at most `SIDE` pixels, with its colour profile.

    Raises:
        DerainError: the file cannot be written.
    """
    image = Image.fromarray(to_rgb8(picture))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    write_picture(path, _seen(picture, np.asarray(image)), QUALITY)


def full_preview(picture: Picture) -> bytes:
    """All pixels of `picture`, as a JPEG of high quality."""
    return encode_picture(_seen(picture, to_rgb8(picture)), ".jpg", QUALITY_FULL)


def _seen(picture: Picture, pixels: Array) -> Picture:
    return Picture(pixels, icc=None if picture.pixels.shape[2] == 1 else picture.icc)


def write_film(path: Path, before: VideoFacts, after: VideoFacts, step: Callable[[], None]) -> None:
    """Writes both clips side by side, each at most `FILM_SIDE` pixels wide and high, as H.264 without sound.

    A single film cannot get out of step, as two could. It ends with the shorter clip.

    Args:
        path: the MP4 file.
        before, after: the clips, both of the same size.
        step: called before each frame; an exception that it raises ends the work.

    Raises:
        DerainError: a clip cannot be read.
        av.error.FFmpegError: the film cannot be written.
    """
    scale = min(1.0, FILM_SIDE / max(before.width, before.height))
    upright = (before.width, before.height) if before.turns % 2 == 0 else (before.height, before.width)
    width, height = (max(2, round(side * scale) // 2 * 2) for side in upright)
    options = {"movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", container_options=options) as output:
        stream = output.add_stream("libx264", rate=before.rate, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 2 * width, height, "yuv420p"
        stream.codec_context.time_base = before.time_base
        start: int | None = None
        for rainy, restored in zip(VideoReader(before), VideoReader(after), strict=False):
            step()
            start = rainy.pts if start is None else start
            halves = [_shrunk(Picture(frame.pixels), width, height) for frame in (rainy, restored)]
            frame = av.VideoFrame.from_ndarray(np.concatenate(halves, axis=1), "rgb24")
            frame.pts, frame.time_base = rainy.pts - start, Fraction(before.time_base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def _shrunk(picture: Picture, width: int, height: int) -> Array:
    image = Image.fromarray(to_rgb8(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
