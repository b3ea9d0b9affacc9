"""JPEG XL (ISO/IEC 18181), by the optional package `pillow-jxl-plugin`.

What a file declares is read here, before anything is decoded. A frame may be larger than its picture: 954
bytes that declare 8 x 8 pixels kept the decoder busy for 28 s. It has no limits of its own, so it runs in a
process that has some.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.errors import DerainError
from derain.pictures import exif as exif_blocks
from derain.pictures import jpeg
from derain.pictures.decoding import BECAME_8, BECAME_16, refuse_size, unsupported_pixels
from derain.pictures.picture import Array, ColourCode, Picture

DECODER = Path(__file__).with_name("jxl_decoder.py")
CODESTREAM = b"\xff\x0a"
HEAD = 1 << 14  # bytes of the codestream that hold all declarations
MOST_CHANNELS = 4  # besides the colours, as level 5 of the standard allows
# Of the decoder: bytes of its address space and seconds of CPU time, for itself and for samples.
OWN_BYTES, BYTES_PER_SAMPLE = 512 << 20, 32
OWN_SECONDS, SAMPLES_PER_SECOND = 10, 1_000_000
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height
ALPHA, SPOT, BLACK, FILTER = 0, 2, 4, 5  # kinds of extra channels
CHANNELS = {1: "its depth map", SPOT: "its spot colours", 3: "its selection mask", 6: "its thermal picture"}
GREY, XYB = 1, 2  # colour spaces
D65, CUSTOM = 1, 2  # white points; custom primaries have the same number
PRIMARIES = {1: 1, 9: 9, 11: 12}  # in the numbers of JPEG XL -> of H.273, where the white is D65
SRGB, PQ, HLG = ColourCode(1, 13), 16, 18


@dataclass(frozen=True)
class CodestreamHeader:
    """What a codestream declares.

    Attributes:
        width, height: in pixels, as displayed.
        bits: of a sample.
        floats: whether samples are floats.
        animated: whether it is an animation, in which case the following attributes were not read.
        channels: the kinds of extra channels.
        premultiplied: whether the colours are multiplied by alpha.
        colour: what the samples mean; None if a profile states it.
        light_levels: whether it states how bright its white is.
        unusual: whether it is lossy with a profile that H.273 cannot express: then the decoder returns
            linear light, for which 8 bits are too few.
    """

    width: int
    height: int
    bits: int = 8
    floats: bool = False
    animated: bool = False
    channels: tuple[int, ...] = ()
    premultiplied: bool = False
    colour: ColourCode | None = SRGB
    light_levels: bool = False
    unusual: bool = False

    @property
    def samples(self) -> int:
        """Number of samples; colours count as three, even if grey."""
        return self.width * self.height * (3 + len(self.channels))


@dataclass(frozen=True)
class Decoded:
    """The decoder's output: samples, (H, W, C) uint8 or uint16, or a JPEG file, and boxes by their type."""

    samples: Array
    jpeg: bytes | None
    boxes: dict[str, bytes]


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A JPEG XL file's picture, upright. Grey of 9 to 16 bits becomes 16; colours have 8.

    A losslessly recompressed JPEG file is restored and read as such.
    """
    header = read_header(_codestream(content))
    refuse_size(name, header.width, header.height, max_pixels)
    if header.animated:
        raise DerainError(f"{name}: is an animation; save each frame as a picture, or use a video.")
    if len(header.channels) > MOST_CHANNELS:
        raise DerainError(
            f"{name}: has {len(header.channels):,} channels besides its colours; "
            f"up to {MOST_CHANNELS} are read."
        )
    if header.floats or BLACK in header.channels:
        raise unsupported_pixels(name, "float" if header.floats else "CMYK")
    if header.unusual:
        raise DerainError(f"{name}: its decoder does not apply its colour profile; save it as PNG or TIFF.")
    decoded = _decoded(content, header)
    if decoded.jpeg is not None:
        return jpeg.read(decoded.jpeg, name, max_pixels)
    samples, boxes = decoded.samples, decoded.boxes
    channels = samples.shape[2]
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    pixels = np.ascontiguousarray(samples if alpha is None else samples[..., :-1])
    if alpha is not None and header.premultiplied:
        pixels = _straight(pixels, alpha)
    exif, colour = boxes.get("Exif"), header.colour
    coded = colour is not None and (colour == SRGB or colour.transfer in (PQ, HLG))
    return Picture(
        pixels,
        alpha,
        # The pixels are already turned as the codestream states; the orientation in EXIF does not count.
        exif=exif_blocks.upright(_exif(exif))[0] if exif else None,
        icc=None if coded else boxes.get("icc"),
        xmp=boxes.get("xml "),
        colour=colour if coded and colour != SRGB else None,
        lost=tuple(_lost(header, decoded)),
    )


def _decoded(content: bytes, header: CodestreamHeader) -> Decoded:
    """Decodes a file. Raises `ValueError` if it cannot within the limits that follow from the header."""
    memory = OWN_BYTES + BYTES_PER_SAMPLE * header.samples
    seconds = OWN_SECONDS + header.samples // SAMPLES_PER_SECOND
    command = [sys.executable, "-P", str(DECODER), str(memory), str(seconds)]
    try:
        # Wall time may be longer on a busy machine.
        done = subprocess.run(command, input=content, capture_output=True, timeout=10 * seconds)
    except subprocess.TimeoutExpired:
        raise ValueError("decoding takes too long") from None
    if done.returncode:
        too_long = done.returncode == -getattr(signal, "SIGXCPU", 0)
        raise ValueError("decoding takes too long" if too_long else "it cannot be decoded")
    line, _, rest = done.stdout.partition(b"\n")
    head = json.loads(line)
    parts, at = dict[str, bytes](), 0
    for kind, length in head["parts"]:
        parts.setdefault(kind, rest[at : at + length])
        at += length
    boxes = {kind: part for kind, part in parts.items() if part and kind not in ("pixels", "jpeg")}
    if "jpeg" in parts:
        return Decoded(np.empty((0, 0, 3), np.uint8), parts["jpeg"], boxes)
    shape = head["height"], head["width"], head["channels"]
    deep = len(parts["pixels"]) == 2 * head["height"] * head["width"] * head["channels"]
    return Decoded(np.frombuffer(parts["pixels"], "<u2" if deep else np.uint8).reshape(shape), None, boxes)


def _straight(pixels: Array, alpha: Array) -> Array:
    """Undoes the multiplication of colours by alpha."""
    largest = int(np.iinfo(pixels.dtype).max)
    least = np.maximum(alpha, 1)[..., None].astype(np.uint64)
    colours: Array = np.minimum((pixels * np.uint64(largest) + least // 2) // least, largest)
    return colours.astype(pixels.dtype)


def _exif(box: bytes) -> bytes:
    """The EXIF block in a box, which begins with an offset that some writers leave out."""
    if box[:4] in (b"II*\0", b"MM\0*"):
        return box
    return box[4 + int.from_bytes(box[:4], "big") :]


def _lost(header: CodestreamHeader, decoded: Decoded) -> Iterator[str]:
    """What else the file contains, in words."""
    if header.bits > 8 * decoded.samples.itemsize:
        yield f"{header.bits} bits per channel, of which 8 were read"
    elif header.bits not in (8, 16):
        yield f"{header.bits} bits per channel{BECAME_16 if header.bits > 8 else BECAME_8}"
    others = [kind for kind in header.channels if kind != ALPHA]
    others += [ALPHA] * (header.channels.count(ALPHA) - 1)
    yield from (CHANNELS.get(kind, "a channel besides its colours") for kind in others)
    if header.light_levels:
        yield "its light levels"
    if "jumb" in decoded.boxes:
        yield "content credentials"
    if "jhgm" in decoded.boxes:
        yield "its HDR gain map"


# --- The header (ISO/IEC 18181-1, annex D), in a codestream that may lie in boxes (18181-2)


def _codestream(content: bytes) -> bytes:
    """The first `HEAD` bytes of the codestream."""
    if content.startswith(CODESTREAM):
        return content[:HEAD]
    found, at = b"", 0
    while at + 8 <= len(content) and len(found) < HEAD:
        size, kind = struct.unpack_from(">I4s", content, at)
        start = at + 8
        if size == 1 and at + 16 <= len(content):
            (size,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = len(content) if size == 0 else at + size
        if end < start:
            break
        if kind in (b"jxlc", b"jxlp"):  # in one piece, or in numbered pieces
            found += content[start + 4 * (kind == b"jxlp") : end][:HEAD]
        at = end
    return found


class _Bits:
    """A codestream's numbers, lowest bit first."""

    def __init__(self, codestream: bytes) -> None:
        self.value, self.left = int.from_bytes(codestream, "little"), 8 * len(codestream)

    def number(self, bits: int) -> int:
        if bits > self.left:
            raise ValueError("its header is cut short")
        value = self.value & ((1 << bits) - 1)
        self.value >>= bits
        self.left -= bits
        return value

    def flag(self) -> bool:
        return bool(self.number(1))

    def choice(self, *choices: tuple[int, int]) -> int:
        """A number in one of four forms: an offset, and the number of bits of a value to add to it."""
        offset, bits = choices[self.number(2)]
        return offset + self.number(bits)

    def name(self) -> int:
        """A number that stands for a named value."""
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))


def read_header(codestream: bytes) -> CodestreamHeader:
    """What a codestream's header declares. Raises `ValueError` if it is not a header."""
    bits = _Bits(codestream)
    if bits.number(16) != int.from_bytes(CODESTREAM, "little"):
        raise ValueError("it has no header")
    width, height = _size(bits)
    if bits.flag():  # everything has its default
        return CodestreamHeader(width, height)
    more = bits.flag()
    if more:
        if bits.number(3) >= 4:  # orientations 5 to 8: on its side
            width, height = height, width
        if bits.flag():
            _size(bits)  # at which it is to be shown
        if bits.flag():
            _skip_preview(bits)
        if bits.flag():
            return CodestreamHeader(width, height, animated=True)
    depth, floats = _depth(bits)
    bits.flag()  # whether 16 bits are enough for the decoder
    channels = [_channel(bits) for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12)))]
    lossy = bits.flag()  # colours are stored as XYB
    profile, colour = _colour(bits)
    return CodestreamHeader(
        *(width, height, depth, floats),
        channels=tuple(kind for kind, _ in channels),
        premultiplied=any(multiplied for _, multiplied in channels),
        colour=colour,
        light_levels=more and not bits.flag(),
        unusual=lossy and profile,
    )


def _size(bits: _Bits) -> tuple[int, int]:
    """(width, height)"""
    small = bits.flag()
    forms = ((1, 9), (1, 13), (1, 18), (1, 30))
    height = 8 * (bits.number(5) + 1) if small else bits.choice(*forms)
    ratio = bits.number(3)
    if ratio:
        across, down = RATIOS[ratio - 1]
        return height * across // down, height
    return (8 * (bits.number(5) + 1) if small else bits.choice(*forms)), height


def _skip_preview(bits: _Bits) -> None:
    eighths = bits.flag()
    forms = ((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choice(*forms)
    if bits.number(3) == 0:
        bits.choice(*forms)


def _depth(bits: _Bits) -> tuple[int, bool]:
    """Bits of a sample, and whether it is a float."""
    if not bits.flag():
        return bits.choice((8, 0), (10, 0), (12, 0), (1, 6)), False
    depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
    bits.number(4)  # of the exponent
    return depth, True


def _channel(bits: _Bits) -> tuple[int, bool]:
    """The kind of an extra channel, and whether colours are multiplied by it."""
    if bits.flag():
        return ALPHA, False
    kind = bits.name()
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))  # how much smaller it is
    bits.number(8 * bits.choice((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
    if kind == SPOT:
        bits.number(4 * 16)
    if kind == FILTER:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, kind == ALPHA and bits.flag()


def _colour(bits: _Bits) -> tuple[bool, ColourCode | None]:
    """Whether a profile follows, and what the samples mean in H.273's terms, if it has them."""
    if bits.flag():
        return False, SRGB
    profile, space = bits.flag(), bits.name()
    if profile:
        return True, None
    white, primaries, transfer = D65, 1, 2
    if space != XYB:
        white = bits.name()
        _skip_points(bits, 1 if white == CUSTOM else 0)
        if space != GREY:
            primaries = bits.name()
            _skip_points(bits, 3 if primaries == CUSTOM else 0)
    if bits.flag():
        bits.number(24)  # a gamma
    else:
        transfer = bits.name()
    bits.name()  # the rendering intent
    coded = white == D65 and primaries in PRIMARIES and transfer != 2
    return False, ColourCode(PRIMARIES[primaries], transfer) if coded else None


def _skip_points(bits: _Bits, count: int) -> None:
    """Chromaticities, two numbers each."""
    for _ in range(2 * count):
        bits.choice((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
