"""Broken copies of good files: what happens to bytes on bad disks, and what somebody would do on purpose.

Every function takes a generator and gives the same result for the same state of it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

Bytes = bytearray
# Lengths, sizes and counts that programs fall over.
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Names of chunks, boxes and atoms, beside which a length stands.
NAME = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")
PNG_START = b"\x89PNG\r\n\x1a\n"


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to six things wrong; `other` is a file of the same kind to take parts of."""
    broken = bytearray(content)
    for _ in range(int(rng.integers(1, 3 if rng.random() < 0.7 else 7))):
        if len(broken) < 8:
            break
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        change(broken, other, rng)
    if broken.startswith(PNG_START) and rng.random() < 0.8:
        with_right_checksums(broken)
    return bytes(broken)


def _place(broken: Bytes, rng: np.random.Generator) -> int:
    """A place in a file, as often in its head as in all the rest."""
    return int(rng.integers(min(len(broken), 600) if rng.random() < 0.5 else len(broken)))


def _span(broken: Bytes, rng: np.random.Generator) -> slice:
    start = _place(broken, rng)
    return slice(start, start + int(rng.integers(1, 1 + max(1, min(2000, len(broken) // 4)))))


def flip_bits(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        broken[_place(broken, rng)] ^= 1 << int(rng.integers(8))


def replace_bytes(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 5))):
        broken[_place(broken, rng)] = int(rng.integers(256))


def cut_off(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        del broken[_place(broken, rng) :]


def cut_out(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    del broken[_span(broken, rng)]


def double(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    span, place = _span(broken, rng), _place(broken, rng)
    broken[place:place] = broken[span]


def swap(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    """Two chunks of equal length change places."""
    length = int(rng.integers(4, 1 + max(4, min(600, len(broken) // 3))))
    first, second = sorted(int(rng.integers(max(1, len(broken) - length))) for _ in range(2))
    if first + length <= second:
        a, b = broken[first : first + length], broken[second : second + length]
        broken[first : first + length], broken[second : second + length] = b, a


def lie(broken: Bytes, _: bytes, rng: np.random.Generator) -> None:
    """A number says something else, as often as not the length of a chunk."""
    names = [found.start() for found in NAME.finditer(broken, 0, 20_000)]
    if names and rng.random() < 0.6:
        place = names[int(rng.integers(len(names)))] + (4 if rng.random() < 0.5 else -4)
    else:
        place = _place(broken, rng)
    form = ("<H", ">H", "<I", ">I", "<Q", ">Q")[int(rng.integers(6))]
    size = struct.calcsize(form)
    if 0 <= place <= len(broken) - size:
        (now,) = struct.unpack_from(form, broken, place)
        near = now + int(rng.integers(-2, 3))
        number = near if rng.random() < 0.3 else NUMBERS[int(rng.integers(len(NUMBERS)))]
        struct.pack_into(form, broken, place, number % (1 << 8 * size))


def graft(broken: Bytes, other: bytes, rng: np.random.Generator) -> None:
    """A part of another file."""
    if other:
        place, span = _place(broken, rng), _span(bytearray(other), rng)
        broken[place : place + (span.stop - span.start) * int(rng.integers(2))] = other[span]


CHANGES: Sequence[Callable[[Bytes, bytes, np.random.Generator], None]] = (
    *(flip_bits, replace_bytes, cut_off, cut_out, double, swap, lie, lie, graft),
)


def with_right_checksums(broken: Bytes) -> None:
    """Makes the checksums of PNG's chunks right again, so that decoders look at what is in them."""
    at = len(PNG_START)
    while at + 12 <= len(broken):
        end = at + 8 + int.from_bytes(broken[at : at + 4], "big")
        if end + 4 > len(broken):
            return
        struct.pack_into(">I", broken, end, zlib.crc32(broken[at + 4 : end]))
        at = end + 4
