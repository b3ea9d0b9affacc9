"""AVIF: boxes of ISO/IEC 14496-12 and 23008-12, and what they carry. Pillow decodes and encodes.

An `nclx` box states what the values of the pixels mean; Pillow neither reads nor writes it, so that is done
here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import AvifImagePlugin, Image

from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import colours_and_alpha, with_supported_pixels
from derain.pictures.picture import Array, ColourCode, Picture

QUALITY = 90  # visually lossless
NCLX = b"colrnclx"
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # and the bytes before their boxes
SRGB = ColourCode(1, 13)


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """An AVIF file's picture as stored, not yet turned upright."""
    colour, lost, lossless = None, [], False
    for kind, start, end in _boxes(content, 0, len(content), 0):
        body = content[start : min(end, start + 4096)]
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 11:
            primaries, transfer, matrix = struct.unpack_from(">HHH", body, 4)
            lossless |= matrix == 0
            if colour is None and (primaries, transfer) != (2, 2):  # 2: unspecified
                colour = ColourCode(primaries, transfer)
        elif kind == b"av1C" and len(body) >= 3 and body[2] & 0x40:
            lost.append(f"{12 if body[2] & 0x20 else 10} bits per channel, of which 8 were read")
        elif kind == b"iinf":
            lost += _items(body)
        elif kind in (b"mdcv", b"clli"):
            lost.append("its mastering display" if kind == b"mdcv" else "its light levels")
    image = with_supported_pixels(AvifImagePlugin.AvifImageFile(io.BytesIO(content), name), name, max_pixels)
    pixels, alpha = colours_and_alpha(image)
    exif, info = image.info.get("exif"), image.info
    if lossless:
        lost.append("its lossless compression")
    return Picture(
        pixels,
        alpha,
        exif=exif_blocks.PREFIX + exif.removeprefix(exif_blocks.PREFIX) if exif else None,
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        colour=colour,
        lost=tuple(dict.fromkeys(lost)),
    )


def write(picture: Picture, samples: Array) -> bytes:
    """(H, W, 3 or 4) uint8 samples as an AVIF file."""
    held = {"exif": picture.exif, "icc_profile": picture.icc, "xmp": picture.xmp}
    buffer = io.BytesIO()
    given = {key: value for key, value in held.items() if value is not None}
    Image.fromarray(samples).save(buffer, "AVIF", quality=QUALITY, subsampling="4:4:4", **given)
    content = bytearray(buffer.getvalue())
    if picture.colour is not None and (place := content.find(NCLX)) >= 0:
        struct.pack_into(">HH", content, place + len(NCLX), picture.colour.primaries, picture.colour.transfer)
    return bytes(content)


def takes(exif: bytes) -> bool:
    """Whether Pillow's encoder can handle an EXIF block: it rewrites it and fails on unusual types."""
    read = Image.Exif()
    try:
        read.load(exif)
        read.tobytes()
    except Exception:  # an unusual type may raise anything
        return False
    return True


def _items(body: bytes) -> list[str]:
    """What a file contains besides its picture, its transparency and what Pillow reads."""
    known = {b"tmap": "its HDR gain map", b"jumb": "content credentials"}
    return [words for kind, words in known.items() if kind in body]


def _boxes(content: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end of the content) of all boxes, including those inside `CONTAINERS`."""
    for _ in range(1000):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", content, at)
        start = at + 8
        if size == 1 and at + 16 <= end:
            (size,) = struct.unpack_from(">Q", content, start)
            start += 8
        stop = end if size == 0 else min(at + size, end)
        if stop < start:
            return
        yield kind, start, stop
        if kind in CONTAINERS and depth < 4:
            yield from _boxes(content, start + CONTAINERS[kind], stop, depth + 1)
        at = stop
