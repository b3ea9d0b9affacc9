"""Writing video: frames to packets, and packets to a file beside the sound of the source."""

from __future__ import annotations

import heapq
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from derain.atomic import new_file
from derain.errors import DerainError, UsageError, unknown_name
from derain.pictures.video import (
    EXACT,
    RANGE_FULL,
    RANGE_LIMITED,
    VIDEO_KINDS,
    Colour,
    Frame,
    VideoFacts,
    open_video,
    video_stream,
)

# Name as users type it -> FFmpeg's encoder, the default quality (CRF; None: the codec has none), options.
CODECS: dict[str, tuple[str, int | None, dict[str, str]]] = {
    "h264": ("libx264", 18, {}),
    "h265": ("libx265", 20, {"x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", 24, {"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "mpeg4": ("mpeg4", None, {"qmin": "2", "qmax": "2"}),
    "ffv1": ("ffv1", None, {"level": "3"}),
    "gif": ("gif", None, {}),
}
# In narrower pictures the vector code of x264 reads beyond what is set, so that the same frames become
# other bytes in each run, and that of x265 writes beyond its memory (below 56 pixels, a crash).
_NARROW = 128
_NARROW_OPTIONS = {
    "h264": {"x264-params": "asm=0"},
    "h265": {"x265-params": "log-level=none:asm=0"},
}
MPEG4_TICKS = 65535  # per second, at most (ISO/IEC 14496-2)
# Container -> the codecs that it takes; the first one is the default.
HOLDS = {
    "mp4": ("h264", "h265", "vp9"),
    "mov": ("h264", "h265"),
    "matroska": ("h264", "h265", "vp9", "ffv1"),
    "webm": ("vp9",),
    "avi": ("mpeg4", "h264", "ffv1"),
    "gif": ("gif",),
}


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        container: FFmpeg's name of the file's kind.
        codec: a key of `CODECS`.
        pixel_format: what the encoder is fed with.
        colour: what is written to the file.
        options: of the encoder.
    """

    container: str
    codec: str
    pixel_format: str
    colour: Colour
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EncodedFrame:
    """One compressed frame; times are in ticks of the source's time base."""

    pts: int
    duration: int
    keyframe: bool
    data: bytes


def choose_encoding(facts: VideoFacts, target: Path, codec: str | None, crf: int | None) -> Encoding:
    """The encoding for a copy of a video.

    Args:
        facts: of the source.
        target: the file to write; its extension picks the container.
        codec: a key of `CODECS`; None takes H.264 (H.265 for more than 8 bits), VP9 for webm and
            MPEG-4 for avi.
        crf: quality, lower is better; None takes the codec's default.

    Raises:
        UsageError: an unknown extension or codec, or they and the quality do not go together.
    """
    container = VIDEO_KINDS.get(target.suffix.lower())
    if container is None:
        raise UsageError(f"{target}: videos are written as {' '.join(VIDEO_KINDS)}.")
    if codec is not None and codec not in CODECS:
        raise unknown_name("codec", codec, CODECS)
    held = HOLDS[container]
    if codec is not None and codec not in held:
        raise UsageError(f"{target}: {target.suffix} does not hold {codec}; use {', '.join(held)}.")
    if codec is None:
        deep = [name for name in ("h265", "vp9", "h264") if name in held]
        codec = deep[0] if facts.bits > 8 and deep else held[0]
    _, quality, options = CODECS[codec]
    if crf is not None and quality is None:
        raise UsageError(f"the codec {codec} has no CRF quality; leave it out or choose another codec.")
    if crf is not None and not 0 <= crf <= 51:
        raise UsageError(f"CRF {crf} is outside 0 to 51.")
    options = dict(options)
    if quality is not None:
        options["crf"] = str(quality if crf is None else crf)
    if container == "avi":
        options["bf"] = "0"  # AVI knows the order of frames only, not their times
    if facts.width < _NARROW:
        options |= _NARROW_OPTIONS.get(codec, {})
    pixel_format, colour = _pixel_format(facts, codec)
    return Encoding(container, codec, pixel_format, colour, tuple(options.items()))


def _pixel_format(facts: VideoFacts, codec: str) -> tuple[str, Colour]:
    """The source's chroma resolution and depth, as far as the codec has them, and its colour."""
    if codec == "gif":
        return "pal8", facts.colour
    if codec == "mpeg4" and not av.VideoFormat(facts.pixel_format).is_rgb:
        return "yuv420p", facts.colour
    source = av.VideoFormat(facts.pixel_format)
    colour = facts.colour
    if source.is_rgb or source.has_palette:
        if codec == "ffv1" and facts.bits == 8:
            return "bgr0", colour
        matrix = 1 if facts.height >= 720 else 6
        colour = Colour(matrix, RANGE_LIMITED, colour.primaries, colour.transfer)
        chroma = "420"
    else:
        halves = (source.chroma_width(4) == 2, source.chroma_height(4) == 2)
        chroma = {(True, True): "420", (True, False): "422"}.get(halves, "444")
        if len(source.components) == 1:
            chroma = "420"
    # x264 and x265 cannot crop halved chroma to an odd size.
    odd_width = facts.width % 2 and chroma != "444"
    odd_height = facts.height % 2 and chroma == "420"
    if codec in ("h264", "h265") and (odd_width or odd_height):
        chroma = "444"
    return f"yuv{chroma}p" + ("10le" if facts.bits > 8 else ""), colour


def _configure(context: VideoCodecContext, facts: VideoFacts, encoding: Encoding) -> None:
    context.width, context.height = facts.width, facts.height
    context.pix_fmt = encoding.pixel_format
    time_base = _time_base(facts, encoding)
    if encoding.codec == "mpeg4":
        time_base = time_base.limit_denominator(MPEG4_TICKS)  # AVI's own is exact
    context.time_base, context.framerate = time_base, facts.rate
    if facts.aspect is not None:
        context.sample_aspect_ratio = facts.aspect
    context.color_range = encoding.colour.range
    context.colorspace = encoding.colour.matrix
    context.color_primaries = encoding.colour.primaries
    context.color_trc = encoding.colour.transfer
    context.thread_count = 0
    context.options = dict(encoding.options)
    if encoding.codec == "h265" and encoding.container in ("mp4", "mov"):
        context.codec_tag = "hvc1"
    if encoding.container != "avi":
        context.flags |= Flags.global_header


class Encoder:
    """Frames in, encoded frames out; starts with a key frame and refers to nothing before it."""

    def __init__(self, facts: VideoFacts, encoding: Encoding) -> None:
        self._facts, self._encoding = facts, encoding
        context = av.CodecContext.create(CODECS[encoding.codec][0], "w")
        assert isinstance(context, VideoCodecContext)
        self._context = context
        _configure(self._context, facts, encoding)
        self._times: deque[int] | None = deque() if encoding.container == "avi" else None
        self._count = 0
        self._to_stored = VideoReformatter()
        self._palette = _PaletteChooser() if encoding.codec == "gif" else None

    def encode(self, frame: Frame) -> list[EncodedFrame]:
        """What comes out when `frame` (upright RGB, uint8 or uint16) goes in."""
        stored = self._stored(frame)
        stored.pts, stored.duration, stored.time_base = frame.pts, frame.duration, self._facts.time_base
        if self._times is not None:  # for AVI frames are numbered, their order is kept
            self._times.append(frame.pts)
            stored.pts, stored.duration, stored.time_base = self._count, 1, self._context.time_base
        self._count += 1
        return self._encoded(stored)

    def finish(self) -> list[EncodedFrame]:
        """The rest."""
        return self._encoded(None)

    def _encoded(self, frame: VideoFrame | None) -> list[EncodedFrame]:
        try:
            packets = self._context.encode(frame)
        except av.error.FFmpegError as error:
            source, codec = self._facts.path, self._encoding.codec
            raise DerainError(f"{source}: cannot be encoded as {codec} ({error.strerror}).") from error
        taken = []
        for packet in packets:
            pts = packet.pts if self._times is None else self._times.popleft()
            assert pts is not None
            taken.append(EncodedFrame(pts, packet.duration or 0, packet.is_keyframe, bytes(packet)))
        return taken

    def _stored(self, frame: Frame) -> VideoFrame:
        facts, colour = self._facts, self._encoding.colour
        pixels: NDArray[Any] = np.ascontiguousarray(np.rot90(frame.pixels, -facts.turns))
        rgb = VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.dtype == np.uint8 else "rgb48le")
        if self._palette is not None:
            stored = self._palette.apply(rgb)
        else:
            matrix = colour.swscale_matrix(facts.height)
            stored = self._to_stored.reformat(
                rgb,
                format=self._encoding.pixel_format,
                interpolation=EXACT,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=RANGE_FULL,
                dst_color_range=colour.swscale_range,
            )
            stored.colorspace, stored.color_range = colour.matrix, colour.range
            stored.color_primaries, stored.color_trc = colour.primaries, colour.transfer
        stored.pict_type = 0
        return stored


class _PaletteChooser:
    """The best 256 colours for each frame, dithered."""

    def apply(self, rgb: VideoFrame) -> VideoFrame:
        graph = Graph()
        source = graph.add_buffer(
            width=rgb.width, height=rgb.height, format=rgb.format, time_base=Fraction(1, 100)
        )
        split, generate = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(generate, 0, 0)
        split.link_to(use, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        rgb.pts = 0
        graph.vpush(rgb)
        graph.vpush(None)
        return graph.vpull()


def write_video(
    target: Path,
    facts: VideoFacts,
    encoding: Encoding,
    times: NDArray[np.int64],
    frames: Callable[[], Iterator[EncodedFrame]],
) -> list[str]:
    """Writes encoded frames beside everything else that the source holds, whole or not at all.

    Sound, subtitles, attachments, chapters, tags and the rotation are copied as they are.

    Args:
        target: the file; replaced when it exists.
        facts: of the source.
        encoding: that of the frames.
        times: (N,) the pts of all frames in coding order.
        frames: gives the encoded frames in coding order.

    Returns:
        What could not be copied, in words.

    Raises:
        UsageError: the container cannot hold the source's sound, or its variable rate.
        DerainError: the file cannot be written.
    """
    with open_video(facts.path) as source, new_file(target) as temporary:
        options = _muxer_options(encoding, source, facts, times)
        try:
            with av.open(
                f"file:{temporary}", "w", format=encoding.container, container_options=options
            ) as output:
                warnings = _fill(output, source, facts, encoding, target, times, frames)
        except av.error.FFmpegError as error:
            raise DerainError(f"{target}: cannot be written ({error.strerror}).") from error
    return warnings


def refuse_misfit(facts: VideoFacts, encoding: Encoding, target: Path) -> None:
    """Finds out before the work whether the container can hold the source's sound and its times.

    Raises:
        UsageError: it cannot.
    """
    with open_video(facts.path) as source:
        main = video_stream(source, facts.path)
        with av.open(io.BytesIO(), "w", format=encoding.container) as trial:
            copies, _ = _add_copies(trial, source, main, encoding, target)
            try:
                for packet in itertools.islice(_copied_packets(source, copies), 50):
                    trial.mux(packet)
                trial.close()
            except av.error.FFmpegError:
                raise UsageError(
                    f"{target}: {encoding.container} does not hold the source's sound or subtitles; "
                    "write to .mkv."
                ) from None
    if encoding.container == "avi":
        with open_video(facts.path) as source:
            if source.format.name == "avi":
                return
            main = video_stream(source, facts.path)
            times = [packet.pts for packet in source.demux(main) if packet.pts is not None]
        _avi_times(facts, np.array(times, np.int64))


def _muxer_options(
    encoding: Encoding, source: InputContainer, facts: VideoFacts, times: NDArray[np.int64]
) -> dict[str, str]:
    if encoding.container in ("mp4", "mov") and any("." in key for key in source.metadata):
        return {"movflags": "use_metadata_tags"}  # the dotted tags of telephones and cameras
    if encoding.container in ("avi", "matroska", "webm"):
        return {"avoid_negative_ts": "disabled"}
    if encoding.container == "gif" and len(times) > 1 and facts.duration is not None:
        last = facts.duration - float((times.max() - times.min()) * facts.time_base)
        return {"final_delay": str(max(1, round(100 * last)))}
    return {}


def _fill(
    output: OutputContainer,
    source: InputContainer,
    facts: VideoFacts,
    encoding: Encoding,
    target: Path,
    times: NDArray[np.int64],
    frames: Callable[[], Iterator[EncodedFrame]],
) -> list[str]:
    main = video_stream(source, facts.path)
    video = output.add_stream(CODECS[encoding.codec][0], rate=facts.rate)
    assert isinstance(video, VideoStream)
    _configure(video.codec_context, facts, encoding)
    video.time_base = _time_base(facts, encoding)
    if facts.display_matrix is not None:
        video.set_display_matrix(facts.display_matrix)
    _copy_tags(main, video)
    output.metadata.update({k: v for k, v in source.metadata.items() if k not in _CONTAINER_TAGS})
    copies, warnings = _add_copies(output, source, main, encoding, target)
    chapters = source.chapters()
    if chapters and encoding.container not in ("avi", "gif"):
        output.set_chapters(chapters)
    moments = _avi_times(facts, times) if encoding.container == "avi" else times
    for packet in heapq.merge(
        _video_packets(video, frames(), moments, _time_base(facts, encoding)),
        _copied_packets(source, copies),
        key=lambda packet: (packet.dts or 0) * packet.time_base,
    ):
        output.mux(packet)
    return warnings


# Written by the muxer, true of the source only.
_CONTAINER_TAGS = {
    *("encoder", "ENCODER", "software", "DURATION"),
    *("major_brand", "minor_version", "compatible_brands"),
}


def _time_base(facts: VideoFacts, encoding: Encoding) -> Fraction:
    """AVI stores the number of each frame instead of its time."""
    return 1 / facts.rate if encoding.container == "avi" else facts.time_base


def _copy_tags(source: Stream, copy: Stream) -> None:
    copy.metadata.update({k: v for k, v in source.metadata.items() if k not in _CONTAINER_TAGS})
    copy.disposition = source.disposition


def _add_copies(
    output: OutputContainer, source: InputContainer, main: Stream, encoding: Encoding, target: Path
) -> tuple[dict[int, Stream], list[str]]:
    """A stream in `output` for every other stream of the source; what does not fit, in words."""
    copies: dict[int, Stream] = {}
    warnings = []
    for stream in source.streams:
        if stream.index == main.index:
            continue
        name = stream.codec_context.name if stream.codec_context else stream.type
        try:
            if stream.type in ("data", "unknown"):
                raise ValueError
            copies[stream.index] = output.add_stream_from_template(stream)
        except ValueError:
            if stream.type == "audio" and encoding.container != "gif":
                raise UsageError(
                    f"{target}: {encoding.container} does not hold the source's sound ({name}); "
                    "write to .mkv."
                ) from None
            warnings.append(f"left out: {stream.type} stream {stream.index} ({name})")
        else:
            _copy_tags(stream, copies[stream.index])
    return copies, warnings


def _copied_packets(source: InputContainer, copies: dict[int, Stream]) -> Iterator[Packet[Stream]]:
    wanted = [stream for stream in source.streams if stream.index in copies and stream.type != "attachment"]
    if not wanted:
        return
    packets = source.demux(wanted)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        if packet.dts is not None:
            packet.stream = copies[packet.stream.index]
            yield packet


def _video_packets(
    stream: Stream, frames: Iterator[EncodedFrame], times: NDArray[np.int64], time_base: Fraction
) -> Iterator[Packet[Stream]]:
    for frame, pts, dts in zip(frames, times.tolist(), decode_times(times).tolist(), strict=True):
        packet: Packet[Stream] = Packet(frame.data)
        packet.stream, packet.time_base = stream, time_base
        packet.pts, packet.dts = pts, dts
        packet.duration, packet.is_keyframe = frame.duration, frame.keyframe
        yield packet


def decode_times(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising decoding times that are never after the presentation times, in coding order.

    Frames that are coded `delay` places early take the time of the frame so many places before; the
    first ones, before which there is none, keep their distances.
    """
    ordered = np.sort(times)
    delay = int((np.arange(len(times)) - np.searchsorted(ordered, times)).max())
    before = ordered[:delay] - (ordered[delay] - ordered[0])
    return np.concatenate([before, ordered[: len(times) - delay]])


def _avi_times(facts: VideoFacts, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frame numbers, which is all that AVI stores; it can leave some out."""
    per_tick = float(facts.time_base * facts.rate)
    places = (times - times.min()) * per_tick
    numbers = np.round(places).astype(np.int64)
    if np.abs(places - numbers).max() > 0.1 or len(np.unique(numbers)) < len(numbers):
        raise UsageError(
            f"{facts.path}: has a variable frame rate, which AVI cannot hold; write to .mkv or .mp4."
        )
    first: NDArray[np.int64] = numbers + max(0, round(int(times.min()) * per_tick))
    return first
