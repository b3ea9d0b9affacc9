"""Real encoded clips for tests, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


def moving_scene(count: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of a smooth pattern that drifts; every frame differs from every other."""
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    for number in range(count):
        wave = np.sin((x + number) / 17) + np.cos((y - 0.5 * number) / 13) + np.array([0, 0.4, 0.8])
        yield np.clip(110 + 40 * wave + 0.2 * number, 0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: Fraction = Fraction(25),
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio: str | None = None,
    subtitles: bool = False,
    rotation: int | None = None,
    mirrored: bool = False,
    tags: dict[str, str] | None = None,
    colour: tuple[int, int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes a clip as a camera or an editor would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = float(len(frames) / rate)
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=rate, options=options)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixel_format
        if time_base is not None:
            video.codec_context.time_base = time_base
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=mirrored)
        if colour is not None:
            video.codec_context.colorspace, video.codec_context.color_range = colour
        sound = None if audio is None else file.add_stream(audio, rate=48000)
        if sound is not None:
            sound.metadata["language"] = "nld"
        text = None
        if subtitles:
            text = file.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text")
        file.metadata.update(tags or {})
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if colour is not None:
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace=colour[0], dst_color_range=colour[1]
                )
            frame.pts = number if times is None else times[number]
            frame.time_base = time_base or 1 / rate
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if sound is not None:
            file.mux(packet for packet in _tone(sound, seconds))
        if text is not None:
            packet = av.Packet(b"It rains." if path.suffix == ".mkv" else b"\0\x09It rains.")
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts, packet.dts, packet.duration = 100, 100, 500
            file.mux(packet)
    return path


_SAMPLES = {"flt": (np.float32, 1), "s16": (np.int16, 2**15 - 1), "s32": (np.int32, 2**31 - 1)}


def _tone(sound: Any, seconds: float) -> Iterator[Any]:
    size = sound.codec_context.frame_size or 1152
    planar = sound.format.is_planar
    for number in range(int(seconds * 48000) // size):
        wave = 0.3 * np.sin((np.arange(size) + number * size) / 30)
        kind, largest = _SAMPLES[sound.format.name.removesuffix("p")]
        wave = wave * largest
        both = np.stack([wave, wave]).astype(kind) if planar else np.repeat(wave, 2)[None].astype(kind)
        frame = av.AudioFrame.from_ndarray(both, format=sound.format.name, layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * size, Fraction(1, 48000)
        yield from sound.encode(frame)
    yield from sound.encode(None)


@dataclass(frozen=True)
class Content:
    """What a player gets from a file; times in seconds."""

    frames: list[NDArray[Any]]
    times: list[float]
    duration: float
    rate: Fraction
    pixel_format: str
    codec: str
    rotation: int
    colour: tuple[int, int]
    packets: dict[str, list[bytes]]
    packet_times: dict[str, list[float]]
    tags: dict[str, str]
    languages: list[str | None]


def content(path: Path) -> Content:
    """Decodes all of a file; `packets` are those of sound and subtitles as they are stored."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        decoded = list(file.decode(video))
        deep = decoded[0].format.components[0].bits > 8
        frames = [frame.to_ndarray(format="rgb48le" if deep else "rgb24") for frame in decoded]
        last = decoded[-1]
        assert last.pts is not None
        assert video.time_base is not None
        facts = {
            "frames": frames,
            "times": [frame.time for frame in decoded],
            "duration": float((last.pts + last.duration) * video.time_base) - decoded[0].time,
            "rate": video.average_rate,
            "pixel_format": decoded[0].format.name,
            "codec": video.codec_context.name,
            "rotation": decoded[0].rotation,
            "colour": (int(decoded[0].colorspace), int(decoded[0].color_range)),
            "tags": dict(file.metadata),
            "languages": [stream.language for stream in file.streams.audio],
        }
    packets: dict[str, list[bytes]] = {}
    moments: dict[str, list[float]] = {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.stream.type != "video" and packet.size and packet.pts is not None:
                packets.setdefault(packet.stream.type, []).append(bytes(packet))
                moments.setdefault(packet.stream.type, []).append(float(packet.pts * packet.time_base))
    return Content(**facts, packets=packets, packet_times=moments)
