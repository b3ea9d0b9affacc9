"""Writes still pictures, completely or not at all, and reports what their format cannot hold."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from derain.atomic import new_file
from derain.errors import DerainError, UsageError, first_line
from derain.pictures import avif, bmp, jpeg, png, tiff, webp
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import BECAME_16
from derain.pictures.picture import Array, Picture, to_8_bits

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
HOLD_16_BITS = {"PNG", "TIFF"}
HOLD_GREY = {"PNG", "JPEG", "TIFF", "BMP"}
HOLD_ALPHA = {"PNG", "TIFF", "WebP", "AVIF"}
# Attributes of a `Picture` that only some formats hold, what they are called, and which formats these are.
CARRIED: dict[str, tuple[str, set[str]]] = {
    "exif": ("EXIF", {"PNG", "JPEG", "WebP", "TIFF", "AVIF"}),
    "icc": ("its colour profile", {"PNG", "JPEG", "WebP", "TIFF", "AVIF"}),
    "dpi": ("its resolution", {"PNG", "JPEG", "TIFF", "BMP"}),
    "xmp": ("XMP", {"PNG", "JPEG", "WebP", "TIFF", "AVIF"}),
    "iptc": ("IPTC", {"PNG", "JPEG", "TIFF"}),
    "texts": ("its texts", {"PNG", "JPEG"}),
    "colour": ("what its colours mean (cICP)", {"PNG", "AVIF"}),
    "colour_chunks": ("what its colours mean", {"PNG"}),
}
CHUNK_WORDS = {b"gAMA": "gamma", b"cHRM": "primaries", b"mDCV": "mastering display", b"cLLI": "light levels"}
SRGB_GAMMA = 45455  # in gAMA's hundred thousandths
WRITERS: dict[str, Callable[[Picture, Array], bytes]] = {
    "PNG": png.write,
    "WebP": webp.write,
    "BMP": bmp.write,
    "AVIF": avif.write,
}
# XMP about what is no longer in the file: gain maps, clips of motion photos, thumbnails.
STALE_ATTRIBUTES = re.compile(rb"""\s(?:hdrgm|HDRGainMap|GCamera):(?:\w*)\s*=\s*(?:"[^"]*"|'[^']*')""")
STALE_ELEMENTS = (b"Container:Directory", b"xmp:Thumbnails", b"xap:Thumbnails")
XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[1-8]""")


def write_picture(path: str | Path, picture: Picture, jpeg_quality: int | None = None) -> tuple[str, ...]:
    """Writes a picture in the format of the extension, completely or not at all; replaces an existing file.

    PNG, TIFF and BMP are lossless, and so is WebP if the source was. A JPEG is compressed like its source,
    unless a quality is given or the source was not a JPEG: then at 95 and full colour resolution (4:4:4). PNG
    and TIFF keep 16 bits, the others get 8, rounded. WebP and AVIF have no grey and hold it as RGB, as do
    PNG and TIFF for 16-bit grey with alpha. JPEG and BMP have no alpha: one that is opaque throughout is
    left out, and any other is refused.

    Returns:
        What `picture` or its source contained that the file does not, in words; nothing is lost silently.

    Raises:
        UsageError: the extension is unknown, or the quality outside 1 to 100.
        DerainError: the format cannot hold the picture, the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    with _named(path):
        write, notes = _encoding(picture, path.suffix, jpeg_quality)
    with new_file(path) as temporary, temporary.open("wb") as file, _named(path):
        write(file)
    return notes


def left_out(lost: Sequence[str]) -> str:
    """What `write_picture` returns, as a note to the user; "" if nothing is lost."""
    return f"left out: {', '.join(lost)}" if lost else ""


def encode_picture(picture: Picture, extension: str, jpeg_quality: int | None = None) -> bytes:
    """The bytes of the file that `write_picture` writes; raises the same."""
    buffer = io.BytesIO()
    _encoding(picture, extension, jpeg_quality)[0](buffer)
    return buffer.getvalue()


def _encoding(
    picture: Picture, extension: str, jpeg_quality: int | None
) -> tuple[Callable[[BinaryIO], object], tuple[str, ...]]:
    """A function that writes a picture to a file, and what is left out. TIFF, which may be large, is encoded
    while it is written, all other formats before."""
    name = FORMATS.get(extension.lower())
    if name is None:
        named = f"as '{extension}'" if extension else "without an extension"
        raise UsageError(f"pictures cannot be written {named}; use one of {', '.join(FORMATS)}.")
    if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
        raise UsageError(f"JPEG quality {jpeg_quality} is outside 1 to 100.")
    samples = _samples(picture, name)
    fitted, lost = _fitted(picture, name, samples)
    if name == "TIFF":
        return lambda file: _write_tiff(file, fitted, samples), lost
    with _encoders_errors(name):
        content = (
            jpeg.write(fitted, samples, jpeg_quality) if name == "JPEG" else WRITERS[name](fitted, samples)
        )
    return lambda file: file.write(content), lost


def _write_tiff(file: BinaryIO, picture: Picture, samples: Array) -> None:
    with _encoders_errors("TIFF", OSError):  # an OSError is about the file, not its encoder
        tiff.write(file, picture, samples)


@contextmanager
def _encoders_errors(name: str, *others: type[Exception]) -> Iterator[None]:
    """Turns whatever an encoder raises, except for these others, into a `DerainError`."""
    try:
        yield
    except others:
        raise
    except MemoryError:
        raise DerainError(f"not enough memory to write it as {name}.") from None
    except Exception as error:  # encoders raise anything on odd sizes
        raise DerainError(f"cannot be written as {name} ({first_line(error)}).") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Prefixes errors with the file's name."""
    try:
        yield
    except DerainError as error:
        raise type(error)(f"{path}: {error}") from None


def _samples(picture: Picture, name: str) -> Array:
    """(H, W, 1 to 4): colours and alpha as the format `name` stores them."""
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None and name not in HOLD_ALPHA:
        if (alpha != picture.largest).any():
            raise DerainError(
                f"not written: {name} cannot hold the picture's transparency; PNG, TIFF, WebP and AVIF can."
            )
        alpha = None
    if name not in HOLD_16_BITS:
        pixels = to_8_bits(pixels)
        alpha = None if alpha is None else to_8_bits(alpha)
    # OpenCV writes no such PNG, and few programs read such a TIFF, as 16-bit grey with alpha.
    if name not in HOLD_GREY or (alpha is not None and pixels.dtype == np.uint16):
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)
    if alpha is None:
        return pixels
    return np.concatenate([pixels, alpha[..., None]], axis=2)


def _fitted(picture: Picture, name: str, samples: Array) -> tuple[Picture, tuple[str, ...]]:
    """The parts of a picture that the format `name` can hold, made consistent, and the rest in words."""
    lost = list(picture.lost)
    if samples.dtype != picture.pixels.dtype:
        read = next((text for text in lost if text.endswith(BECAME_16)), f"16 bits per channel{BECAME_16}")
        lost = [text for text in lost if text != read]
        lost.append(f"{read.removesuffix(BECAME_16)} ({name} holds 8)")
    if picture.icc is not None and picture.icc[16:20] != (b"RGB " if samples.shape[2] >= 3 else b"GRAY"):
        lost.append("its colour profile, which is not for these channels")
        picture = replace(picture, icc=None)
    for attribute, (words, formats) in CARRIED.items():
        if getattr(picture, attribute) and name not in formats:
            lost += _words(picture, attribute, words)
            nothing: Any = () if attribute in ("texts", "colour_chunks") else None
            picture = replace(picture, **{attribute: nothing})
    if picture.lossless and name in ("JPEG", "AVIF"):
        lost.append(f"its lossless compression ({name} is lossy)")
    if picture.exif is not None:
        picture = replace(picture, exif=exif_blocks.made_consistent(picture.exif, picture.pixels))
    if picture.exif is not None and name == "AVIF" and not avif.takes(picture.exif):
        lost.append("EXIF with odd values, which AVIF's encoder does not take")
        picture = replace(picture, exif=None)
    if picture.xmp is not None:
        picture = replace(picture, xmp=_current(picture.xmp))
    if name == "JPEG":
        lost += [f"{words}, too long for JPEG" for words in _too_long_for_jpeg(picture)]
        if jpeg.profile_too_long(picture.icc):
            picture = replace(picture, icc=None)
    return picture, tuple(dict.fromkeys(lost))


def _too_long_for_jpeg(picture: Picture) -> list[str]:
    """What does not fit into JPEG's segments, in words."""
    parts = {"EXIF": picture.exif, "XMP": picture.xmp, "IPTC": picture.iptc}
    found = [words for words, part in parts.items() if part and jpeg.too_long(part)]
    if any(jpeg.too_long(f"{text.keyword}: {text.text}".encode()) for text in picture.texts):
        found.append("a text")
    if jpeg.profile_too_long(picture.icc):
        found.append("its colour profile")
    return found


def _current(xmp: bytes) -> bytes:
    """An XMP packet without what describes the file that it came from."""
    for name in STALE_ELEMENTS:
        first, last, kept, at = b"<" + name + b">", b"</" + name + b">", list[bytes](), 0
        while (start := xmp.find(first, at)) >= 0 and (end := xmp.find(last, start)) >= 0:
            kept.append(xmp[at:start])
            at = end + len(last)
        xmp = b"".join([*kept, xmp[at:]])
    return XMP_ORIENTATION.sub(rb"\g<1>1", STALE_ATTRIBUTES.sub(b"", xmp))


def _words(picture: Picture, attribute: str, words: str) -> list[str]:
    """What is lost without an attribute; nothing if programs then assume the same."""
    if attribute == "colour":
        code = picture.colour
        if code is None or picture.icc is not None or (code.primaries, code.transfer) == (1, 13):
            return []
        return [f"what its colours mean (primaries {code.primaries}, transfer {code.transfer} of H.273)"]
    if attribute == "colour_chunks":
        chunks = dict(picture.colour_chunks)
        assumed = b"sRGB" in chunks or picture.icc is not None or picture.colour is not None
        for kind in (b"gAMA", b"cHRM") if assumed else ():
            chunks.pop(kind, None)
        if chunks.get(b"gAMA") == struct.pack(">I", SRGB_GAMMA):
            chunks.pop(b"gAMA")
        named = [CHUNK_WORDS[kind] for kind in chunks if kind in CHUNK_WORDS]
        return [f"what its colours mean ({', '.join(named)})"] if named else []
    if attribute == "dpi" and exif_blocks.holds_resolution(picture.exif):
        return []
    return [words]
