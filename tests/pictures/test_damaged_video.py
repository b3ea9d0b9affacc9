"""Video that was damaged or cut off is noticed, and nothing else is."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from clips import moving_scene, write_clip
from derain.pictures.matroska_elements import Elements, is_whole
from derain.pictures.streams import open_pipe
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import video_facts

COUNT = 10


def scene() -> list[NDArray[np.uint8]]:
    """Frames with noise, so that each one takes many bytes."""
    noise = np.random.default_rng(4)
    return [frame + noise.integers(0, 40, frame.shape, np.uint8) for frame in moving_scene(COUNT, 48, 64)]


def clip(path: Path, codec: str = "libx264") -> Path:
    pixel_format = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    fine = {} if codec.startswith("lib") else {"qmin": "2", "qmax": "2"}
    return write_clip(path, scene(), codec=codec, pixel_format=pixel_format, rate=Fraction(8), options=fine)


def places(path: Path) -> list[tuple[int, int]]:
    """Where the packets of a file begin and end, in bytes."""
    with av.open(str(path)) as file:
        return [(packet.pos, packet.pos + packet.size) for packet in file.demux(video=0) if packet.size]


def through_a_pipe(content: bytes) -> tuple[int, bool]:
    """How many frames are read from a pipe, and whether it counts as damaged."""
    with open_pipe(io.BytesIO(content)) as stream:
        return sum(1 for _ in stream), stream.damaged


def from_a_file(path: Path) -> tuple[int, str]:
    """How many frames are read from a file, and what is missing."""
    reader = VideoReader(video_facts(path))
    return sum(1 for _ in reader), reader.shortfall


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.flv", "flv"), ("a.avi", "mpeg4")],
)
def test_bytes_overwritten_within_a_frame(tmp_path: Path, name: str, codec: str) -> None:
    path = clip(tmp_path / name, codec)
    assert from_a_file(path) == (COUNT, "")
    content = bytearray(path.read_bytes())
    begin, end = places(path)[COUNT // 2]
    middle = (begin + end) // 2
    content[middle : middle + 100] = np.random.default_rng(1).bytes(100)
    path.write_bytes(content)
    assert from_a_file(path) == (COUNT, "damaged in places")
    if name != "a.mp4":  # its index is at the end
        assert through_a_pipe(content) == (COUNT, True)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.flv", "flv"),
        ("a.avi", "mjpeg"),
        ("a.ivf", "libvpx-vp9"),
    ],
)
def test_a_pipe_that_ends_within_a_frame(tmp_path: Path, name: str, codec: str) -> None:
    path = clip(tmp_path / name, codec)
    content, (begin, end) = path.read_bytes(), places(path)[6]
    assert through_a_pipe(content) == (COUNT, False)
    assert through_a_pipe(content[: (begin + end) // 2]) == (6, True)


def test_recordings_that_were_joined_are_not_damaged(tmp_path: Path) -> None:
    content = clip(tmp_path / "a.ts").read_bytes()
    assert through_a_pipe(content + content) == (2 * COUNT, False)


def test_bytes_overwritten_between_the_frames_of_matroska(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv")
    content = bytearray(path.read_bytes())
    begin, _ = places(path)[6]
    content[begin - 8 : begin] = bytes(8)
    path.write_bytes(content)
    assert through_a_pipe(content)[1]
    assert from_a_file(path)[1]


def test_matroska_is_followed_whatever_pieces_arrive(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.mkv").read_bytes()
    live = io.BytesIO()
    with av.open(live, "w", format="matroska", options={"live": "1"}) as file:  # without sizes
        video = file.add_stream("libx264", rate=8)
        video.width, video.height = 64, 48
        for pixels in scene():
            file.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(video.encode(None))
    junk = tmp_path / "junk.mkv"
    junk.write_bytes(whole + b"what is behind a segment does not count")
    assert is_whole(junk)
    for content in (whole, live.getvalue()):
        for size in (1, 7, 1000, len(content)):
            elements = Elements()
            for at in range(0, len(content), size):
                elements.add(content[at : at + size])
            assert (elements.broken, elements.cut) == (False, False)
    assert through_a_pipe(live.getvalue()) == (COUNT, False)
    other = Elements()
    other.add(b"RIFF")
    assert other.broken
