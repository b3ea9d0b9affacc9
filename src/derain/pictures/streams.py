"""Streaming video: frames from a pipe or network, and into a pipe or file, one after the other.

Nothing is kept or read twice, so a stream may be endless. A source cannot refer to other
files or addresses: playlists are not among the formats, and FFmpeg may use only the protocols that belong
to the address.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from derain.errors import DerainError, UsageError, reason, refuse_unknown, unknown_name
from derain.pictures.matroska_elements import MATROSKA, Elements
from derain.pictures.video import Frame, pixels_of
from derain.pictures.video_decoding import (
    Tally,
    decoded_frames,
    deinterlaced,
    open_video,
    video_stream,
    why_not_opened,
)
from derain.pictures.video_encoding import (
    CODECS,
    Encoding,
    choose_encoding,
    configure,
    nearest_format,
    stored_frame,
)
from derain.pictures.video_facts import VideoFacts, facts_of

RAW_FORMATS = ("rgb24", "yuv420p")
KINDS = ("y4m", "raw", "mkv")
FILE_SUFFIXES = (".mkv", ".mp4", ".mov", ".webm", ".y4m")
_PIPED = "yuv4mpegpipe,nut,matroska,webm,mpegts,mov,mp4,m4a,3gp,3g2,mj2,avi,flv,mjpeg,mpjpeg,h264,hevc,ivf"
_NETWORK = f"rtsp,rtp,sdp,{_PIPED}"
# The protocols that are used for each kind of address.
PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "srt": "srt",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "udp": "udp",
    "tcp": "tcp",
}
PIPE_NAME = "standard input"  # in messages
LOOK = 0.1  # seconds between checks whether a silent pipe is still wanted
LARGEST = 1 << 28  # pixels of a frame with a margin of 128, FFmpeg's limit
PATIENCE = 10.0  # seconds without an answer after which a source counts as lost
# Options with which encoders return each frame at once and keep up with the source.
_QUICK = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency"},
    "libx265": {"preset": "veryfast", "tune": "zerolatency"},
    "libvpx-vp9": {"deadline": "realtime", "lag-in-frames": "0"},
}
FRAGMENT = 1_000_000  # microseconds of MP4 or QuickTime that are lost if the program is killed
_CONTAINERS = {
    # The file is complete after every fragment, whatever happens later.
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": str(FRAGMENT)},
    "mov": {"movflags": "empty_moov", "frag_duration": str(FRAGMENT)},
    "matroska": {"cluster_time_limit": "200"},  # milliseconds that the reader of a pipe waits at most
}


@dataclass(frozen=True)
class RawFrames:
    """What must be known about frames without a header.

    Attributes:
        pixel_format: one of `RAW_FORMATS`.
        width, height: pixels.
        rate: frames per second.

    Raises:
        UsageError: one of the values is impossible.
    """

    pixel_format: str
    width: int
    height: int
    rate: Fraction

    def __post_init__(self) -> None:
        refuse_unknown("format of raw frames", self.pixel_format, RAW_FORMATS)
        if min(self.width, self.height) < 1:
            raise UsageError(f"frames of {self.width}x{self.height}: both sides must be positive.")
        if (self.width + 128) * (self.height + 128) >= LARGEST:
            raise UsageError(f"frames of {self.width}x{self.height}: too large for FFmpeg.")
        if self.rate <= 0:
            raise UsageError(f"{self.rate} frames per second: the rate must be positive.")


class FrameStream:
    """Iterates over the frames of an open source, once.

    Attributes:
        facts: the facts of the source, from its header and its first frame.
        frames: how many frames have been yielded so far.
    """

    def __init__(
        self,
        container: InputContainer,
        name: Path,
        raw: RawFrames | None = None,
        live: bool = False,
        reading: _Reading | None = None,
    ) -> None:
        """
        Args:
            container: a container that was just opened.
            name: what messages call the source.
            raw: the format of raw frames.
            live: return each frame as soon as it arrives; decoding on several cores would delay some.
            reading: what the container reads from, if it is a pipe.

        Raises:
            DerainError: there is no video, or no frame of it can be read.
        """
        stream = video_stream(container, name)
        if live:
            stream.thread_type = "SLICE"
        if raw is not None:  # the usual place of halved chroma
            stream.codec_context.options = {"chroma_sample_location": "left"}
        self._tally, self._to_rgb, self.frames = Tally(), VideoReformatter(), 0
        self._reading, self._format = reading, container.format.name
        frames = decoded_frames(container, stream, self._tally)
        first = next(frames, None)
        self.facts = facts_of(name, container, stream, first, None if raw is None else raw.rate)
        assert first is not None
        together = itertools.chain([first], frames)
        self._decoded = deinterlaced(together) if self.facts.interlaced else together

    @property
    def damaged(self) -> bool:
        """Whether something could not be decoded so far, or the last frame is incomplete."""
        return self._tally.damaged or (self._reading is not None and self._is_cut(self._reading))

    def _is_cut(self, reading: _Reading) -> bool:
        """Whether a pipe ended too early, in the formats where FFmpeg does not report it."""
        if self._format == MATROSKA:
            return reading.elements.broken or (reading.has_ended and reading.elements.cut)
        # A remainder that is too short for a frame.
        return self._format == "yuv4mpegpipe" and reading.has_ended and reading.length != self._tally.end

    def stop(self) -> None:
        """Ends the frames of a pipe, even while another thread waits for the next one."""
        if self._reading is not None:
            self._reading.stop.set()

    def decoded(self) -> Iterator[VideoFrame]:
        """The decoded frames; `rgb` converts those that are wanted to pictures."""
        for frame in self._decoded:
            self.frames += 1
            yield frame

    def rgb(self, frame: VideoFrame) -> Frame:
        """One of the frames as a picture. Raises `DerainError` if its size differs from that of the first."""
        pixels, alpha = pixels_of(frame, self.facts, self._to_rgb, self.frames)
        pts = self.frames if frame.pts is None else frame.pts
        return Frame(pixels, pts, frame.duration, alpha)

    def __iter__(self) -> Iterator[Frame]:
        return map(self.rgb, self.decoded())


class _Interrupted(Exception):
    """Stands for a `KeyboardInterrupt` on its way through FFmpeg, whose callbacks pass on only exceptions of
    this class."""


class _Reading:
    """What FFmpeg reads from: returns the available bytes, without waiting for a whole block.

    Attributes:
        length: how many bytes have arrived so far.
        elements: what they are, if they are Matroska or WebM.
        has_ended: whether the other side has closed the pipe.
        stop: set to end the stream, even while it waits.
    """

    def __init__(self, file: BinaryIO) -> None:
        # Unbuffered: a buffer's lock, held by a waiting thread, would abort Python on exit.
        unbuffered: Any = getattr(file, "raw", file)
        self._read: Callable[[int], bytes] = unbuffered.read
        self._descriptor = _descriptor(unbuffered)
        self.length, self.has_ended, self.stop = 0, False, threading.Event()
        self.elements = Elements()

    def read(self, size: int) -> bytes:
        try:
            if not self._is_ready():
                return b""
            content = self._read(size)
        except KeyboardInterrupt:
            raise _Interrupted from None
        self.length += len(content)
        self.elements.add(content)
        self.has_ended = not content
        return content

    def _is_ready(self) -> bool:
        """Whether there is something to read; False once the stream is to end."""
        while not self.stop.is_set():
            if self._descriptor is None or select.select([self._descriptor], [], [], LOOK)[0]:
                return True
        return False


class _Writing:
    """What FFmpeg writes to; a pipe cannot be rewound.

    Attributes:
        is_interrupted: whether Ctrl-C came while it wrote; what comes after that is discarded.
    """

    def __init__(self, file: BinaryIO) -> None:
        # Unbuffered: Python would try to flush a buffer on exit, even if nobody reads for long.
        self._file: Any = getattr(file, "raw", file)
        self.is_interrupted = False

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        try:
            while rest and not self.is_interrupted:
                rest = rest[self._file.write(rest) :]
        except KeyboardInterrupt:
            self.is_interrupted = True
            raise _Interrupted from None
        return len(content)


def _descriptor(file: Any) -> int | None:
    """The descriptor of a pipe; None for bytes in memory, and on systems that can wait only for sockets."""
    if sys.platform == "win32":
        return None
    try:
        found: int = file.fileno()
    except (AttributeError, OSError):
        return None
    return found


@contextlib.contextmanager
def open_pipe(file: BinaryIO, raw: RawFrames | None = None, *, live: bool = False) -> Iterator[FrameStream]:
    """The frames of a pipe: y4m, an encoded stream (Matroska, NUT, MPEG-TS, ...), or raw ones.

    Args:
        file: read from its current position, never rewound.
        raw: the format of raw frames; None for a stream with a header.
        live: see `FrameStream`.

    Raises:
        DerainError: the pipe is empty, or its format is unknown.
    """
    options = {"format_whitelist": _PIPED, "protocol_whitelist": "pipe"}
    if raw is not None:
        options = {
            "format_whitelist": "rawvideo",
            "pixel_format": raw.pixel_format,
            "video_size": f"{raw.width}x{raw.height}",
            "framerate": str(raw.rate),
        }
    reading = _Reading(file)
    with _interruptible():
        try:
            container = av.open(
                reading,
                "r",
                format=None if raw is None else "rawvideo",
                container_options=options,
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise DerainError(f"{PIPE_NAME}: {_why_no_pipe(reading, error)}") from None
        with container:
            try:
                stream = FrameStream(container, Path(PIPE_NAME), raw, live, reading)
            except DerainError as error:
                if "mp4" in container.format.name:
                    error.message = f"{error.message} MP4 from a pipe needs its index in front, or fragments."
                raise
            yield stream


def _why_no_pipe(reading: _Reading, error: Exception) -> str:
    if reading.length == 0:
        return "nothing arrived; check the output of the program before the pipe."
    return (
        f"no readable video ({why_not_opened(error)}); known are y4m, Matroska, WebM, NUT, MPEG-TS, AVI, "
        "FLV, Motion JPEG, H.264, H.265, MP4 with its index in front, and raw frames whose format and size "
        "are given."
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except _Interrupted:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def open_address(address: str) -> Iterator[FrameStream]:
    """The frames of a camera or server on the network, live.

    Args:
        address: an address with one of `PROTOCOLS`, e.g. "rtsp://camera/stream".

    Raises:
        UsageError: it has another protocol.
        DerainError: it does not answer, or sends no video of a known format.
    """
    scheme = address.partition("://")[0].lower()
    refuse_unknown("protocol", scheme, PROTOCOLS)
    options = {
        "protocol_whitelist": PROTOCOLS[scheme],
        "format_whitelist": _NETWORK,
        "flags": "low_delay",
    }
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # lost packets would be grey blocks
    shown = without_password(address)
    try:
        container = av.open(
            address, "r", container_options=options, timeout=PATIENCE, metadata_errors="replace"
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise DerainError(f"{shown}: cannot be opened ({reason(error)}).") from None
    with container:
        yield FrameStream(container, Path(shown), live=True)


def without_password(address: str) -> str:
    """An address as messages may show it."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[FrameStream]:
    """The frames of a video file, as `open_video` reads them."""
    with open_video(path) as container:
        yield FrameStream(container, path, live=True)


class FrameWriter:
    """Writes frames as they come; a context manager that finishes the stream.

    Sound, subtitles and tags of the source are not written.
    """

    def __init__(
        self,
        target: BinaryIO | Path,
        kind: str,
        facts: VideoFacts,
        *,
        raw_format: str = "rgb24",
        codec: str | None = None,
        crf: int | None = None,
    ) -> None:
        """
        Args:
            target: a pipe, or the file to write.
            kind: one of `KINDS`, or of `FILE_SUFFIXES`.
            facts: the facts of the source: size, colour, time base.
            raw_format: the format of raw frames, one of `RAW_FORMATS`.
            codec, crf: for encoded kinds; see `choose_encoding`.

        Raises:
            UsageError: the kind is not known, or does not go with the codec or quality.
            DerainError: the target cannot be opened.
        """
        kind = kind.removeprefix(".")
        if kind not in {*KINDS, *(suffix[1:] for suffix in FILE_SUFFIXES)}:
            raise unknown_name("kind of stream", kind, KINDS)
        is_plain = kind in ("y4m", "raw")
        if is_plain and (codec is not None or crf is not None):
            raise UsageError(f"{kind} frames are not encoded; leave out codec and crf.")
        self._name = target if isinstance(target, Path) else "standard output"
        self.frames, self._last = 0, -1
        self._facts = replace(facts, time_base=1 / facts.rate) if is_plain else facts
        self._encoding = (
            _plain_encoding(kind, facts, raw_format) if is_plain else _live_encoding(kind, facts, codec, crf)
        )
        encoder = self._encoding.codec if is_plain else CODECS[self._encoding.codec][0]
        self._is_plain, self._to_stored = is_plain, VideoReformatter()
        container = self._encoding.container
        self._pipe = None if isinstance(target, Path) else _Writing(target)
        try:
            self._container = av.open(
                str(target) if self._pipe is None else self._pipe,
                "w",
                format=container,
                options={"strict": "-1", "flush_packets": "1", **_CONTAINERS.get(container, {})},
            )
            self._stream: Any = self._container.add_stream(encoder, rate=facts.rate)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DerainError(f"{self._name}: cannot be written ({reason(error)}).") from None
        context: Any = self._stream.codec_context
        configure(context, self._facts, self._encoding)
        context.options = {**context.options, **_QUICK.get(encoder, {})}
        self._stream.time_base = self._facts.time_base

    def write(self, frame: Frame) -> None:
        """Writes one frame, upright RGB of the size of the source.

        Raises:
            DerainError: the disk is full, or the reader of the pipe has gone.
        """
        stored = stored_frame(frame, self._facts, self._encoding, self._to_stored)
        # Players need increasing times, whatever a broken source states.
        stored.pts = self.frames if self._is_plain else max(frame.pts, self._last + 1)
        stored.time_base, self._last = self._facts.time_base, stored.pts
        self._mux(stored)
        self.frames += 1

    def close(self) -> None:
        """Writes the remaining frames and the end of the stream."""
        if self.frames:
            self._mux(None)
        with self._errors():
            self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with _interruptible():
                yield
        except BrokenPipeError:
            raise DerainError(f"{self._name}: closed by its reader after {self.frames} frames.") from None
        except (av.error.FFmpegError, OSError) as error:
            raise DerainError(f"{self._name}: cannot be written ({reason(error)}).") from None

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ends_well = kind is None or issubclass(kind, KeyboardInterrupt)
        # Once its pipe was interrupted, FFmpeg fails to write anything.
        if ends_well and not (self._pipe and self._pipe.is_interrupted):
            self.close()
            return
        with contextlib.suppress(DerainError):
            self.close()


def _live_encoding(kind: str, facts: VideoFacts, codec: str | None, crf: int | None) -> Encoding:
    """The encoding of a file of this kind, but upright, as a stream does not state a rotation."""
    return replace(choose_encoding(facts, Path(f"stream.{kind}"), codec, crf), upright=True)


def _plain_encoding(kind: str, facts: VideoFacts, raw_format: str) -> Encoding:
    """Frames as they are: with the source's chroma resolution and depth in y4m, in one of two formats raw."""
    if kind == "raw":
        return Encoding("rawvideo", "rawvideo", raw_format, facts.colour, (), upright=True)
    pixel_format, colour = nearest_format(replace(facts, alpha=False), "ffv1")
    if av.VideoFormat(pixel_format).is_rgb:  # which y4m cannot hold
        pixel_format, colour = nearest_format(replace(facts, alpha=False), "h264")
        pixel_format = "yuv444p"
    # Where swscale puts halved chroma, and video as a rule has it; y4m's header says it.
    siting = (("chroma_sample_location", "left"),)
    return Encoding("yuv4mpegpipe", "wrapped_avframe", pixel_format, colour, siting, upright=True)
