"""What is known about a video from its header and its first frame."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from derain.errors import DerainError
from derain.pictures.video_decoding import Tally, decoded_frames, open_video, video_stream

_MAX_RATE = 10_000  # frames per second
# Frames of a GIF that are searched for transparent pixels before any work begins.
_LOOKED_THROUGH = 100
# Side data of frames that is carried, is not about the picture, or describes the old coding.
_CARRIED_DATA = {"DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "SPHERICAL"}
_MINOR_DATA = {
    *("SEI_UNREGISTERED", "MOTION_VECTORS", "VIDEO_ENC_PARAMS", "PANSCAN", "REPLAYGAIN", "SKIP_SAMPLES"),
    *("GOP_TIMECODE", "S12M_TIMECODE", "REGIONS_OF_INTEREST", "VIDEO_HINT", "DETECTION_BBOXES"),
}
_DATA_WORDS = {
    "A53_CC": "closed captions",
    "STEREO3D": "stereo 3D",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "ICC_PROFILE": "its colour profile",
    "FILM_GRAIN_PARAMS": "film grain that players add",
    "SPHERICAL": "its 360-degree data",
}
# AVColorSpace (ITU-T H.273) -> the matrices of swscale.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
MATRIX_UNKNOWN, RANGE_UNKNOWN, RANGE_LIMITED, RANGE_FULL = 2, 0, 1, 2
_INTERLACED = (2, 3, 4, 5)  # FFmpeg's AVFieldOrder, all but "unknown" and "progressive"


@dataclass(frozen=True)
class Colour:
    """How stored samples become RGB, as the file states it (ITU-T H.273 code points)."""

    matrix: int
    range: int
    primaries: int
    transfer: int

    def swscale_matrix(self, height: int) -> int:
        """The matrix for conversion; if the file states none, BT.709 from 720 lines on, as is customary."""
        return _MATRICES.get(self.matrix, 1 if height >= 720 else 5)

    @property
    def swscale_range(self) -> int:
        """The range for conversion; limited if the file states none."""
        return RANGE_FULL if self.range == RANGE_FULL else RANGE_LIMITED


@dataclass(frozen=True)
class VideoFacts:
    """What is known about a video before its frames are read.

    Attributes:
        path: the file.
        width, height: size of the stored frames in pixels, before any rotation.
        turns: quarter turns anticlockwise that bring the stored frames upright, 0 to 3.
        display_matrix: the nine numbers from which `turns` and `mirrored` follow, None if there are none.
        aspect: width of a pixel divided by its height; None if not stated.
        pixel_format: FFmpeg's name of the pixel format.
        bits: bits per sample, 8 or more.
        colour: how samples become RGB.
        time_base: seconds per tick of all time stamps.
        rate: frames per second; the mean if the rate is variable.
        packets: how many packets the file announces; 0 if it does not.
        duration: duration of the video stream in seconds; None if the file does not state it.
        interlaced: whether frames hold two moments, in alternating rows.
        alpha: whether frames are transparent in places.
        loops: how often a GIF is repeated, as stored: 0 for ever, -1 never; None for other kinds.
        mastering: for HDR, (x, y) of red, green, blue and white, and least and greatest cd/m2 of the display
            for which it was made, each as a fraction.
        light_levels: for HDR, the greatest of a pixel and of a frame's mean, in cd/m2.
        spherical: whether it is a 360-degree video.
        mirrored: whether frames are mirrored left-right when shown, after they are turned.
        lost: what the file contains that no copy will, in words.
    """

    path: Path
    width: int
    height: int
    turns: int
    display_matrix: tuple[int, ...] | None
    aspect: Fraction | None
    pixel_format: str
    bits: int
    colour: Colour
    time_base: Fraction
    rate: Fraction
    packets: int
    duration: float | None
    interlaced: bool = False
    alpha: bool = False
    loops: int | None = None
    mastering: tuple[Fraction, ...] | None = None
    light_levels: tuple[int, int] | None = None
    spherical: bool = False
    mirrored: bool = False
    lost: tuple[str, ...] = ()

    @property
    def expected_frames(self) -> int | None:
        """How many frames there should be; None if unknown. Only for showing progress."""
        if self.packets:
            return self.packets
        return None if self.duration is None else max(1, round(self.duration * self.rate))


def video_facts(path: str | Path) -> VideoFacts:
    """Reads the header and the first frame.

    Raises:
        DerainError: it is not a video that can be read, or has no frames.
    """
    path = Path(path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        first = next(decoded_frames(container, stream, Tally()), None)
        return facts_of(path, container, stream, first)


def facts_of(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame | None,
    rate: Fraction | None = None,
) -> VideoFacts:
    """The facts in an open container and its first frame.

    Args:
        path: the file, or what messages call the source.
        container, stream, first: the video's container, stream and first frame; None if there is no frame.
        rate: frames per second, for a container that states none.

    Raises:
        DerainError: there is no frame, or the rate is impossible.
    """
    if first is None:
        raise DerainError(f"{path}: contains no readable frame.")
    stated = stream.average_rate
    if container.format.name == "avi":  # which counts empty places between frames, too
        stated = stream.guessed_rate or stated
    rate = stated or rate or stream.guessed_rate or Fraction(25)
    if not stream.time_base or not 0 < rate <= _MAX_RATE:
        raise DerainError(f"{path}: states {float(rate):,.0f} frames per second, which is not plausible.")
    matrix = _display_matrix(first)
    turns, mirrored = (0, False) if matrix is None else _position(matrix)
    data: Any = first.side_data  # it iterates over values, unlike a Mapping
    kinds = {item.type.name for item in data}
    other = sorted(kinds - _CARRIED_DATA - _MINOR_DATA)
    if "SPHERICAL" in kinds and not _is_plain_sphere(first):
        other.append("SPHERICAL")
    is_gif = container.format.name == "gif"
    return VideoFacts(
        path=path,
        width=first.width,
        height=first.height,
        turns=turns,
        display_matrix=matrix,
        aspect=stream.sample_aspect_ratio or None,
        pixel_format=first.format.name,
        bits=max(8, first.format.components[0].bits),
        colour=_colour(first),
        time_base=stream.time_base,
        rate=rate,
        packets=0 if container.format.name == "avi" else stream.frames,
        duration=_duration(container, stream),
        interlaced=first.interlaced_frame or stream.codec_context.field_order in _INTERLACED,
        alpha=_is_transparent(path) if is_gif else has_alpha(first.format.name),
        loops=_loops(path) if is_gif else None,
        mastering=_mastering(first),
        light_levels=_light_levels(first),
        spherical=_is_plain_sphere(first),
        mirrored=mirrored,
        lost=tuple(dict.fromkeys(_DATA_WORDS.get(kind, f"{kind} data") for kind in other)),
    )


def has_alpha(pixel_format: str) -> bool:
    """Whether the pixel format that FFmpeg calls this holds transparency."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def _is_transparent(path: Path) -> bool:
    """Whether a GIF is transparent; opaque frames may also be stored as transparent ones."""
    with open_video(path) as container:
        stream = video_stream(container, path)
        for number, frame in enumerate(decoded_frames(container, stream, Tally())):
            if number == _LOOKED_THROUGH:
                break
            if frame.format.name == "bgra" and frame.to_ndarray()[..., 3].min() < 255:
                return True
    return False


def _loops(path: Path) -> int:
    """The count in the Netscape application block of a GIF, 0 for ever; -1 if there is no such block."""
    with path.open("rb") as file:
        found = re.search(rb"\x21\xff\x0bNETSCAPE2\.0\x03\x01(..)", file.read(1 << 20), re.DOTALL)
    return -1 if found is None else int.from_bytes(found[1], "little")


def _mastering(frame: VideoFrame) -> tuple[Fraction, ...] | None:
    """FFmpeg's AVMasteringDisplayMetadata: ten rationals, and whether they are set."""
    data: Any = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if data is None:
        return None
    numbers = struct.unpack("=22i", bytes(data)[:88])
    pairs = list(zip(numbers[:20:2], numbers[1:20:2], strict=True))
    return tuple(Fraction(a, b) for a, b in pairs) if all(numbers[20:]) and all(b for _, b in pairs) else None


def _is_plain_sphere(frame: VideoFrame) -> bool:
    """Whether frames are full equirectangular views, neither turned nor cropped (AVSphericalMapping)."""
    data: Any = frame.side_data.get("SPHERICAL")
    return data is not None and not any(struct.unpack("=9i", bytes(data)[:36]))


def _light_levels(frame: VideoFrame) -> tuple[int, int] | None:
    data: Any = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    return None if data is None else struct.unpack("=2I", bytes(data)[:8])


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    stated = stream.metadata.get("DURATION", "").split(":")  # Matroska: hours:minutes:seconds
    if len(stated) == 3:
        try:
            return float(stated[0]) * 3600 + float(stated[1]) * 60 + float(stated[2])
        except ValueError:
            return None
    return container.duration / av.time_base if container.duration else None


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data)[:36])


def _position(matrix: tuple[int, ...]) -> tuple[int, bool]:
    """The anticlockwise quarter turns in a display matrix, and whether it mirrors after them."""
    across, down, other_across, other_down = matrix[0], matrix[1], matrix[3], matrix[4]
    mirrored = across * other_down - down * other_across < 0
    angle = math.atan2(down, -across if mirrored else across)
    return round(-angle / (math.pi / 2)) % 4, mirrored


def _colour(frame: VideoFrame) -> Colour:
    full = frame.format.name.startswith("yuvj")
    return Colour(
        int(frame.colorspace),
        RANGE_FULL if full else int(frame.color_range),
        int(frame.color_primaries),
        int(frame.color_trc),
    )
