"""Pixels of TIFF files, of every depth, layout and compression.

No reader gets all of TIFF right, so libtiff (in Pillow) is used for only two things, on a copy of
the file with one directory that states only the layout of the pixels: to decompress bytes, which are declared
as 8-bit grey, while depths, predictors and planes are undone here; and to convert pixels that are more than
numbers (palettes, inks, JPEG inside TIFF, fax, 1 to 4 bits of grey).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import TiffImagePlugin

from derain.errors import DerainError
from derain.pictures import tags
from derain.pictures.decoding import (
    BECAME_8,
    BECAME_16,
    colours_and_alpha,
    left_behind,
    unsupported_pixels,
    with_supported_pixels,
)
from derain.pictures.picture import Array
from derain.pictures.tags import Tag

GROUP_BYTES = 1 << 24  # bytes of a file that are decompressed at once
HEADER_BYTES = 8
YCBCR = (Tag.YCBCR_COEFFICIENTS, Tag.YCBCR_SUBSAMPLING, Tag.YCBCR_POSITIONING, Tag.REFERENCE_BLACK_WHITE)
# Where the parts of the pixels are, how many bytes each has, and how many rows.
STRIPS = (Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS, Tag.ROWS_PER_STRIP)
TILES = (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS, Tag.TILE_LENGTH)
# Tags whose meaning is undone here, or does not matter to plain numbers.
INTERPRETATION = {
    *(Tag.PREDICTOR, Tag.PLANAR_CONFIGURATION, Tag.EXTRA_SAMPLES, Tag.SAMPLE_FORMAT, Tag.COLOR_MAP),
    *(Tag.INK_SET, *YCBCR),
}
# Tags that libtiff needs for pixels.
PIXEL_TAGS = {
    *(Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH, Tag.BITS_PER_SAMPLE, Tag.SAMPLES_PER_PIXEL, Tag.COMPRESSION),
    *(*STRIPS, *TILES, Tag.TILE_WIDTH, Tag.FILL_ORDER, Tag.T4_OPTIONS, Tag.T6_OPTIONS, Tag.PHOTOMETRIC),
    *(*INTERPRETATION, Tag.JPEG_TABLES, *range(512, 522)),  # the last: JPEG as in TIFF 6.0
}
# Compressions that libtiff undoes: none, LZW, deflate (two numbers), PackBits, LZMA, Zstandard.
BYTEWISE = {1, 5, 8, 32946, 32773, 34925, 50000}
# Compressions that cannot be read: libtiff knows some of them, but not in Pillow's wheels.
UNREAD = {
    **{33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of DNG"},
    **{22610: "JPEG XR", 34934: "JPEG XR", 34933: "PNG", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"},
}
WITH_PREDICTOR = {5, 8, 32946, 34925, 50000}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSIGNED, FLOAT = 1, 3


def _silence_libtiff() -> None:
    """Keeps the libtiff in Pillow's wheels from writing to the terminal what Pillow raises anyway."""
    place = Path(PIL.__file__).parent
    for folder in (place.parent / "pillow.libs", place / ".dylibs"):
        for library in folder.glob("libtiff*"):
            with contextlib.suppress(OSError, AttributeError):
                loaded = ctypes.CDLL(str(library))
                for setter in (loaded.TIFFSetErrorHandler, loaded.TIFFSetWarningHandler):
                    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
                    setter(None)


_silence_libtiff()


@dataclass(frozen=True)
class Layout:
    """How a file stores its pixels.

    Attributes:
        width, height: the size in pixels.
        bits: bits per sample.
        samples: samples per pixel, colours first.
        photometric: what the first samples mean: `WHITE_IS_ZERO`, `BLACK_IS_ZERO`, `RGB` or another one.
        compression: TIFF's number for it.
        format: `UNSIGNED`, `FLOAT` or another one.
        separate: whether each sample has its own plane.
        predictor: what was done before compression: 1 nothing, 2 differences, 3 differences of floats.
        extra: what the samples after the colours are: 1 premultiplied alpha, 2 straight alpha, 0 any other.
        tile: (width, height) of a tile; None for strips.
    """

    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    compression: int
    format: int
    separate: bool
    predictor: int
    extra: tuple[int, ...]
    tile: tuple[int, int] | None

    @property
    def colours(self) -> int:
        """How many samples of a pixel are colours: 3 or 1."""
        return 3 if self.photometric == RGB else 1

    @property
    def part_width(self) -> int:
        """Width of a strip or tile in pixels; the last tile of a row may reach beyond the picture."""
        return self.width if self.tile is None else self.tile[0]

    @property
    def across(self) -> int:
        """How many strips or tiles are side by side."""
        return -(-self.width // self.part_width)


def layout_of(first: tags.Directory, order: tags.Order) -> Layout:
    """The layout that a directory states. Raises `ValueError` for one that is impossible or incomplete."""

    def number(tag: int, otherwise: int | None = None) -> int:
        found = first.number(tag, order)
        value = otherwise if found is None else found
        if value is None:
            raise ValueError(f"its tag {tag} is missing or cannot be read")
        return int(value)

    def numbers(tag: int, otherwise: tuple[float, ...]) -> tuple[float, ...]:
        return first.entries[tag].numbers(order) if tag in first.entries else otherwise

    bits, formats = numbers(Tag.BITS_PER_SAMPLE, (1,)), numbers(Tag.SAMPLE_FORMAT, (UNSIGNED,))
    extra = numbers(Tag.EXTRA_SAMPLES, ())
    if len(set(bits)) != 1 or len(set(formats)) != 1:
        raise ValueError("channels of different depths")
    tiled = Tag.TILE_WIDTH in first.entries
    layout = Layout(
        width=number(Tag.IMAGE_WIDTH),
        height=number(Tag.IMAGE_LENGTH),
        bits=int(bits[0]),
        samples=number(Tag.SAMPLES_PER_PIXEL, 1),
        photometric=number(Tag.PHOTOMETRIC, BLACK_IS_ZERO),
        compression=number(Tag.COMPRESSION, 1),
        format=int(formats[0]) if formats[0] != 4 else UNSIGNED,  # 4: undefined
        separate=number(Tag.PLANAR_CONFIGURATION, 1) == 2 and number(Tag.SAMPLES_PER_PIXEL, 1) > 1,
        predictor=number(Tag.PREDICTOR, 1) if number(Tag.COMPRESSION, 1) in WITH_PREDICTOR else 1,
        extra=tuple(int(kind) for kind in extra),
        tile=(number(Tag.TILE_WIDTH), number(Tag.TILE_LENGTH)) if tiled else None,
    )
    if min(layout.width, layout.height, layout.samples, layout.bits) < 1 or layout.samples > 64:
        raise ValueError("an impossible layout of pixels")
    if layout.tile is not None and min(layout.tile) < 1:
        raise ValueError("tiles of no size")
    return layout


@dataclass(frozen=True)
class Decoded:
    """The pixels of a file, as stored.

    Attributes:
        pixels: (H, W, 1 or 3) uint8 or uint16, black at 0.
        alpha: (H, W) of the same type, straight, or None.
        lost: what was left out or changed, in words.
        was_cmyk: whether colours were inks.
    """

    pixels: Array
    alpha: Array | None
    lost: tuple[str, ...]
    was_cmyk: bool = False


def decode(
    content: bytes, head: tags.Header, first: tags.Directory, layout: Layout, name: str, max_pixels: int
) -> Decoded:
    """The pixels that a file's first directory describes.

    Raises:
        DerainError: they are compressed or stored in an unsupported way, or outside [0, 1].
        ValueError: they are damaged or truncated.
    """
    _expect_all_pixels(first, head.order, len(content))
    if layout.compression in UNREAD:
        raise DerainError(
            f"{name}: a TIFF compressed as {UNREAD[layout.compression]}, which is not supported; save it "
            "with deflate or LZW."
        )
    if layout.compression in BYTEWISE and layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        if layout.format not in (UNSIGNED, FLOAT) or (layout.format == UNSIGNED and layout.bits > 16):
            sign = "signed" if layout.format == 2 else "unsigned"
            raise unsupported_pixels(name, f"{layout.bits} bits, {sign}")
        return _numbers(content, head, first, layout, name)
    return _converted(content, head.order, first, layout, name, max_pixels)


def _converted(
    content: bytes, order: tags.Order, first: tags.Directory, layout: Layout, name: str, max_pixels: int
) -> Decoded:
    """Pixels that are more than numbers, as Pillow converts them."""
    described = {tag: entry for tag, entry in first.entries.items() if tag in PIXEL_TAGS}
    file = _reduced_copy(content, order, described)
    image = with_supported_pixels(TiffImagePlugin.TiffImageFile(file, name), name, max_pixels)
    if layout.bits > 8:
        kind = f"{layout.bits} bits, photometric interpretation {layout.photometric}"
        raise unsupported_pixels(name, kind)
    pixels, alpha = colours_and_alpha(image)
    return Decoded(pixels, alpha, left_behind(image.mode), image.mode == "CMYK")


def _expect_all_pixels(first: tags.Directory, order: tags.Order, length: int) -> None:
    """Detects a truncated file before the decoder does, which would write to the terminal."""
    for offsets, sizes, _ in (STRIPS, TILES):
        if offsets in first.entries and sizes in first.entries:
            parts = zip(
                first.entries[offsets].numbers(order), first.entries[sizes].numbers(order), strict=False
            )
            end = max((offset + size for offset, size in parts), default=0)
            if end > length:
                raise ValueError(f"pixels up to byte {int(end):,} of {length:,}")


def _reduced_copy(content: bytes, order: tags.Order, entries: dict[int, tags.Entry]) -> io.BytesIO:
    """The file as a classic TIFF with only these tags, in one directory at its end."""
    classic = {}
    for tag, entry in entries.items():
        if tags.SIZES[entry.kind] == 8 and entry.kind >= 16:  # of BigTIFF
            entry = tags.numbers(tags.LONG, order, entry.numbers(order))
        classic[tag] = entry
    stream = io.BytesIO(content)
    start = stream.seek(0, io.SEEK_END)
    start += stream.write(bytes(start % 2))
    stream.write(tags.as_bytes(tags.Directory(classic), order, start))
    stream.seek(0)
    stream.write(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start))
    stream.seek(0)
    return stream


def _numbers(content: bytes, head: tags.Header, first: tags.Directory, layout: Layout, name: str) -> Decoded:
    """Pixels that are numbers, read without loss."""
    if layout.samples < layout.colours:
        raise ValueError(f"{layout.samples} channels where {layout.colours} are needed")
    samples = _samples(content, head, first, layout)
    pixels, lost = samples[..., : layout.colours], list[str]()
    kinds = dict(enumerate(layout.extra, layout.colours))
    place = next(
        (number for number, kind in kinds.items() if kind in (1, 2) and number < layout.samples), None
    )
    alpha = None if place is None else samples[..., place]
    left = layout.samples - layout.colours - (alpha is not None)
    if left:
        lost.append(f"{left} further channel{'s' if left > 1 else ''}")
    if layout.format == FLOAT:
        for values in (pixels, *([] if alpha is None else [alpha])):
            _expect_unit_range(values, name)
        lost.append(f"{layout.bits}-bit floating point (16 bits were read)")
        pixels, alpha = _of_16_bits(pixels), None if alpha is None else _of_16_bits(alpha)
    elif layout.bits == 16 and (bits := _bits_within(first, head.order, samples)):
        lost.append(f"words of 16 bits of which {bits} were used (stretched to 16)")
        stretched = ((1 << 16) - 1) / ((1 << bits) - 1)
        pixels = np.rint(pixels * stretched).astype(np.uint16)
        alpha = None if alpha is None else np.rint(alpha * stretched).astype(np.uint16)
    elif layout.bits not in (8, 16):
        depth = "1 bit" if layout.bits == 1 else f"{layout.bits} bits"
        lost.append(f"{depth} per channel{BECAME_16 if pixels.itemsize == 2 else BECAME_8}")
    largest = np.iinfo(pixels.dtype).max
    if alpha is not None and place is not None and kinds[place] == 1:  # premultiplied
        wide = pixels.astype(np.uint32) * largest
        pixels = np.minimum(np.round(wide / np.maximum(alpha, 1)[..., None]), largest).astype(alpha.dtype)
    if layout.photometric == WHITE_IS_ZERO:
        pixels = largest - pixels
    alpha = None if alpha is None else np.ascontiguousarray(alpha)
    return Decoded(np.ascontiguousarray(pixels), alpha, tuple(lost))


def _bits_within(first: tags.Directory, order: tags.Order, samples: Array) -> int | None:
    """How many bits of 16-bit words are used, if the file says so: a maximum of 4095 means 12."""
    found = (
        first.entries[Tag.MAX_SAMPLE_VALUE].numbers(order) if Tag.MAX_SAMPLE_VALUE in first.entries else ()
    )
    most = {int(value) for value in found}
    bits = next((bits for bits in range(9, 16) if most == {(1 << bits) - 1}), None)
    return bits if bits is not None and samples.max() < 1 << bits else None


def _of_16_bits(values: Array) -> Array:
    """Floats in [0, 1] as uint16."""
    result = np.empty(values.shape, np.uint16)
    for row, some in zip(result, values, strict=True):
        row[:] = np.rint(some.astype(np.float64) * 65535)
    return result


def _expect_unit_range(values: Array, name: str) -> None:
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or math.isnan(high):
        raise DerainError(f"{name}: floating-point pixels that are not numbers (nan); replace them first.")
    if not (low >= 0 and high <= 1):
        raise DerainError(
            f"{name}: floating-point pixels from {low:.4g} to {high:.4g}; bring them into 0 to 1 first."
        )


def _samples(content: bytes, head: tags.Header, first: tags.Directory, layout: Layout) -> Array:
    """(H, W, samples) of uint8, uint16 or a float type, as numbers over the full range."""
    entries = {tag: entry for tag, entry in first.entries.items() if tag in PIXEL_TAGS}
    if not layout.separate:
        return _plane(content, head, entries, layout, layout.samples)
    planes = []
    offsets, sizes, _ = TILES if layout.tile else STRIPS
    share = entries[offsets].count // layout.samples
    for number in range(layout.samples):
        part = dict(entries)
        for tag in (offsets, sizes):
            size = tags.SIZES[entries[tag].kind]
            value = entries[tag].value[number * share * size : (number + 1) * share * size]
            part[tag] = tags.Entry(entries[tag].kind, value)
        planes.append(_plane(content, head, part, layout, 1))
    return np.concatenate(planes, axis=2)


def _plane(
    content: bytes, head: tags.Header, entries: dict[int, tags.Entry], layout: Layout, samples: int
) -> Array:
    """(H, W, samples): what libtiff decompresses as if it were grey bytes, converted to numbers."""
    bits, width = layout.bits * samples, layout.part_width
    if layout.tile is not None and width * bits % 8:
        raise ValueError("tiles whose rows end inside a byte")
    size = (width * bits + 7) // 8  # bytes of a row of a strip or tile
    row = layout.across * size
    described = _as_grey_bytes(entries, head.order, row, size)
    whole, top = None, 0
    for packed in _packed_rows(content, head, described, layout, row):
        for number in range(layout.across):
            x = number * width
            part = packed[:, number * size : (number + 1) * size]
            values = _unpacked(part, width, samples, layout, head.order)
            if whole is None:
                whole = np.empty((layout.height, layout.width, samples), values.dtype)
            whole[top : top + len(packed), x : x + width] = values[:, : layout.width - x]
        top += len(packed)
    assert whole is not None
    return whole


def _as_grey_bytes(
    entries: dict[int, tags.Entry], order: tags.Order, row: int, tile_row: int
) -> dict[int, tags.Entry]:
    """The tags of the same parts as 8-bit grey, with `row` bytes per row, `tile_row` per row of a tile."""
    described = {tag: entry for tag, entry in entries.items() if tag not in INTERPRETATION}
    for tag, value in (
        (Tag.BITS_PER_SAMPLE, 8),
        (Tag.SAMPLES_PER_PIXEL, 1),
        (Tag.PHOTOMETRIC, BLACK_IS_ZERO),
    ):
        described[tag] = tags.numbers(tags.SHORT, order, [value])
    described[Tag.IMAGE_WIDTH] = tags.numbers(tags.LONG, order, [row])
    if Tag.TILE_WIDTH in entries:
        described[Tag.TILE_WIDTH] = tags.numbers(tags.LONG, order, [tile_row])
    return described


def _packed_rows(
    content: bytes, head: tags.Header, described: dict[int, tags.Entry], layout: Layout, row: int
) -> Iterator[Array]:
    """(h, row) decompressed bytes, some rows of the picture at a time, from the top."""
    few = max(1, GROUP_BYTES // row)
    for file, height in _groups(content, head, described, layout, row):
        image = TiffImagePlugin.TiffImageFile(file)
        if image.size != (row, height):
            raise ValueError("fewer pixels than it says")
        # In strips, because Pillow makes arrays by copying the whole picture.
        for first in range(0, height, few):
            yield np.asarray(image.crop((0, first, row, min(first + few, height))))


def _groups(
    content: bytes, head: tags.Header, described: dict[int, tags.Entry], layout: Layout, row: int
) -> Iterator[tuple[io.BytesIO, int]]:
    """Files of some rows of the picture each, which libtiff can read, and how many rows they have.

    The whole picture is in one file if the source does not state properly where its strips or tiles are.
    """
    order, tiled = head.order, layout.tile is not None
    at, length, high = TILES if tiled else STRIPS
    offsets, sizes = (
        [int(n) for n in described[tag].numbers(order)] if tag in described else [] for tag in (at, length)
    )
    rows = min(int(tags.Directory(described).number(high, order) or layout.height), layout.height)
    across = layout.across
    if layout.compression == 1 and not tiled and len(offsets) == 1 and sizes == [layout.height * row]:
        # One strip of uncompressed bytes can be cut into any number of strips.
        rows = max(1, GROUP_BYTES // row)
        tops = range(0, layout.height, rows)
        offsets = [offsets[0] + top * row for top in tops]
        sizes = [min(rows, layout.height - top) * row for top in tops]
    usual = len(offsets) == len(sizes) == across * -(-layout.height // rows) and sum(sizes) <= len(content)
    if not usual or layout.height * row <= GROUP_BYTES:
        yield _reduced_copy(content, order, described), layout.height
        return
    together = max(1, GROUP_BYTES // (rows * row))
    for first in range(0, -(-layout.height // rows), together):
        parts = slice(first * across, (first + together) * across)
        height = min(together * rows, layout.height - first * rows)
        stored = b"".join(content[o : o + n] for o, n in zip(offsets[parts], sizes[parts], strict=True))
        places = [int(before) for before in np.cumsum([0, *sizes[parts][:-1]])]
        some = {
            **described,
            Tag.IMAGE_LENGTH: tags.numbers(tags.LONG, order, [height]),
            at: tags.numbers(tags.LONG, order, [HEADER_BYTES + place for place in places]),
            length: tags.numbers(tags.LONG, order, sizes[parts]),
            high: tags.numbers(tags.LONG, order, [rows]),
        }
        yield _reduced_copy(bytes(HEADER_BYTES) + stored, order, some), height


def _unpacked(packed: Array, width: int, samples: int, layout: Layout, order: tags.Order) -> Array:
    """(H, bytes) -> (H, width, samples), with the predictor undone and integers stretched to 8 or 16 bits."""
    height, bits = packed.shape[0], layout.bits
    if layout.format == FLOAT:
        return _floats(packed, width, samples, layout, order)
    if bits in (8, 16):
        dtype = np.dtype(f"{order}u{bits // 8}")
        values = np.ascontiguousarray(packed).view(dtype).reshape(height, width, samples)
        values = values.astype(dtype.newbyteorder("="), copy=False)
        return np.cumsum(values, axis=1, dtype=values.dtype) if layout.predictor == 2 else values
    if layout.predictor != 1:
        raise ValueError(f"a predictor on {bits} bits")
    digits = np.unpackbits(np.ascontiguousarray(packed), axis=1)[:, : width * samples * bits]
    values = np.zeros((height, width * samples), np.uint32)
    for number in range(bits):
        values = (values << 1) | digits[:, number::bits]
    largest, full = (1 << bits) - 1, 255 if bits < 8 else 65535
    stretched = (values * full + largest // 2) // largest
    return stretched.astype(np.uint8 if bits < 8 else np.uint16).reshape(height, width, samples)


def _floats(packed: Array, width: int, samples: int, layout: Layout, order: tags.Order) -> Array:
    """Predictor 3 (Adobe, TIFF Technical Note 3): byte planes from the highest on, then differences."""
    size = layout.bits // 8
    if layout.bits not in (16, 32, 64):
        raise ValueError(f"{layout.bits}-bit floating point")
    values = np.ascontiguousarray(packed)
    if layout.predictor == 3:
        steps = values.reshape(len(values), width * size, samples)
        values = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(len(values), size, width * samples)
        values, order = np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(len(packed), -1), ">"
    elif layout.predictor == 2:
        whole = values.view(f"{order}u{size}").reshape(len(values), width, samples)
        values = np.cumsum(whole, axis=1, dtype=whole.dtype).astype(whole.dtype)
    return values.view(f"{order}f{size}").reshape(len(packed), width, samples)
