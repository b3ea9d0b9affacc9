"""Opens videos and decodes their frames.

Only local files of a few kinds are opened, recognised by their content: playlists and other formats that
refer to other files or to the network are refused.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from derain.errors import DerainError, reason

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,asf,flv"
_MAX_PIXELS = 200_000_000
# Decoders that read the transparency stored beside the frames in WebM and Matroska.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """The container of a video file, closed afterwards.

    Raises:
        DerainError: there is no such file, or it is damaged or not a video of a known kind.
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


@dataclass
class Tally:
    """What has been read so far: the number of whole packets that were not empty, where the last of them ends
    in the source, in bytes, if known, and whether anything was incomplete or could not be decoded."""

    packets: int = 0
    end: int | None = None
    damaged: bool = False


def decoded_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[VideoFrame]:
    """The frames of a stream as far as they can be read.

    Damage within a frame is noticed where the decoder reports that it filled something in: in H.264, and in
    MPEG-1, MPEG-2, MPEG-4 and their relatives.
    """
    # AVI stores no times: the n-th frame shown takes the time of the n-th packet that is not empty.
    places: deque[int | None] | None = deque() if container.format.name == "avi" else None
    packets, decoder = container.demux(stream), _alpha_decoder(stream)
    while True:
        try:
            packet = next(packets)
            # Its end is missing; decoding it would cost frames before it, too. In MPEG-TS, the mark only says
            # that something may be missing before it, as where recordings were joined.
            if packet.is_corrupt and container.format.name != "mpegts":
                tally.damaged = True
                continue
            if packet.size:
                tally.packets += 1
                tally.end = None if packet.pos is None else packet.pos + packet.size
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
                tally.damaged |= frame.is_corrupt  # in part made up from other frames
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
    """One full picture for each interlaced frame (bwdif); other frames, and all times, are unchanged."""
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
