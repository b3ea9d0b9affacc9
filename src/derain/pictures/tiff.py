"""TIFF 6.0 and BigTIFF: pages, what they carry, and writing; `tiff_pixels.py` decodes pixels."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from derain.errors import DerainError
from derain.pictures import exif as exif_blocks
from derain.pictures import tags
from derain.pictures.decoding import INK_PROFILE, refuse_several, refuse_size
from derain.pictures.photoshop import iptc_of_photoshop, other_resources
from derain.pictures.picture import Array, Picture, without_pixels
from derain.pictures.tags import Tag
from derain.pictures.tiff_pixels import BLACK_IS_ZERO, RGB, decode, layout_of

STRIP_BYTES = 1 << 20  # of files that are written
LEVEL = 3  # of compression: two to three times as fast as zlib's default, for 3 % more bytes at most
MOST_PAGES = 1000
REDUCED, MASK = 1, 4
LITTLE: tags.Order = "<"
INCH, CENTIMETRE = 2, 3


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A TIFF file's picture as stored; `orientation`, not `exif`, states how to turn it."""
    head = tags.header(content)
    first = tags.directory(content, head, head.first)
    layout = layout_of(first, head.order)
    refuse_size(name, layout.width, layout.height, max_pixels)
    lost = _other_pages(content, head, first, name)
    decoded = decode(content, head, first, layout, name, max_pixels)
    lost += decoded.lost
    if decoded.was_cmyk and Tag.ICC in first.entries:
        del first.entries[Tag.ICC]
        lost.append(INK_PROFILE)
    return replace(_carried(first, head, lost), pixels=decoded.pixels, alpha=decoded.alpha)


def orientation(content: bytes) -> int:
    """How the pixels of a TIFF file are to be turned, 1 to 8."""
    head = tags.header(content)
    found = tags.directory(content, head, head.first, nested=False).number(Tag.ORIENTATION, head.order)
    return int(found) if found is not None and 1 <= found <= 8 else 1


def _other_pages(content: bytes, head: tags.Header, first: tags.Directory, name: str) -> list[str]:
    """What the directories after the first one contain; thumbnails are left out, pages refused."""
    kind = int(first.number(Tag.NEW_SUBFILE_TYPE, head.order) or 0)
    if kind & REDUCED:
        raise DerainError(
            f"{name}: starts with a preview, as raw camera files do; develop it to TIFF or JPEG."
        )
    lost, pages, seen, at = list[str](), 1, {head.first}, first.following
    while at and at not in seen and len(seen) < MOST_PAGES:
        seen.add(at)
        try:
            page = tags.directory(content, head, at, nested=False)
        except ValueError:
            break
        kind = int(page.number(Tag.NEW_SUBFILE_TYPE, head.order) or 0)
        if kind & REDUCED:
            lost.append("its smaller copies")
        elif kind & MASK:
            lost.append("its mask")
        else:
            pages += 1
        at = page.following
    refuse_several(name, pages, and_more=len(seen) == MOST_PAGES)
    if Tag.SUB_IFDS in first.entries:
        lost.append("its smaller copies")
    return list(dict.fromkeys(lost))


def _carried(first: tags.Directory, head: tags.Header, lost: list[str]) -> Picture:
    """What the directory contains besides the pixels."""

    def content(tag: int) -> bytes | None:
        entry = first.entries.get(tag)
        kinds = (tags.BYTE, tags.UNDEFINED, *((tags.LONG,) if tag == Tag.IPTC else ()))
        return bytes(entry.value) if entry is not None and entry.kind in kinds else None

    for tag, words in ((Tag.ICC, "a colour profile"), (Tag.XMP, "XMP")):
        if tag in first.unreadable or (tag in first.entries and content(tag) is None):
            lost.append(f"{words} that cannot be read")
    rest = [tag for tag in first.unreadable if tag not in {Tag.ICC, Tag.XMP, *exif_blocks.LAYOUT}]
    if rest:
        lost.append(f"tags that cannot be read ({', '.join(map(str, rest[:5]))})")
    if Tag.PHOTOSHOP_LAYERS in first.entries:
        lost.append("its layers")
    if others := other_resources(content(Tag.PHOTOSHOP) or b""):
        lost.append(others)
    return replace(
        without_pixels(),
        exif=exif_blocks.from_tiff(first, head.order),
        icc=content(Tag.ICC),
        dpi=_dpi(first, head.order),
        xmp=content(Tag.XMP),
        iptc=_iptc(content(Tag.IPTC), content(Tag.PHOTOSHOP)),
        lost=tuple(lost),
    )


def _iptc(iptc: bytes | None, photoshop: bytes | None) -> bytes | None:
    return iptc or (None if photoshop is None else iptc_of_photoshop(photoshop))


def _dpi(first: tags.Directory, order: tags.Order) -> tuple[float, float] | None:
    across, down, unit = (
        first.number(tag, order) for tag in (Tag.X_RESOLUTION, Tag.Y_RESOLUTION, Tag.RESOLUTION_UNIT)
    )
    if across is None or down is None or not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    if unit not in (None, INCH, CENTIMETRE):
        return None
    inch = 2.54 if unit == CENTIMETRE else 1.0
    return across * inch, down * inch


def write(file: BinaryIO, picture: Picture, samples: Array) -> None:
    """(H, W, 1 to 4) uint8 or uint16 samples as a TIFF file with everything that `picture` carries.

    The strips are deflated after horizontal differencing (predictor 2), in the byte order of the EXIF data;
    each is written before the next is made.

    Args:
        file: an empty, seekable file.
        picture: what else is written; its pixels are not used.
        samples: the pixels, with alpha after the colours.

    Raises:
        ValueError: the file would be too large for TIFF.
    """
    height, width, channels = samples.shape
    described = None if picture.exif is None else exif_blocks.to_tiff(picture.exif)
    found, order = (tags.Directory({}), LITTLE) if described is None else described
    rows = max(1, STRIP_BYTES // (width * channels * samples.itemsize))
    tops = range(0, height, rows)
    entries = found.entries | _entries(picture, samples, rows, order)

    def block(offsets: Sequence[int], sizes: Sequence[int]) -> bytes:
        entries[Tag.STRIP_OFFSETS] = tags.numbers(tags.LONG, order, offsets)
        entries[Tag.STRIP_BYTE_COUNTS] = tags.numbers(tags.LONG, order, sizes)
        return tags.block(tags.Directory(entries, found.nested), order)

    # The directory's length does not depend on the numbers in it.
    start = file.write(block([0] * len(tops), [0] * len(tops)))
    sizes = [file.write(zlib.compress(_differences(samples[top : top + rows], order), LEVEL)) for top in tops]
    if start + sum(sizes) >= 1 << 32:
        raise ValueError("larger than the 4 GB of a TIFF file")
    file.seek(0)
    file.write(block([start + int(before) for before in np.cumsum([0, *sizes[:-1]])], sizes))


def _entries(picture: Picture, samples: Array, rows: int, order: tags.Order) -> dict[int, tags.Entry]:
    """The tags of the layout, in strips of `rows` rows, and of what is carried outside of EXIF."""
    height, width, channels = samples.shape
    colours = 3 if channels >= 3 else 1
    short = {
        Tag.BITS_PER_SAMPLE: [8 * samples.itemsize] * channels,
        Tag.COMPRESSION: [8],
        Tag.PREDICTOR: [2],
        Tag.PHOTOMETRIC: [RGB if colours == 3 else BLACK_IS_ZERO],
        Tag.SAMPLES_PER_PIXEL: [channels],
        Tag.PLANAR_CONFIGURATION: [1],
        **({Tag.EXTRA_SAMPLES: [2]} if channels > colours else {}),  # straight alpha
        **({Tag.RESOLUTION_UNIT: [INCH]} if picture.dpi is not None else {}),
    }
    long = {Tag.IMAGE_WIDTH: width, Tag.IMAGE_LENGTH: height, Tag.ROWS_PER_STRIP: rows}
    entries: dict[int, tags.Entry] = {
        **{tag: tags.numbers(tags.SHORT, order, values) for tag, values in short.items()},
        **{tag: tags.numbers(tags.LONG, order, [value]) for tag, value in long.items()},
    }
    held = {Tag.ICC: picture.icc, Tag.XMP: picture.xmp, Tag.IPTC: picture.iptc}
    for tag, value in held.items():
        if value is not None:
            entries[tag] = tags.Entry(tags.UNDEFINED if tag != Tag.XMP else tags.BYTE, value)
    if picture.dpi is not None:
        resolutions = (tags.rational(order, value) for value in picture.dpi)
        entries |= dict(zip((Tag.X_RESOLUTION, Tag.Y_RESOLUTION), resolutions, strict=True))
    return entries


def _differences(rows: Array, order: tags.Order) -> bytes:
    """Each pixel minus its left neighbour, modulo the range."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return differences.astype(rows.dtype.newbyteorder(order), copy=False).tobytes()
