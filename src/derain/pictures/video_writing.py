"""Writes video: packets to a file, together with everything else in the source."""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet, PacketSideData
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from derain.atomic import new_file
from derain.errors import DerainError, UsageError, reason
from derain.pictures.matroska import add_marked_stream, marks
from derain.pictures.mp4_boxes import mark_spherical
from derain.pictures.video_decoding import open_video, video_stream
from derain.pictures.video_encoding import (
    CODECS,
    MATROSKA,
    SILENT_ON_COLOUR,
    EncodedFrame,
    Encoding,
    configure,
    time_base_of,
)
from derain.pictures.video_facts import VideoFacts

BLOCK_ADDITIONAL = 15  # FFmpeg's AV_PKT_DATA_MATROSKA_BLOCKADDITIONAL
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
HOLD_CHAPTERS = ("mp4", "mov", *MATROSKA)
HOLD_COVERS, HOLD_TIME_CODE = ("mp4", "matroska"), ("mp4", "mov", *MATROSKA)
LONGEST_GIF_DELAY, SHORTEST_GIF_DELAY = 655.35, 0.009  # seconds
SILENT_ON_ASPECT = ("vp9", "gif")
# In lower case; written by the muxer, and true only of the source.
_CONTAINER_TAGS = {
    *("encoder", "software", "duration", "alpha_mode"),
    *("major_brand", "minor_version", "compatible_brands"),
}


def write_video(
    target: Path,
    facts: VideoFacts,
    encoding: Encoding,
    times: NDArray[np.int64],
    frames: Callable[[], Iterator[EncodedFrame]],
) -> list[str]:
    """Writes encoded frames with everything else in the source, completely or not at all.

    Sound, subtitles, attachments, chapters, tags and the rotation are copied unchanged.

    Args:
        target: the file; replaced if it exists.
        facts: the facts of the source.
        encoding: how the frames were encoded.
        times: (N,) the pts of all frames in coding order.
        frames: returns the encoded frames in coding order.

    Returns:
        What was changed or left out, in words.

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
                lost = _fill(output, source, facts, encoding, target, times, frames)
                copied = sum(not _is_cover(stream) for stream in output.streams.video) > 1
            if facts.spherical and encoding.container in ("mp4", "mov"):
                mark_spherical(temporary)
        except av.error.FFmpegError as error:
            raise DerainError(f"{target}: cannot be written ({reason(error)}).") from error
        if encoding.container not in HOLD_TIME_CODE and any(map(_has_time_code, source.streams)):
            lost.append("its time code")
        lost += _not_held(facts, encoding, bool(source.chapters()), times)
    notes = [f"left out: {', '.join(dict.fromkeys(lost))}"] if lost else []
    if copied:
        notes.append("only its first video was restored; the others were copied")
    if facts.interlaced:
        notes.append("was interlaced, deinterlaced to one picture per frame (bwdif)")
    return notes


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _has_time_code(stream: Stream) -> bool:
    return any(key.lower() == "timecode" for key in stream.metadata)


def _not_held(
    facts: VideoFacts, encoding: Encoding, has_chapters: bool, times: NDArray[np.int64]
) -> list[str]:
    """Which of the facts the new file cannot hold, in words."""
    container, codec = encoding.container, encoding.codec
    lost = list(facts.lost)
    if facts.bits > encoding.bits:
        lost.append(f"{facts.bits} bits per sample ({codec} keeps {encoding.bits})")
    if codec == "gif" and facts.loops is None:
        lost.append("all but 256 colours per frame")
    if codec == "gif" and len(times) > 1:
        waits = np.diff(np.sort(times)) * float(facts.time_base)
        if waits.max() > LONGEST_GIF_DELAY:
            lost.append(f"waits of more than {LONGEST_GIF_DELAY:g} s between frames")
        if waits.min() < SHORTEST_GIF_DELAY:
            lost.append("its speed (GIF holds up to 100 frames per second)")
    if container != "gif" and facts.loops not in (None, -1):
        lost.append("its repetition")
    light = facts.mastering or facts.light_levels
    if light and codec not in ("h264", "h265") and not marks(facts, encoding):
        lost.append("its mastering display and light levels")
    hdr = facts.colour.transfer in (16, 18) or facts.colour.primaries == 9
    if hdr and (codec == "gif" or (container == "avi" and codec in SILENT_ON_COLOUR)):
        lost.append("what its colours mean (HDR or BT.2020)")
    if facts.spherical and container not in ("mp4", "mov") and not marks(facts, encoding):
        lost.append("its mark as a 360-degree video")
    if facts.aspect not in (None, 1) and codec in SILENT_ON_ASPECT:
        lost.append("its pixel aspect ratio")
    if has_chapters and container not in HOLD_CHAPTERS:
        lost.append("its chapters")
    shown = float((times.max() - times.min() + 1 / facts.rate / facts.time_base) * facts.time_base)
    if container == "avi" and facts.duration is not None and shown + 0.5 / facts.rate < facts.duration:
        lost.append("the time for which its last frame stays")
    return lost


def refuse_misfit(facts: VideoFacts, encoding: Encoding, target: Path) -> None:
    """Checks before any work that the container can hold the source's sound and its times.

    Raises:
        UsageError: it cannot.
    """
    with open_video(facts.path) as source:
        main = video_stream(source, facts.path)
        with av.open(io.BytesIO(), "w", format=encoding.container) as trial:
            copies, _, _ = _add_copies(trial, source, main, encoding, target)
            try:
                for packet in itertools.islice(_copied_packets(source, copies), 50):
                    trial.mux(packet)
                trial.close()
            except av.error.FFmpegError:
                raise UsageError(
                    f"{target}: {encoding.container} cannot hold the source's sound or subtitles; "
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
    if encoding.container == "gif":
        last = 1 / facts.rate
        if facts.duration is not None:
            last = Fraction(facts.duration) - int(times.max() - times.min()) * facts.time_base
        delay = {"final_delay": str(max(1, round(100 * last)))} if len(times) > 1 else {}
        return {"loop": str(0 if facts.loops is None else facts.loops), **delay}
    if encoding.container in ("mp4", "mov") and any("." in key for key in source.metadata):
        return {"movflags": "use_metadata_tags"}  # the dotted tags of phones and cameras
    if encoding.container == "avi":
        return {"avoid_negative_ts": "disabled"}
    if encoding.container in MATROSKA:  # makes track numbers the same each time, too
        return {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
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
    """Adds streams and tags to an open file and writes all packets; returns what does not fit, in words."""
    main = video_stream(source, facts.path)
    video = _add_video(output, main, facts, encoding)
    output.metadata.update(_lasting(source.metadata))
    copies, covers, lost = _add_copies(output, source, main, encoding, target)
    chapters = source.chapters()
    if chapters and encoding.container in HOLD_CHAPTERS:
        output.set_chapters(chapters)
    for packet in covers:
        output.mux(packet)
    numbered = encoding.container in ("avi", "gif")
    base = Fraction(1, 100) if encoding.container == "gif" else time_base_of(facts, encoding)
    moments = {"avi": _avi_times, "gif": _gif_times}[encoding.container](facts, times) if numbered else times
    # Broadcast streams may begin at any time.
    start = source.start_time if source.format.name in ("mpegts", "mpeg") else None
    shift = Fraction(start or 0, av.time_base)
    for packet in heapq.merge(
        _video_packets(video, frames(), moments, base, numbered),
        _copied_packets(source, copies),
        key=lambda packet: (packet.dts or 0) * packet.time_base,
    ):
        if shift and packet.pts is not None and packet.dts is not None:
            ticks = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        output.mux(packet)
    return lost


def _add_video(
    output: OutputContainer, main: VideoStream, facts: VideoFacts, encoding: Encoding
) -> VideoStream:
    """The stream for the encoded frames, with the tags and the rotation of the source's video."""
    if marks(facts, encoding):
        video = add_marked_stream(output, facts, encoding)
    else:
        added = output.add_stream(CODECS[encoding.codec][0], rate=facts.rate)
        assert isinstance(added, VideoStream)
        video = added
        configure(video.codec_context, facts, encoding)
    video.time_base = time_base_of(facts, encoding)
    if facts.display_matrix is not None and not encoding.upright:
        video.set_display_matrix(facts.display_matrix)
    _copy_tags(main, video)
    if encoding.codec == "vp9" and encoding.alpha:
        video.metadata["alpha_mode"] = "1"
    return video


def _copy_tags(source: Stream, copy: Stream) -> None:
    copy.metadata.update(_lasting(source.metadata))
    copy.disposition = source.disposition


def _lasting(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a source that are also true of its copy."""
    return {name: value for name, value in tags.items() if name.lower() not in _CONTAINER_TAGS}


def _add_copies(
    output: OutputContainer, source: InputContainer, main: Stream, encoding: Encoding, target: Path
) -> tuple[dict[int, Stream], list[Packet[Stream]], list[str]]:
    """A stream in `output` for every other one of the source; cover pictures; what does not fit, in words."""
    copies: dict[int, Stream] = {}
    covers: list[Packet[Stream]] = []
    lost = []
    for stream in source.streams:
        if stream.index == main.index:
            continue
        name = stream.codec_context.name if stream.codec_context else stream.type
        if _is_cover(stream):
            if not _add_cover(output, stream, covers, encoding.container, Path(source.name)):
                lost.append("its cover picture")
            continue
        if stream.type == "data" and "timecode" in stream.metadata:
            continue  # written again from the tag of the video
        if stream.type == "attachment" and encoding.container != "matroska":
            lost.append(f"the attachment {stream.metadata.get('filename', stream.index)}")
            continue
        try:
            if stream.type in ("data", "unknown"):
                raise ValueError
            copies[stream.index] = output.add_stream_from_template(stream)
        except ValueError:
            if stream.type == "audio" and encoding.container != "gif":
                raise UsageError(
                    f"{target}: {encoding.container} cannot hold the source's sound ({name}); write to .mkv."
                ) from None
            lost.append(f"{stream.type} stream {stream.index} ({name})")
        else:
            _copy_tags(stream, copies[stream.index])
    return copies, covers, lost


def _add_cover(
    output: OutputContainer, stream: Stream, covers: list[Packet[Stream]], container: str, path: Path
) -> bool:
    """Adds a cover picture in the way of the container; returns False if the container cannot hold it."""
    name = stream.codec_context.name if stream.codec_context else ""
    with open_video(Path(str(path).removeprefix("file:"))) as again:
        packets = again.demux(again.streams[stream.index])
        content = next((bytes(packet) for packet in packets if packet.size), b"")
    if not content or name not in COVERS or container not in HOLD_COVERS:
        return False
    if container == "matroska":
        file, kind = COVERS[name]
        output.add_attachment(stream.metadata.get("filename", file), kind, content)
        return True
    copy = output.add_stream_from_template(stream)
    copy.disposition = stream.disposition
    packet: Packet[Stream] = Packet(content)
    packet.stream, packet.pts, packet.dts, packet.is_keyframe = copy, 0, 0, True
    covers.append(packet)
    return True


def _copied_packets(source: InputContainer, copies: dict[int, Stream]) -> Iterator[Packet[Stream]]:
    wanted = [stream for stream in source.streams if stream.index in copies and stream.type != "attachment"]
    if not wanted:
        return
    packets = source.demux(wanted)
    ends: dict[int, tuple[int, int]] = {}  # decoding times of the last packet and of its end
    shifts: dict[int, int] = {}
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        if packet.dts is not None:
            index = packet.stream.index
            shift = shifts.get(index, 0)
            last, end = ends.get(index, (packet.dts, 0))
            if packet.dts + shift < last:  # files were joined; the next begins where the last ended
                shift = shifts[index] = end - packet.dts
            if shift:
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
            ends[index] = (packet.dts, packet.dts + max(1, packet.duration or 0))
            packet.stream = copies[index]
            yield packet


def _video_packets(
    stream: Stream,
    frames: Iterator[EncodedFrame],
    times: NDArray[np.int64],
    time_base: Fraction,
    numbered: bool,
) -> Iterator[Packet[Stream]]:
    """Packets in coding order; where frames are `numbered`, each one lasts one tick."""
    end, shown, left = 0, int(times.max()), len(times)
    usual = 1 if numbered else int(np.median(np.diff(np.sort(times)))) if left > 1 else 0
    for frame, pts, dts in zip(frames, times.tolist(), decode_times(times).tolist(), strict=True):
        left -= 1
        duration = 1 if numbered else frame.duration
        end = max(end, pts + duration)
        packet: Packet[Stream] = Packet(frame.data)
        packet.stream, packet.time_base = stream, time_base
        if not left and end - shown > 1.5 * usual:
            dts, duration = pts, end - pts  # muxers take the end of the last packet as that of the video
        packet.pts, packet.dts = pts, dts
        packet.duration, packet.is_keyframe = duration, frame.keyframe
        if frame.beside:
            beside = PacketSideData(BLOCK_ADDITIONAL, len(frame.beside))  # type: ignore[call-arg]
            beside.update(frame.beside)
            beside.to_packet(packet)
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
    """The times as frame numbers, which are all that AVI stores; some may be left out."""
    per_tick = float(facts.time_base * facts.rate)
    places = (times - times.min()) * per_tick
    numbers = np.round(places).astype(np.int64)
    if np.abs(places - numbers).max() > 0.1 or len(np.unique(numbers)) < len(numbers):
        raise UsageError(
            f"{facts.path}: has a variable frame rate, which AVI cannot hold; write to .mkv or .mp4."
        )
    first: NDArray[np.int64] = numbers + max(0, round(int(times.min()) * per_tick))
    return first


def _gif_times(facts: VideoFacts, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The times in hundredths of a second, all different."""
    hundredths = np.rint(times * float(100 * facts.time_base)).astype(np.int64)
    places = np.arange(len(times))
    # Increasing by at least one: the excess over that never decreases.
    rising: NDArray[np.int64] = np.maximum.accumulate(hundredths - places) + places
    return rising
