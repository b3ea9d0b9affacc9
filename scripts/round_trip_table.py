"""Writes docs/kept.md: what every format and container keeps, tried out, cell by cell.

python scripts/round_trip_table.py docs/kept.md
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from derain.errors import DerainError
from derain.pictures import Picture, read_picture, write_picture
from derain.pictures.mp4_boxes import mark_spherical
from derain.pictures.picture import ColourCode, Text
from derain.pictures.video import VideoReader
from derain.pictures.video_facts import video_facts
from derain.restore import VideoOptions
from derain.restore.video import restore_video

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif"}
CONTAINERS = {"mp4": ".mp4", "mov": ".mov", "mkv": ".mkv", "webm": ".webm", "avi": ".avi", "gif": ".gif"}
COUNT, HEIGHT, WIDTH = 6, 64, 96
CONVERTED = "interlaced"
# What the note says of a property, where that is not its name.
WORDS = {
    "profile": "colour profile",
    "cICP": "what its colours mean",
    "gamma": "what its colours mean",
    "duration": "the time for which its last frame stays",
    "subtitles": "subtitle",
    "attachments": "attachment",
    "aspect": "its pixel aspect ratio",
    "depth": "bits per sample",
    "HDR10": "mastering display",
    "alpha": "transparency",
}
INTRODUCTION = """# What is kept

Made by `scripts/round_trip_table.py`, which tries out every cell, and checked by a test.

- **kept**: the result has what the source had.
- **converted**: it has the same in another form.
- **reported**: the format cannot hold it, and the note of the result names it.
- **refused**: nothing is written, and the error suggests another format.

Nothing is lost silently: whatever else a file holds (palettes, CMYK inks, gain maps, content credentials,
layers, captions, data of other programs) is named in the note, too. Thumbnails and sizes in EXIF are updated.
"""


def smooth(height: int = HEIGHT, width: int = WIDTH, phase: float = 0) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin((x + phase) / 9 + k) * np.cos(y / (11 + k)) for k in range(3)]
    return np.stack(planes, axis=2).astype(np.uint8)


# --- Pictures: (what a picture has, how to see it in another)


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera maker", orientation
    return exif.tobytes()


def of_exif(picture: Picture) -> Any:
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    return exif.get(0x010F)


PLAIN = Picture(smooth())
DEEP = Picture(smooth().astype(np.uint16) * 257 + np.uint16(3))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GAMMA = ((b"gAMA", struct.pack(">I", 100_000)),)
SOURCES: dict[str, tuple[Picture, Callable[[Picture], Any]]] = {
    "16 bits": (DEEP, lambda p: p.pixels.dtype == np.uint16 or None),
    "grey": (Picture(smooth()[..., :1]), lambda p: bool((np.ptp(p.pixels, axis=2) <= 3).all()) or None),
    "alpha": (replace(PLAIN, alpha=smooth()[..., 0]), lambda p: None if p.alpha is None else True),
    "EXIF": (replace(PLAIN, exif=exif_block(1)), of_exif),
    "XMP": (replace(PLAIN, xmp=b'<x:xmpmeta xmp:Rating="5"/>'), lambda p: p.xmp),
    "IPTC": (replace(PLAIN, iptc=b"\x1c\x02\x19\x00\x04rain"), lambda p: p.iptc),
    "profile": (replace(PLAIN, icc=PROFILE), lambda p: p.icc),
    "cICP": (replace(PLAIN, colour=ColourCode(9, 16)), lambda p: p.colour),
    "gamma": (replace(PLAIN, colour_chunks=GAMMA), lambda p: p.colour_chunks or None),
    "texts": (
        replace(PLAIN, texts=(Text("Comment", "rain"),)),
        lambda p: p.texts[0].text if p.texts else None,
    ),
    "resolution": (
        replace(PLAIN, dpi=(300.0, 300.0)),
        lambda p: None if p.dpi is None else round(p.dpi[0]),
    ),
}


def picture_cell(suffix: str, name: str, folder: Path) -> str:
    if name == "orientation":
        return _orientation(suffix, folder)
    if name == "lossless":
        return _lossless(suffix, folder)
    picture, look = SOURCES[name]
    target = folder / f"result{suffix}"
    try:
        notes = write_picture(target, picture)
    except DerainError:
        return "refused"
    after = look(read_picture(target))
    if after == look(picture):
        return "kept"
    return "reported" if any(WORDS.get(name, name) in note for note in notes) else "lost"


def _orientation(suffix: str, folder: Path) -> str:
    """A picture that is stored on its side becomes an upright one."""
    source, target = folder / "source.jpg", folder / f"result{suffix}"
    Image.fromarray(smooth()).save(source, exif=exif_block(6), quality=95)
    picture = read_picture(source)
    write_picture(target, picture)
    back = read_picture(target)
    alike = back.size == picture.size and np.abs(back.pixels.astype(int) - picture.pixels).mean() < 4
    return "converted" if alike else "lost"


def _lossless(suffix: str, folder: Path) -> str:
    source, target = folder / "source.webp", folder / f"result{suffix}"
    Image.fromarray(smooth()).save(source, lossless=True)
    notes = write_picture(target, read_picture(source))
    if np.array_equal(read_picture(target).pixels, smooth()):
        return "kept"
    return "reported" if any("lossless" in note for note in notes) else "lost"


# --- Clips: (how to make one, how to see what it has)


def clip(
    path: Path,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    times: tuple[int, ...] = tuple(range(COUNT)),
    last: int = 1,
    alpha: bool = False,
    grey: bool = False,
    colour: tuple[int, int] | None = None,
    setup: Callable[[Any, Any], None] = lambda file, video: None,
    more: Callable[[Any], None] = lambda file: None,
) -> Path:
    """A clip of six frames at 25 a second, with what `setup` and `more` add."""
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=25, options=dict(options or {}))
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixel_format
        if colour is not None:
            video.codec_context.colorspace, video.codec_context.color_range = colour
        setup(file, video)
        ends = dict(zip(times, (*times[1:], times[-1] + last), strict=True))
        packets = []
        for number, time in enumerate(times):
            pixels = smooth(phase=3 * number)
            if grey:
                pixels = np.full_like(pixels, (16, 64, 128, 192, 235, 250)[number])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if alpha:
                opacity = np.where(np.arange(WIDTH) < 40, 255, 60).astype(np.uint8)[None].repeat(HEIGHT, 0)
                frame = av.VideoFrame.from_ndarray(np.dstack([pixels, opacity]), format="rgba")
            matrix = {} if colour is None else {"dst_colorspace": colour[0], "dst_color_range": colour[1]}
            frame = frame.reformat(format=pixel_format, **matrix)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            packets += video.encode(frame)
        for packet in (*packets, *video.encode(None)):
            time = round(packet.pts * packet.time_base * 25)
            packet.duration = round((ends[time] - time) / 25 / packet.time_base)
            file.mux(packet)
        more(file)
    return path


def facts_of(attribute: str) -> Callable[[Path], Any]:
    return lambda path: getattr(video_facts(path), attribute) or None


def frames(path: Path) -> int:
    return sum(1 for _ in VideoReader(video_facts(path)))


def shown_at(path: Path) -> list[int]:
    facts = video_facts(path)
    found = [float(frame.pts * facts.time_base) for frame in VideoReader(facts)]
    return [round((time - found[0]) * 25) for time in found]


def seconds(path: Path) -> float:
    return round(video_facts(path).duration or 0, 1)


def kinds(kind: str) -> Callable[[Path], Any]:
    def count(path: Path) -> Any:
        with av.open(str(path)) as file:
            return sum(stream.type == kind for stream in file.streams) or None

    return count


def covers(path: Path) -> Any:
    with av.open(str(path)) as file:
        pictures = [s for s in file.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        return len(pictures) or None


def chapters(path: Path) -> Any:
    with av.open(str(path)) as file:
        return [chapter["metadata"].get("title") for chapter in file.chapters()] or None


def time_code(path: Path) -> Any:
    with av.open(str(path)) as file:
        tags = {key.lower(): value for stream in file.streams for key, value in stream.metadata.items()}
        return tags.get("timecode")


def upright_shape(path: Path) -> Any:
    return next(iter(VideoReader(video_facts(path)))).pixels.shape


def levels(path: Path) -> Any:
    return np.array([frame.pixels.mean() for frame in VideoReader(video_facts(path))])


def colours(path: Path) -> Any:
    first = next(iter(VideoReader(video_facts(path)))).pixels.astype(float)
    right = smooth().astype(float)
    return bool(np.abs(first.mean((0, 1)) - right.mean((0, 1))).max() < 6) or None


def transparent(path: Path) -> Any:
    return any(frame.alpha is not None for frame in VideoReader(video_facts(path))) or None


def add_text(file: Any) -> None:
    packet = av.Packet(b"It rains.")
    packet.stream, packet.time_base = file.streams[1], Fraction(1, 1000)
    packet.pts, packet.dts, packet.duration = 0, 0, 100
    file.mux(packet)


def add_tone(file: Any) -> None:
    stream = file.streams.audio[0]
    for number in range(8):
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        samples.sample_rate, samples.pts, samples.time_base = 48000, 1024 * number, Fraction(1, 48000)
        file.mux(stream.encode(samples))
    file.mux(stream.encode(None))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth(32, 32)).save(buffer, "JPEG")
    return buffer.getvalue()


CHAPTER = {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "Rain"}}
HDR = (
    "log-level=none:repeat-headers=1:hdr10=1:colorprim=9:transfer=16:colormatrix=9:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
)


def _tag(key: str, value: str) -> Callable[[Any, Any], None]:
    return lambda _file, video: video.metadata.update({key: value})


def _aspect(_file: Any, video: Any) -> None:
    video.codec_context.sample_aspect_ratio = Fraction(4, 3)


def _sphere(path: Path) -> Path:
    clip(path)
    mark_spherical(path)
    return path


CLIPS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "frames": (lambda f: clip(f / "a.mp4"), frames),
    "times": (lambda f: clip(f / "a.mkv", codec="ffv1", times=(0, 1, 2, 7, 8, 20)), shown_at),
    "duration": (lambda f: clip(f / "a.mkv", codec="ffv1", last=50), seconds),
    "audio": (
        lambda f: clip(f / "a.mp4", setup=lambda file, _: file.add_stream("aac", rate=48000), more=add_tone),
        kinds("audio"),
    ),
    "subtitles": (
        lambda f: clip(f / "a.mkv", setup=lambda file, _: file.add_mux_stream("subrip"), more=add_text),
        kinds("subtitle"),
    ),
    "chapters": (lambda f: clip(f / "a.mkv", setup=lambda file, _: file.set_chapters([CHAPTER])), chapters),
    "attachments": (
        lambda f: clip(
            f / "a.mkv", setup=lambda file, _: file.add_attachment("a.txt", "text/plain", b"It rains.")
        ),
        kinds("attachment"),
    ),
    "cover": (
        lambda f: clip(
            f / "a.mkv", setup=lambda file, _: file.add_attachment("cover.jpg", "image/jpeg", jpeg())
        ),
        covers,
    ),
    "rotation": (
        lambda f: clip(f / "a.mp4", setup=lambda _, video: video.set_display_rotation(90)),
        upright_shape,
    ),
    "aspect": (lambda f: clip(f / "a.mp4", setup=_aspect), facts_of("aspect")),
    "interlaced": (
        lambda f: clip(f / "a.mp4", options={"x264-params": "interlaced=1"}),
        facts_of("interlaced"),
    ),
    "full range": (
        lambda f: clip(f / "a.avi", codec="mjpeg", pixel_format="yuvj420p", grey=True, colour=(5, 2)),
        levels,
    ),
    "matrix": (lambda f: clip(f / "a.mp4", colour=(1, 1), options={"crf": "5"}), colours),
    "depth": (lambda f: clip(f / "a.mkv", codec="ffv1", pixel_format="yuv420p12le"), facts_of("bits")),
    "HDR10": (
        lambda f: clip(
            f / "a.mp4", codec="libx265", pixel_format="yuv420p10le", options={"x265-params": HDR}
        ),
        facts_of("mastering"),
    ),
    "alpha": (lambda f: clip(f / "a.mkv", codec="ffv1", pixel_format="yuva420p", alpha=True), transparent),
    "360": (lambda f: _sphere(f / "a.mp4"), facts_of("spherical")),
    "time code": (lambda f: clip(f / "a.mov", setup=_tag("timecode", "01:02:03:04")), time_code),
}


def clip_cell(suffix: str, name: str, folder: Path) -> str:
    make, look = CLIPS[name]
    source, target = make(folder), folder / f"result{suffix}"
    before = look(source)
    assert before is not None, f"the clip for {name} lacks it"
    try:
        notes = restore_video(source, target, lambda rainy: rainy, VideoOptions(frame_by_frame=True)).left_out
    except DerainError:
        return "refused"
    if alike(look(target), before):
        return "kept"
    reported = any(WORDS.get(name, name) in note for note in notes)
    if name == CONVERTED and reported:
        return "converted"
    return "reported" if reported else "lost"


def alike(first: Any, second: Any) -> bool:
    """Equal, or nearly so for levels."""
    if isinstance(first, np.ndarray):
        return first.shape == second.shape and bool(np.abs(first - second).max() < 4)
    return bool(first == second)


def table(rows: Mapping[str, str], columns: list[str], cell: Callable[[str, str, Path], str]) -> list[str]:
    """A table of Markdown: a line for each property, a column for each format or container."""
    lines = [f"| | {' | '.join(rows)} |", "| --- |" + " --- |" * len(rows)]
    for column in columns:
        cells = []
        for suffix in rows.values():
            with tempfile.TemporaryDirectory() as folder:
                cells.append(cell(suffix, column, Path(folder)))
        lines.append(f"| {column} | {' | '.join(cells)} |")
    return lines


def page() -> str:
    """All of the page."""
    pictures = table(FORMATS, [*SOURCES, "orientation", "lossless"], picture_cell)
    clips = table(CONTAINERS, list(CLIPS), clip_cell)
    sections = [INTRODUCTION, "## Pictures\n", *pictures, "", "## Clips\n", *clips, ""]
    return "\n".join(sections)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
