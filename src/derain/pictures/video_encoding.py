"""Encodes video: chooses the codec and how samples are stored, and turns frames into packets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from derain.errors import DerainError, UsageError, reason, refuse_unknown
from derain.pictures.kinds import VIDEO_KINDS
from derain.pictures.video import EXACT, Frame, packed_format
from derain.pictures.video_facts import (
    MATRIX_UNKNOWN,
    RANGE_FULL,
    RANGE_LIMITED,
    Colour,
    VideoFacts,
    has_alpha,
)

# Name as users type it -> FFmpeg's encoder, the default quality (CRF; None: the codec has none), options.
# x264's preset "faster" takes 0.55 times as long as its default, for 4 % larger files and 0.3 dB less.
CODECS: dict[str, tuple[str, int | None, dict[str, str]]] = {
    "h264": ("libx264", 18, {"preset": "faster"}),
    "h265": ("libx265", 20, {"x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", 24, {"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "mpeg4": ("mpeg4", None, {"qmin": "2", "qmax": "2"}),
    "ffv1": ("ffv1", None, {"level": "3"}),
    "prores": ("prores_ks", None, {"vendor": "apl0"}),
    "gif": ("gif", None, {}),
}
# In narrower pictures the vector code of x264 reads uninitialised memory, so that the same frames result in
# different bytes in each run, and that of x265 writes out of bounds (below 56 pixels, it crashes). With
# several frames at once, x265 also returns different bytes now and then at 16 pixels.
_NARROW = 128
_NARROW_OPTIONS = {
    "h264": {"x264-params": "asm=0"},
    "h265": {"x265-params": "log-level=none:asm=0:pools=none:frame-threads=1"},
}
MPEG4_TICKS = 65535  # per second, at most (ISO/IEC 14496-2)
# Container -> the codecs that it takes; the first one is the default.
HOLDS = {
    "mp4": ("h264", "h265", "vp9"),
    "mov": ("h264", "h265", "prores"),
    "matroska": ("h264", "h265", "vp9", "ffv1"),
    "webm": ("vp9",),
    "avi": ("mpeg4", "h264", "ffv1"),
    "gif": ("gif",),
}
# Container -> the codec for transparent frames; MP4 and AVI have none.
WITH_ALPHA = {"mov": "prores", "matroska": "ffv1", "webm": "vp9", "gif": "gif"}
WITHOUT_ROTATION = ("avi", "gif")
MATROSKA = ("matroska", "webm")
# Codecs that leave range and matrix of the samples to the container; AVI stores neither.
SILENT_ON_COLOUR = ("mpeg4", "ffv1")
DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        container: FFmpeg's name of the file's kind.
        codec: a key of `CODECS`.
        pixel_format: the format of the encoder's input.
        colour: the colour description that is written to the file.
        options: the encoder's options.
        upright: whether frames are stored as they are shown, for containers that cannot hold a rotation, or
            not together with the mark of a 360-degree video.
    """

    container: str
    codec: str
    pixel_format: str
    colour: Colour
    options: tuple[tuple[str, str], ...]
    upright: bool = False

    @property
    def bits(self) -> int:
        """Bits per sample."""
        return max(8, av.VideoFormat(self.pixel_format).components[0].bits)

    @property
    def alpha(self) -> bool:
        """Whether transparency is kept."""
        return self.codec == "gif" or has_alpha(self.pixel_format)


@dataclass(frozen=True)
class EncodedFrame:
    """One compressed frame; times are in ticks of the source's time base.

    Attributes:
        beside: what is stored beside it in Matroska and WebM: the transparency of VP9.
    """

    pts: int
    duration: int
    keyframe: bool
    data: bytes
    beside: bytes = b""


def choose_encoding(facts: VideoFacts, target: Path, codec: str | None, crf: int | None) -> Encoding:
    """The encoding for a copy of a video.

    Args:
        facts: the facts of the source.
        target: the file to write; its extension picks the container.
        codec: a key of `CODECS`; None takes H.264 (H.265 for more than 8 bits), VP9 for webm and
            MPEG-4 for avi; for transparent frames ProRes in mov, FFV1 in mkv.
        crf: quality, lower is better; None takes the codec's default.

    Raises:
        UsageError: the extension or codec is unknown, or they do not go together or with the quality.
    """
    container = VIDEO_KINDS.get(target.suffix.lower())
    if container is None:
        raise UsageError(f"{target}: videos are written as {' '.join(VIDEO_KINDS)}.")
    if codec is not None:
        refuse_unknown("codec", codec, CODECS)
    held = HOLDS[container]
    if codec is not None and codec not in held:
        raise UsageError(f"{target}: {target.suffix} cannot hold {codec}; use {', '.join(held)}.")
    if codec is None and facts.alpha:
        codec = WITH_ALPHA.get(container)
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
        options["bf"] = "0"  # AVI stores only the order of frames, not their times
    if facts.width < _NARROW:
        options |= _NARROW_OPTIONS.get(codec, {})
    pixel_format, colour = nearest_format(facts, codec)
    if container == "avi" and codec in SILENT_ON_COLOUR:  # as players read it then
        colour = Colour(MATRIX_UNKNOWN, RANGE_LIMITED, colour.primaries, colour.transfer)
    if codec == "vp9" and has_alpha(pixel_format):
        options["auto-alt-ref"] = "0"  # frames that are not shown have no place for their transparency
    options |= _hdr_options(facts, codec, options)
    if codec == "prores":
        options["profile"] = "4444" if has_alpha(pixel_format) else "hq"
    return Encoding(
        container,
        codec,
        pixel_format,
        colour,
        tuple(options.items()),
        upright=facts.display_matrix is not None
        and (container in WITHOUT_ROTATION or (facts.spherical and container in MATROSKA)),
    )


def _hdr_options(facts: VideoFacts, codec: str, options: dict[str, str]) -> dict[str, str]:
    """The HDR10 data of a video, as x264 and x265 take them (SMPTE ST 2086, CTA-861.3)."""
    if codec not in ("h264", "h265"):
        return {}
    name, words = ("x265-params", ("master-display", "max-cll"))
    if codec == "h264":
        name, words = ("x264-params", ("mastering-display", "cll"))
    parts = []
    if facts.mastering is not None:
        red, green, blue, white = (
            f"({','.join(str(round(value * 50_000)) for value in facts.mastering[at : at + 2])})"
            for at in range(0, 8, 2)
        )
        least, most = (round(value * 10_000) for value in facts.mastering[8:])
        parts.append(f"{words[0]}=G{green}B{blue}R{red}WP{white}L({most},{least})")
    if facts.light_levels is not None:
        parts.append(f"{words[1]}={facts.light_levels[0]},{facts.light_levels[1]}")
    return {name: ":".join(filter(None, [options.get(name), *parts]))} if parts else {}


def nearest_format(facts: VideoFacts, codec: str) -> tuple[str, Colour]:
    """The source's chroma resolution and depth, as far as the codec has them, and its colour."""
    if codec == "gif":
        return "pal8", facts.colour
    if codec == "mpeg4" and not av.VideoFormat(facts.pixel_format).is_rgb:
        return "yuv420p", facts.colour
    alpha = "a" if facts.alpha and codec in WITH_ALPHA.values() else ""
    source = av.VideoFormat(facts.pixel_format)
    colour = facts.colour
    if source.is_rgb or source.has_palette:
        if codec == "ffv1" and facts.bits == 8:
            return "bgra" if alpha else "bgr0", colour
        matrix = 1 if facts.height >= 720 else 6
        colour = Colour(matrix, RANGE_LIMITED, colour.primaries, colour.transfer)
        chroma = "420"
    else:
        halves = (source.chroma_width(4) == 2, source.chroma_height(4) == 2)
        chroma = {(True, True): "420", (True, False): "422"}.get(halves, "444")
        if len(source.components) == 1:
            chroma = "420"
    if codec == "vp9" and alpha:
        chroma = "420"  # the encoder takes no other together with transparency
    # x264 and x265 cannot crop halved chroma to an odd size.
    odd_width = facts.width % 2 and chroma != "444"
    odd_height = facts.height % 2 and chroma == "420"
    if codec in ("h264", "h265") and (odd_width or odd_height):
        chroma = "444"
    return _nearest(codec, alpha, chroma, facts.bits), colour


def _nearest(codec: str, alpha: str, chroma: str, bits: int) -> str:
    """The pixel format that an encoder takes with the chroma resolution and depth nearest to those given."""
    taken = {found.name for found in av.Codec(CODECS[codec][0], "w").video_formats or ()}
    depths = [depth for depth in DEPTHS if depth < bits][::-1]  # less if it must be
    depths = [depth for depth in DEPTHS if depth >= bits] + depths
    for sampling in dict.fromkeys([chroma, "444", "422", "420"]):
        for depth in depths:
            name = f"yuv{alpha}{sampling}p" + ("" if depth == 8 else f"{depth}le")
            if name in taken:
                return name
    raise UsageError(f"the codec {codec} cannot store frames like these; choose another codec.")


def time_base_of(facts: VideoFacts, encoding: Encoding) -> Fraction:
    """AVI stores the number of each frame instead of its time."""
    return 1 / facts.rate if encoding.container == "avi" else facts.time_base


def configure(context: VideoCodecContext, facts: VideoFacts, encoding: Encoding) -> None:
    """Sets up an encoder, or the stream for its packets."""
    sideways = encoding.upright and facts.turns % 2
    context.width, context.height = (facts.height, facts.width) if sideways else (facts.width, facts.height)
    context.pix_fmt = encoding.pixel_format
    time_base = time_base_of(facts, encoding)
    if encoding.codec == "mpeg4":
        time_base = time_base.limit_denominator(MPEG4_TICKS)  # AVI's own time base is exact
    context.time_base, context.framerate = time_base, facts.rate
    if facts.aspect is not None:
        context.sample_aspect_ratio = 1 / facts.aspect if sideways else facts.aspect
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


class VideoEncoder:
    """Encodes frames; the first result is a key frame, and none refers to anything before it."""

    def __init__(self, facts: VideoFacts, encoding: Encoding) -> None:
        self._facts, self._encoding = facts, encoding
        context = av.CodecContext.create(CODECS[encoding.codec][0], "w")
        assert isinstance(context, VideoCodecContext)
        self._context = context
        configure(self._context, facts, encoding)
        self._times: deque[int] | None = deque() if encoding.container == "avi" else None
        self._count = 0
        self._to_stored = VideoReformatter()
        self._durations: dict[int, int] = {}

    def encode(self, frame: Frame) -> list[EncodedFrame]:
        """The encoded frames that are ready once `frame` (upright RGB, uint8 or uint16) has been added."""
        stored = stored_frame(frame, self._facts, self._encoding, self._to_stored)
        stored.pts, stored.duration, stored.time_base = frame.pts, frame.duration, self._facts.time_base
        if self._times is not None:  # for AVI, frames are numbered, and their order is kept
            self._times.append(frame.pts)
            stored.pts, stored.duration, stored.time_base = self._count, 1, self._context.time_base
        self._count += 1
        self._durations[frame.pts] = frame.duration
        return self._encoded(stored)

    def finish(self) -> list[EncodedFrame]:
        """The remaining encoded frames."""
        return self._encoded(None)

    def _encoded(self, frame: VideoFrame | None) -> list[EncodedFrame]:
        try:
            packets = self._context.encode(frame)
        except av.error.FFmpegError as error:
            source, codec = self._facts.path, self._encoding.codec
            raise DerainError(f"{source}: cannot be encoded as {codec} ({reason(error)}).") from error
        taken = []
        for packet in packets:
            pts = packet.pts if self._times is None else self._times.popleft()
            assert pts is not None
            duration = self._durations.pop(pts, 0)  # encoders lose that of the last frame
            beside = b""
            if packet.has_sidedata("matroska_block_additional"):
                beside = bytes(packet.get_sidedata("matroska_block_additional"))
            taken.append(EncodedFrame(pts, duration, packet.is_keyframe, bytes(packet), beside))
        return taken


def stored_frame(
    frame: Frame, facts: VideoFacts, encoding: Encoding, to_stored: VideoReformatter
) -> VideoFrame:
    """A frame as an encoder takes it, without its times."""
    colour = encoding.colour
    samples: NDArray[Any] = frame.pixels
    opaque = frame.alpha is None
    if encoding.alpha and not (opaque and encoding.codec == "gif"):
        white = np.full(samples.shape[:2], np.iinfo(samples.dtype).max, samples.dtype)
        samples = np.dstack([samples, white if frame.alpha is None else frame.alpha])
    if not encoding.upright:
        samples = np.rot90(samples[:, ::-1] if facts.mirrored else samples, -facts.turns)
    samples = np.ascontiguousarray(samples)
    name = packed_format(8 * samples.itemsize, alpha=samples.shape[2] == 4)
    rgb = VideoFrame.from_ndarray(samples, format=name)
    if encoding.codec == "gif":
        stored = _with_palette(rgb)
    else:
        matrix = colour.swscale_matrix(facts.height)
        stored = to_stored.reformat(
            rgb,
            format=encoding.pixel_format,
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


def _with_palette(rgb: VideoFrame) -> VideoFrame:
    """The best 256 colours for a frame, dithered; one of them stands for transparent pixels, if any."""
    graph = Graph()
    source = graph.add_buffer(
        width=rgb.width, height=rgb.height, format=rgb.format, time_base=Fraction(1, 100)
    )
    reserve = int(has_alpha(rgb.format.name))
    split = graph.add("split")
    generate = graph.add("palettegen", f"stats_mode=single:reserve_transparent={reserve}")
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
