"""Directories of tags in TIFF files and EXIF blocks: read within bounds, laid out again, values untouched.

A directory is a list of (tag, type, count, value); values of more than four bytes (eight in BigTIFF) are
elsewhere in the block. TIFF 6.0, section 2; BigTIFF as libtiff describes it; Exif 2.32, section 4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

Order = Literal["<", ">"]
Buffer = bytes | bytearray | memoryview

# Bytes per value of each type: BYTE, ASCII, SHORT, LONG, RATIONAL, signed twins, FLOAT, DOUBLE, IFD,
# and those of BigTIFF: LONG8, SLONG8, IFD8.
SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
NUMBERS = {
    1: "B",
    3: "H",
    4: "I",
    13: "I",
    16: "Q",
    18: "Q",
    6: "b",
    8: "h",
    9: "i",
    17: "q",
    11: "f",
    12: "d",
}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
MOST_ENTRIES, MOST_BYTES = 4096, 64 << 20  # of one directory


class Tag(IntEnum):
    """Tags by their names in TIFF 6.0 and its supplements, Exif 2.32 and DNG 1.6."""

    NEW_SUBFILE_TYPE = 254
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    MAX_SAMPLE_VALUE = 281
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR_CONFIGURATION = 284
    T4_OPTIONS = 292
    T6_OPTIONS = 293
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_IFDS = 330
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    JPEG_INTERCHANGE_FORMAT = 513
    JPEG_INTERCHANGE_FORMAT_LENGTH = 514
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    YCBCR_POSITIONING = 531
    REFERENCE_BLACK_WHITE = 532
    XMP = 700
    IPTC = 33723
    PHOTOSHOP = 34377
    EXIF = 34665
    ICC = 34675
    GPS = 34853
    PHOTOSHOP_LAYERS = 37724
    PIXEL_X_DIMENSION = 40962
    PIXEL_Y_DIMENSION = 40963
    INTEROPERABILITY = 40965
    DNG_VERSION = 50706


POINTERS = (Tag.EXIF, Tag.GPS, Tag.INTEROPERABILITY)  # to directories inside directories


@dataclass(frozen=True)
class Entry:
    """A tag's value.

    Attributes:
        kind: its type, a key of `SIZES`.
        value: `count` values of that type, in the byte order of the block.
        place: where the value is in the block from which it was read; 0 for a new value.
    """

    kind: int
    value: Buffer
    place: int = 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.value) // SIZES[self.kind]

    def numbers(self, order: Order) -> tuple[float, ...]:
        """The values as numbers; rationals as quotients; none for text and undefined bytes."""
        if self.kind in (5, 10):
            flat = struct.unpack(f"{order}{2 * self.count}{'I' if self.kind == 5 else 'i'}", self.value)
            return tuple(a / b if b else 0.0 for a, b in zip(flat[::2], flat[1::2], strict=True))
        code = NUMBERS.get(self.kind)
        return () if code is None else struct.unpack(f"{order}{self.count}{code}", self.value)


@dataclass(frozen=True)
class Directory:
    """The tags of one directory.

    Attributes:
        entries: by tag, in the order of the file.
        nested: the directories that `POINTERS` among the tags point to.
        following: where the next directory is; 0 for none.
        unreadable: tags whose values have no known type or are outside the block.
        link: where `following` itself is stored.
    """

    entries: dict[int, Entry]
    nested: dict[int, Directory] = field(default_factory=dict)
    following: int = 0
    unreadable: tuple[int, ...] = ()
    link: int = 0

    def number(self, tag: int, order: Order) -> float | None:
        """The first number of a tag, None if it has none."""
        entry = self.entries.get(tag)
        numbers = () if entry is None else entry.numbers(order)
        return numbers[0] if numbers else None


@dataclass(frozen=True)
class Header:
    """The first bytes of a block: its byte order, whether it is a BigTIFF, where the first directory is."""

    order: Order
    big: bool
    first: int


def header(block: Buffer) -> Header:
    """The header of a block. Raises `ValueError` for a block that is not a TIFF structure."""
    start = bytes(block[:4])
    order: Order = "<" if start[:2] == b"II" else ">"
    try:
        if start in (b"II*\0", b"MM\0*"):
            return Header(order, False, *struct.unpack_from(f"{order}I", block, 4))
        if start in (b"II+\0", b"MM\0+"):
            return Header(order, True, *struct.unpack_from(f"{order}Q", block, 8))
    except struct.error:
        pass
    raise ValueError("no directory of tags")


def directory(block: Buffer, head: Header, offset: int, nested: bool = True) -> Directory:
    """The directory at `offset`.

    Raises:
        ValueError: it is outside the block, or implausibly large.
    """
    view, order = memoryview(block), head.order
    count_code, entry_code, inline = ("Q", "HHQ", 8) if head.big else ("H", "HHI", 4)
    step = 4 + 2 * inline
    try:
        (count,) = struct.unpack_from(order + count_code, view, offset)
        if count > MOST_ENTRIES:
            raise ValueError(f"a directory of {count:,} tags")
        start = offset + struct.calcsize(order + count_code)
        link = start + count * step
        entries, unreadable, total = dict[int, Entry](), list[int](), 0
        for at in range(start, link, step):
            tag, kind, number = struct.unpack_from(order + entry_code, view, at)
            size, place = SIZES.get(kind, 0) * number, at + 4 + inline
            if size > inline:
                (place,) = struct.unpack_from(order + "IQ"[head.big], view, place)
            if not size or place + size > len(view):
                unreadable.append(tag)
            else:
                total += size  # as many tags may share the same bytes
                entries.setdefault(tag, Entry(kind, view[place : place + size], place))
        if total > MOST_BYTES:
            raise ValueError(f"a directory of {total:,} bytes of tags")
        following = (
            struct.unpack_from(order + "IQ"[head.big], view, link)[0] if link + inline <= len(view) else 0
        )
    except struct.error:
        raise ValueError("a directory of tags outside the file") from None
    inner: dict[int, Directory] = {}
    for pointer in POINTERS if nested else ():
        entry = entries.pop(pointer, None)
        where = () if entry is None else entry.numbers(order)
        try:
            if where:
                # A pointer inside the directory to which it points would recurse for ever.
                inner[pointer] = directory(
                    block, head, int(where[0]), nested=pointer == Tag.EXIF and int(where[0]) != offset
                )
        except ValueError:
            unreadable.append(pointer)
    return Directory(entries, inner, following, tuple(unreadable), link)


def as_bytes(found: Directory, order: Order, start: int = 8) -> bytes:
    """A classic directory with its values and nested directories behind it, for the offset `start`.

    Entries of BigTIFF's types must not be among them.
    """
    entries = dict(found.entries)
    for pointer in found.nested:
        entries[pointer] = Entry(LONG, bytes(4))
    size = 2 + 12 * len(entries) + 4
    table, tail = [struct.pack(f"{order}H", len(entries))], bytearray()
    for tag, entry in sorted(entries.items()):
        if tag in found.nested:
            tail += bytes(len(tail) % 2)
            inner = start + size + len(tail)
            tail += as_bytes(found.nested[tag], order, inner)
            entry = Entry(LONG, struct.pack(f"{order}I", inner))
        value = bytes(entry.value)
        if len(value) > 4:
            tail += bytes(len(tail) % 2)  # values begin at even offsets
            place = start + size + len(tail)
            tail += value
            value = struct.pack(f"{order}I", place)
        table.append(struct.pack(f"{order}HHI", tag, entry.kind, entry.count) + value.ljust(4, b"\0"))
    return b"".join(table) + bytes(4) + bytes(tail) + bytes(len(tail) % 2)


def block(found: Directory, order: Order) -> bytes:
    """A whole block: header and directory."""
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8) + as_bytes(found, order)


def numbers(kind: int, order: Order, values: Iterable[float]) -> Entry:
    """An entry of SHORT, LONG or another plain number."""
    values = list(values)
    return Entry(kind, struct.pack(f"{order}{len(values)}{NUMBERS[kind]}", *values))


def rational(order: Order, value: float) -> Entry:
    """A RATIONAL entry, exact to a ten thousandth."""
    return Entry(RATIONAL, struct.pack(f"{order}2I", round(value * 10_000), 10_000))


def without(found: Directory, tags: Iterable[int]) -> Directory:
    """The directory without some of its tags, and without those that a classic block cannot hold."""
    left_out = set(tags)
    entries: Mapping[int, Entry] = found.entries
    kept = {tag: entry for tag, entry in entries.items() if tag not in left_out and entry.kind < 16}
    return Directory(kept, found.nested)
