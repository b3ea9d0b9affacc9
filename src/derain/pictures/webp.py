"""WebP (RFC 9649): chunks, and what they carry. Pillow decodes and encodes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image, WebPImagePlugin

from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import colours_and_alpha, with_supported_pixels
from derain.pictures.picture import Array, Picture

QUALITY = 95  # visually lossless
# Chunks that make up the pixels, and chunks that are carried.
PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
CARRIED = {b"ICCP": "icc", b"EXIF": "exif", b"XMP ": "xmp"}


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A WebP file's picture as stored, not yet turned upright."""
    held: dict[str, bytes] = {}
    lost, lossless = list[str](), False
    for kind, body in _chunks(content):
        lossless |= kind == b"VP8L"
        if kind in CARRIED:
            held.setdefault(CARRIED[kind], body)
        elif kind not in PIXELS and len(lost) < 20:
            lost.append(f"a {kind.decode('ascii', 'replace').strip()} chunk")
    if "exif" in held:
        held["exif"] = exif_blocks.PREFIX + held["exif"].removeprefix(exif_blocks.PREFIX)
    pixels, alpha = colours_and_alpha(
        with_supported_pixels(WebPImagePlugin.WebPImageFile(io.BytesIO(content), name), name, max_pixels)
    )
    return Picture(
        pixels,
        alpha,
        exif=held.get("exif"),
        icc=held.get("icc"),
        xmp=held.get("xmp"),
        lossless=lossless,
        lost=tuple(dict.fromkeys(lost)),
    )


def write(picture: Picture, samples: Array) -> bytes:
    """(H, W, 3 or 4) uint8 samples as a WebP file, lossless if the source was."""
    settings = (
        {"lossless": True, "exact": True} if picture.lossless else {"quality": QUALITY, "alpha_quality": 100}
    )
    held = {"exif": picture.exif, "icc_profile": picture.icc, "xmp": picture.xmp}
    buffer = io.BytesIO()
    given = {key: value for key, value in held.items() if value is not None}
    Image.fromarray(samples).save(buffer, "WebP", **settings, **given)
    return buffer.getvalue()


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        yield kind, content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
