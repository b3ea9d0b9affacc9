"""Reading video: frames one after another, with all that a copy must keep.

Only local files of a few kinds are opened, recognised by their content: playlists and other formats that
refer to further files or to the network are refused.
"""

from __future__ import annotations

import errno
import math
import re
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.codec.context import CodecContext
from av.container import InputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from derain.errors import DerainError, reason

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,asf,flv"
_MAX_PIXELS = 200_000_000
_MAX_RATE = 10_000  # frames per second
# Frames of a GIF that are searched for transparent pixels before the work begins.
_LOOKED_THROUGH = 100
# Decoders that read the transparency stored beside the frames in WebM and Matroska.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
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
# With these, YUV 4:2:0 -> RGB -> YUV returns the samples it came from.
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
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
        """The matrix to convert with; if the file states none, BT.709 from 720 lines on, as is customary."""
        return _MATRICES.get(self.matrix, 1 if height >= 720 else 5)

    @property
    def swscale_range(self) -> int:
        """The range to convert with; limited if the file states none."""
        return RANGE_FULL if self.range == RANGE_FULL else RANGE_LIMITED


@dataclass(frozen=True)
class VideoFacts:
    """What is known about a video before its frames are read.

    Attributes:
        path: the file.
        width, height: of the stored frames, pixels, before any rotation.
        turns: quarter turns anticlockwise that bring the stored frames upright, 0 to 3.
        display_matrix: the nine numbers from which `turns` and `mirrored` follow, None if there are none.
        aspect: width of a pixel by its height, None if not stated.
        pixel_format: FFmpeg's name.
        bits: per sample, 8 or more.
        colour: how samples become RGB.
        time_base: seconds per tick of all time stamps.
        rate: frames per second; of a variable rate the mean.
        packets: how many the file announces, 0 if it does not.
        duration: of the video stream, seconds, None if the file does not state it.
        interlaced: whether frames hold two moments, in alternating rows.
        alpha: whether frames are transparent in places.
        loops: how often a GIF is repeated, as it stores it: 0 for ever, -1 never; None of other kinds.
        mastering: of HDR: (x, y) of red, green, blue and white, least and greatest cd/m2 of the display
            that it was made for, each a fraction.
        light_levels: of HDR: greatest of a pixel and of a frame's mean, cd/m2.
        spherical: whether it is a 360-degree video.
        mirrored: whether frames are shown with left and right exchanged, once they are turned.
        lost: what the file contains and no copy will, in words.
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
        """How many frames there should be, None if that is unknown; for progress only."""
        if self.packets:
            return self.packets
        return None if self.duration is None else max(1, round(self.duration * self.rate))


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        pixels: (H, W, 3) RGB, upright; uint8, or uint16 (0 to 65535) if the video has more bits.
        pts: the time it is shown, ticks of the time base.
        duration: ticks, 0 when unknown.
        alpha: (H, W) of the same type; None if all is opaque.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    pts: int
    duration: int
    alpha: NDArray[np.uint8] | NDArray[np.uint16] | None = None


def frame_to_tensor(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """(H, W, 3) uint8 or uint16, as in `Frame` -> (3, H, W) float32 in [0, 1]."""
    largest = np.iinfo(pixels.dtype).max
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)).div_(largest)


def frame_from_tensor(image: Tensor, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(3, H, W) RGB on any device, clamped to [0, 1] -> (H, W, 3): uint8 for 8 bits, else uint16."""
    largest = 255 if bits == 8 else 65535
    levels = image.float().clamp(0, 1).mul(largest).round_().permute(1, 2, 0)
    if bits == 8:
        return levels.to(torch.uint8).cpu().numpy()
    return levels.to(torch.int32).cpu().numpy().astype(np.uint16)


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """The container of a video file, closed afterwards.

    Raises:
        DerainError: no such file, not a video of a known kind, or damaged.
    """
    if not path.is_file():
        raise DerainError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise DerainError(f"{path}: the file is empty.")
    limits = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", "r", container_options=limits, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise DerainError(
            f"{path}: not a readable video, or cut off before its index ({why_not_opened(error)}); "
            "known formats: MP4, QuickTime, Matroska, WebM, AVI, GIF, 3GPP, MPEG, Windows Media, Flash."
        ) from None
    with container:
        yield container


def why_not_opened(error: Exception) -> str:
    """Why FFmpeg did not open a video; it says "busy" when the header states an impossible size."""
    return "impossible size" if getattr(error, "errno", None) == errno.EBUSY else reason(error)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video of a file: its first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context:
            if stream.width * stream.height > _MAX_PIXELS:
                raise DerainError(
                    f"{path}: frames of {stream.width}x{stream.height} are too large; scale them down."
                )
            stream.thread_type = "AUTO"
            return stream
    raise DerainError(f"{path}: contains no video.")


def video_facts(path: str | Path) -> VideoFacts:
    """Reads the header and the first frame.

    Raises:
        DerainError: not a video that can be read, or one without frames.
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
        container, stream, first: of the video; None where there is no frame.
        rate: frames per second where the container states none.

    Raises:
        DerainError: there is no frame, or the rate is impossible.
    """
    if first is None:
        raise DerainError(f"{path}: contains no readable frame.")
    rate = stream.average_rate or rate or stream.guessed_rate or Fraction(25)
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
    """Whether FFmpeg's format of a name holds transparency."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def _is_transparent(path: Path) -> bool:
    """Whether a GIF is transparent; the format stores opaque frames as transparent, too."""
    with open_video(path) as container:
        stream = video_stream(container, path)
        for number, frame in enumerate(decoded_frames(container, stream, Tally())):
            if number == _LOOKED_THROUGH:
                break
            if frame.format.name == "bgra" and frame.to_ndarray()[..., 3].min() < 255:
                return True
    return False


def _loops(path: Path) -> int:
    """The Netscape application block of a GIF: a count, 0 for ever; -1 where there is none."""
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
    """Whether frames are whole equirectangular views, neither turned nor cut (AVSphericalMapping)."""
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
    """Quarter turns anticlockwise that a display matrix asks for, and whether it mirrors after them."""
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


@dataclass
class Tally:
    """What was read so far: how many packets that were not empty, and whether any could not be decoded."""

    packets: int = 0
    damaged: bool = False


def decoded_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[VideoFrame]:
    """The frames of a stream as far as they can be read."""
    # AVI stores no times: the n-th frame shown takes the time of the n-th packet that is not empty.
    places: deque[int | None] | None = deque() if container.format.name == "avi" else None
    packets, decoder = container.demux(stream), _alpha_decoder(stream)
    while True:
        try:
            packet = next(packets)
            tally.packets += packet.size > 0
        except StopIteration:
            return
        except av.error.FFmpegError:
            tally.damaged = True
            return
        if places is not None and packet.size:
            places.append(packet.dts)
        try:
            for frame in packet.decode() if decoder is None else decoder.decode(packet):
                if places is not None:
                    frame.pts = places.popleft() if places else None
                yield frame
        except av.error.FFmpegError:
            tally.damaged = True


def _tag(stream: VideoStream, name: str) -> str | None:
    """A tag of a stream, in any spelling of its name."""
    return next((value for key, value in stream.metadata.items() if key.lower() == name), None)


def _alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """The decoder for a stream that stores transparency beside its frames."""
    name = _WITH_ALPHA.get(stream.codec_context.name.removeprefix("lib").removeprefix("vpx-"))
    if name is None or _tag(stream, "alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    return decoder


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """One whole picture for each interlaced frame (bwdif); others and all times as they are."""
    graph, times = Graph(), deque[tuple[int | None, int]]()

    def ready() -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame.pts, frame.duration = times.popleft()
            yield frame

    began = False
    for frame in frames:
        if not began:
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            filtered, sink = graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
            source.link_to(filtered)
            filtered.link_to(sink)
            graph.configure()
            began = True
        times.append((frame.pts, frame.duration))
        frame.pts = 2 * len(times) if frame.pts is None else frame.pts
        graph.vpush(frame)
        yield from ready()
    if began:
        graph.vpush(None)
        yield from ready()


def packed_format(bits: int, alpha: bool) -> str:
    """FFmpeg's name of RGB, or RGBA with `alpha`, as NumPy arrays hold it: uint8 for 8 bits, else uint16."""
    if alpha:
        return "rgba" if bits == 8 else "rgba64le"
    return "rgb24" if bits == 8 else "rgb48le"


def pixels_of(
    frame: VideoFrame, facts: VideoFacts, to_rgb: VideoReformatter, number: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The colours of a decoded frame, (H, W, 3) RGB, upright, and what is transparent in it; see `Frame`.

    Raises:
        DerainError: the frame, of which messages give the number, has another size than the first.
    """
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise DerainError(
            f"{facts.path}: frame {number} is {frame.width}x{frame.height}, the first is "
            f"{facts.width}x{facts.height}; split the video where its size changes."
        )
    alpha = has_alpha(frame.format.name)
    matrix = facts.colour.swscale_matrix(facts.height)
    rgb = to_rgb.reformat(
        frame,
        format=packed_format(facts.bits, alpha),
        interpolation=EXACT,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=facts.colour.swscale_range,
        dst_color_range=RANGE_FULL,
    )
    samples: NDArray[Any] = np.rot90(rgb.to_ndarray(), facts.turns)
    samples = samples[:, ::-1] if facts.mirrored else samples
    pixels = np.ascontiguousarray(samples[..., :3])
    if not alpha or samples[..., 3].min() == np.iinfo(samples.dtype).max:
        return pixels, None
    return pixels, np.ascontiguousarray(samples[..., 3])


class VideoReader:
    """Iterates over the frames of a video, once.

    Attributes:
        frames: how many have been read.
        shortfall: after the end, what is missing, in words; empty if nothing is.
        transparent: whether any frame so far was partly transparent.
    """

    def __init__(self, facts: VideoFacts, skip: int = 0) -> None:
        """
        Args:
            facts: of the video to read.
            skip: frames at the start to leave out.
        """
        self.facts, self.frames, self.shortfall, self.transparent = facts, 0, "", False
        self._skip = skip

    def __iter__(self) -> Iterator[Frame]:
        facts, tally = self.facts, Tally()
        step = max(1, round(1 / (facts.rate * facts.time_base)))
        to_rgb, pts, duration = VideoReformatter(), 0, 0
        with open_video(facts.path) as container:
            decoded = decoded_frames(container, video_stream(container, facts.path), tally)
            for frame in deinterlaced(decoded) if facts.interlaced else decoded:
                pts = _later(frame.pts, pts, step) if self.frames else frame.pts or 0
                duration = frame.duration
                self.frames += 1
                if self.frames > self._skip:
                    pixels, alpha = pixels_of(frame, facts, to_rgb, self.frames)
                    self.transparent |= alpha is not None
                    yield Frame(pixels, pts, duration, alpha)
        self.shortfall = self._shortfall(tally, (pts + duration) * facts.time_base)

    def _shortfall(self, tally: Tally, end: Fraction) -> str:
        facts = self.facts
        if tally.packets < facts.packets:
            return f"cut off after {self.frames} of {facts.packets} frames"
        if facts.packets == 0 and facts.duration is not None and end + 2 / facts.rate < facts.duration:
            return f"cut off after {float(end):.2f} of {facts.duration:.2f} seconds"
        return "damaged in places" if tally.damaged else ""


def _later(pts: int | None, last: int, step: int) -> int:
    """The time of a frame after another; its own may be missing, equal or, in joined files, earlier."""
    if pts is None or pts < last:
        return last + step
    return max(pts, last + 1)
