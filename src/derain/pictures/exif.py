"""EXIF: reads it, makes it consistent with a picture, and moves it to and from TIFF files.

Blocks are changed in place, without a new layout, as the maker notes of cameras hold offsets that would
break.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from derain.pictures import tags
from derain.pictures.picture import Array, to_8_bits
from derain.pictures.tags import Tag

PREFIX = b"Exif\0\0"
# Sizes in pixels: of the first directory, and of the EXIF directory.
WIDTHS, HEIGHTS = {Tag.IMAGE_WIDTH, Tag.PIXEL_X_DIMENSION}, {Tag.IMAGE_LENGTH, Tag.PIXEL_Y_DIMENSION}
THUMBNAIL_SIDES = (160, 112, 80, 48, 24)  # in pixels, tried in turn
UNCOMPRESSED = (Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS)  # of thumbnails
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# Tags of a TIFF file that lay out its pixels, or that a `Picture` holds elsewhere; all others describe it.
LAYOUT = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284),
    *(288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328),
    *(330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 343, 346, 347, *range(512, 522)),
    *(529, 530, 531, 532, 559),
}
# Photoshop's layers are among them, as they hold the rainy picture in parts.
ELSEWHERE = {*LAYOUT, Tag.XMP, Tag.IPTC, Tag.PHOTOSHOP, Tag.ICC, Tag.PHOTOSHOP_LAYERS}


def upright(exif: bytes) -> tuple[bytes | None, int]:
    """EXIF with orientation 1 and the usual prefix, and the orientation it had (1 to 8).

    Unreadable EXIF becomes (None, 1), as it describes nothing and other programs fail on it.
    """
    block = bytearray(exif.removeprefix(PREFIX))
    orientation = 1
    try:
        head = tags.header(block)
        first = tags.directory(bytes(block), head, head.first)
        entry = first.entries.get(Tag.ORIENTATION)
        if entry is not None and entry.kind in (tags.SHORT, tags.LONG):
            orientation = int(entry.numbers(head.order)[0])
            struct.pack_into(head.order + tags.NUMBERS[entry.kind], block, entry.place, 1)
    except ValueError:
        return None, 1
    return PREFIX + bytes(block), orientation if 1 <= orientation <= 8 else 1


def turned_upright(array: Array, orientation: int) -> Array:
    """(H, W, ...) stored with an EXIF orientation of 1 to 8, upright."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # After the swap: which axes run backwards, for orientations 1 to 8.
    rows = orientation in (3, 4, 7, 8)
    columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def made_consistent(exif: bytes, pixels: Array) -> bytes:
    """EXIF whose sizes and thumbnail are those of the picture; nothing of the old picture remains.

    The thumbnail is replaced if the new one fits into the place of the old one, and dropped otherwise.
    Previews in the maker notes of cameras are blanked.

    Args:
        exif: a block from `upright`.
        pixels: (H, W, 1 or 3) uint8 or uint16.
    """
    block = bytearray(exif.removeprefix(PREFIX))
    try:
        head = tags.header(block)
        first = tags.directory(bytes(block), head, head.first)
    except ValueError:
        return exif
    for found in (first, *first.nested.values()):
        _set_sizes(block, head, found, pixels.shape[1], pixels.shape[0])
    _blank_previews(block)
    if first.following:
        _new_thumbnail(block, head, first, pixels)
    return PREFIX + bytes(block)


def _blank_previews(block: bytearray) -> None:
    start = block.find(JPEG_START)
    while start >= 0 and (end := block.find(JPEG_END, start)) >= 0:
        block[start : end + 2] = bytes(end + 2 - start)
        start = block.find(JPEG_START, end)


def _new_thumbnail(block: bytearray, head: tags.Header, first: tags.Directory, pixels: Array) -> None:
    """Replaces the thumbnail, to which the second directory points, or cuts that directory off."""
    try:
        second = tags.directory(bytes(block), head, first.following, nested=False)
    except ValueError:
        second = tags.Directory({})
    offset = int(second.number(Tag.JPEG_INTERCHANGE_FORMAT, head.order) or 0)
    length = int(second.number(Tag.JPEG_INTERCHANGE_FORMAT_LENGTH, head.order) or 0)
    entry = second.entries.get(Tag.JPEG_INTERCHANGE_FORMAT_LENGTH)
    fits = entry is not None and entry.kind == tags.LONG and 0 < offset < offset + length <= len(block)
    thumbnail = _thumbnail(pixels, length) if fits else None
    if thumbnail is None:
        struct.pack_into(f"{head.order}I", block, first.link, 0)
    strip, size = (int(second.number(tag, head.order) or 0) for tag in UNCOMPRESSED)
    if 0 < strip < strip + size <= len(block):
        block[strip : strip + size] = bytes(size)
    if fits:
        block[offset : offset + length] = (thumbnail or b"").ljust(length, b"\0")
    if thumbnail is not None and entry is not None:
        struct.pack_into(f"{head.order}I", block, entry.place, len(thumbnail))
        orientation = second.entries.get(Tag.ORIENTATION)
        if orientation is not None and orientation.kind == tags.SHORT:
            struct.pack_into(f"{head.order}H", block, orientation.place, 1)
        width, height = Image.open(io.BytesIO(thumbnail)).size
        _set_sizes(block, head, second, width, height)


def _set_sizes(block: bytearray, head: tags.Header, found: tags.Directory, width: int, height: int) -> None:
    for wanted, size in ((WIDTHS, width), (HEIGHTS, height)):
        for tag in wanted & found.entries.keys():
            entry = found.entries[tag]
            if entry.kind == tags.LONG or (entry.kind == tags.SHORT and size < 1 << 16):
                struct.pack_into(head.order + tags.NUMBERS[entry.kind], block, entry.place, size)


def _thumbnail(pixels: Array, most_bytes: int) -> bytes | None:
    """A JPEG of at most this many bytes, its longer side 160 pixels or less; None if that is impossible."""
    step = max(1, max(pixels.shape[:2]) // (4 * THUMBNAIL_SIDES[0]))
    few = to_8_bits(pixels[::step, ::step])
    image = Image.fromarray(few.squeeze(2) if few.shape[2] == 1 else few)
    for side in THUMBNAIL_SIDES:
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        if buffer.tell() <= most_bytes:
            return buffer.getvalue()
    return None


def from_tiff(found: tags.Directory, order: tags.Order) -> bytes | None:
    """The descriptive tags of a TIFF file's directory, as an EXIF block without orientation."""
    described = tags.without(found, ELSEWHERE)
    inner = {pointer: tags.without(nested, ()) for pointer, nested in found.nested.items()}
    if not described.entries and not inner:
        return None
    return PREFIX + tags.block(tags.Directory(described.entries, inner), order)


def to_tiff(exif: bytes) -> tuple[tags.Directory, tags.Order] | None:
    """The tags of an EXIF block that belong in a TIFF file's directory, and their byte order."""
    block = exif.removeprefix(PREFIX)
    try:
        head = tags.header(block)
        first = tags.directory(block, head, head.first)
    except ValueError:
        return None
    return tags.without(first, ELSEWHERE), head.order


def holds_resolution(exif: bytes | None) -> bool:
    """Whether an EXIF block states a resolution."""
    read = None if exif is None else to_tiff(exif)
    return read is not None and Tag.X_RESOLUTION in read[0].entries
