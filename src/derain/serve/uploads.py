"""Uploads: they get harmless names, and are recognised by content and read once before they are accepted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from derain.errors import DerainError
from derain.pictures import FileKind, Picture, TooManyPixels, kind_of, read_picture
from derain.pictures.kinds import HEAD, VIDEO_KINDS
from derain.pictures.video import VideoReader
from derain.pictures.video_decoding import open_video, video_stream
from derain.pictures.video_facts import VideoFacts, video_facts
from derain.pictures.writing import FORMATS
from derain.serve.limits import Limits, Refused

Kind = Literal["picture", "clip"]

NAME_BYTES = 200  # for a name without its extension; file systems take 255, and names of results are longer
FOLDER_LENGTH = 300
FORBIDDEN = set('<>:"/\\|?*')  # in file names on some systems


@dataclass(frozen=True)
class Upload:
    """A checked file.

    Attributes:
        kind: a still picture or a clip.
        name: for people and for downloads: no path, nothing that a file system forbids, and the extension
            that fits its content.
        source: the file on this server, under a name that the server chose.
        size: (height, width) in pixels, upright.
    """

    kind: Kind
    name: str
    source: Path
    size: tuple[int, int]


def receive(file: BinaryIO, name: str, folder: Path, limits: Limits) -> tuple[Upload, Picture]:
    """Copies an uploaded file into `folder` and reads it; also returns the picture, or the first frame.

    Args:
        file: open at its start.
        name: as the client gave it; never used to open anything.
        folder: an existing folder that only this file uses.
        limits: the limits of pixels and of the length of a clip.

    Raises:
        Refused: 415 if its format is not supported, 413 if it exceeds the limits, 422 if it is damaged.
    """
    head = file.read(HEAD)
    kind, suffix = kind_and_suffix(head, Path(safe_name(name)).suffix)
    name = safe_name(name, suffix)
    source = folder / f"rainy{suffix}"
    file.seek(0)
    with source.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    try:
        first = read_picture(source, limits.pixels) if kind == "picture" else _read_clip(source, limits)
    except TooManyPixels as error:
        raise Refused(413, str(error).replace(str(source), name)) from None
    except Refused as error:
        raise Refused(error.status, f"{name}: {error}") from None
    except DerainError as error:
        raise Refused(422, str(error).replace(str(source), name)) from None
    return Upload(kind, name, source, first.size), first


def kind_and_suffix(head: bytes, suffix: str) -> tuple[Kind, str]:
    """The kind and the extension of a file by its first bytes.

    Args:
        head: the first `kinds.HEAD` bytes.
        suffix: the extension of the name that the client gave; kept if it fits the content.

    Raises:
        Refused: 415 if the format is not supported.
    """
    kind = kind_of(head)
    if kind is None:
        raise Refused(415, "neither a known kind of picture (PNG, JPEG, ...) nor of clip (MP4, MOV, ...).")
    if not kind.is_read:
        raise Refused(415, f"{kind.name} is not supported; {kind.other}.")
    if kind.media == "picture":
        return "picture", _fitting(suffix, [known for known in kind.extensions if known in FORMATS], kind)
    return "clip", _fitting(suffix, [known for known in kind.extensions if known in VIDEO_KINDS], kind)


def _fitting(suffix: str, written: list[str], kind: FileKind) -> str:
    return suffix if suffix.lower() in written else kind.result


def safe_name(name: str, suffix: str | None = None) -> str:
    """The last part of a client's path without what file systems forbid; with another extension if given."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join("_" if sign in FORBIDDEN else sign for sign in last if sign.isprintable())
    path = Path(kept.strip(" .") or "picture")
    stem = path.stem.encode()[:NAME_BYTES].decode(errors="ignore").strip(" .") or "picture"
    return stem + (path.suffix[:10] if suffix is None else suffix)


def safe_folder(path: str) -> str:
    """The folders of a client's path, each made harmless, joined by "/"; "" for none."""
    parts = [part for part in path.replace("\\", "/").split("/") if part.strip(" .")]
    return "/".join(safe_name(part).strip(" .") for part in parts)[:FOLDER_LENGTH].strip(" ./")


def _read_clip(source: Path, limits: Limits) -> Picture:
    with open_video(source) as container:
        stream = video_stream(container, source)
        _refuse_large(stream.width, stream.height, limits)
    facts = video_facts(source)
    _refuse_large(facts.width, facts.height, limits)  # the header may be wrong
    seconds = clip_seconds(facts)
    if seconds > limits.clip_seconds:
        raise Refused(413, f"lasts {seconds:,.0f} s; clips of up to {limits.clip_seconds:g} s are accepted.")
    return first_frame(facts)


def _refuse_large(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise Refused(
            413,
            f"frames of {width:,} x {height:,} pixels; up to "
            f"{limits.pixels / 1e6:g} megapixels are accepted.",
        )


def clip_seconds(facts: VideoFacts) -> float:
    """The duration that a clip states, in seconds; 0 if it states none."""
    by_count = facts.packets / facts.rate if facts.packets else 0
    return max(float(by_count), facts.duration or 0)


def first_frame(facts: VideoFacts) -> Picture:
    """The first frame of a clip, upright. Raises `DerainError` if it cannot be read."""
    frames = iter(VideoReader(facts))
    return Picture(next(frames).pixels)
