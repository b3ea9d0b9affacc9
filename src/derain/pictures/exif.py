"""EXIF: the orientation read and reset in place, and the way into and out of TIFF files.

Setting the orientation in place, without writing the block anew, keeps thumbnails and the maker's notes,
whose inner offsets would break.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from derain.pictures.picture import Array

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
# In a TIFF file EXIF shares one directory with the layout of the pixels; these tags describe the picture.
# The orientation is not among them, as the pixels of a `Picture` are upright.
DESCRIPTION = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x011A: "XResolution",
    0x011B: "YResolution",
    0x0128: "ResolutionUnit",
    0x0131: "Software",
    0x0132: "DateTime",
    0x013B: "Artist",
    0x013C: "HostComputer",
    0x8298: "Copyright",
}
EXIF_DIRECTORY = 0x8769
GPS_DIRECTORY = 0x8825
INTEROPERABILITY = 0xA005  # an offset inside the EXIF directory


def upright(exif: bytes) -> tuple[bytes | None, int]:
    """EXIF with orientation 1 and the usual prefix, and the orientation it had (1 to 8).

    Unreadable EXIF gives (None, 1): it describes nothing, and other programs stumble over it.
    """
    block = bytearray(exif.removeprefix(PREFIX))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        return None, 1
    orientation = 1
    try:
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            if tag == ORIENTATION and kind in (3, 4):  # SHORT, LONG
                code = order + ("H" if kind == 3 else "I")
                (orientation,) = struct.unpack_from(code, block, entry + 8)
                struct.pack_into(code, block, entry + 8, 1)
    except struct.error:
        return None, 1
    return PREFIX + bytes(block), orientation if 1 <= orientation <= 8 else 1


def turned(array: Array, orientation: int) -> Array:
    """(H, W, ...) stored with an EXIF orientation of 1 to 8, as it is to be seen."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # After the swap: which axes run backwards, for orientations 1 to 8.
    rows = orientation in (3, 4, 7, 8)
    columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def from_tiff(directory: Image.Exif) -> bytes | None:
    """The descriptive part of a TIFF file's first directory, as EXIF.

    Without the orientation: Pillow and OpenCV turn the pixels of TIFF, and of no other format, themselves.
    """
    exif = Image.Exif()
    for tag, value in directory_tags(directory).items():
        exif[tag] = value
    return exif.tobytes() if len(exif) else None


def directory_tags(exif: Image.Exif) -> dict[int, Any]:
    """{tag: value} of what describes the picture; the EXIF and GPS directories are nested."""
    tags: dict[int, Any] = {tag: exif[tag] for tag in DESCRIPTION if tag in exif and _fits(tag, exif[tag])}
    for pointer in (EXIF_DIRECTORY, GPS_DIRECTORY):
        nested: Mapping[int, Any] = exif.get_ifd(pointer)
        if nested:
            tags[pointer] = {
                tag: value
                for tag, value in nested.items()
                if tag != INTEROPERABILITY and _fits(pointer, {tag: value})
            }
    return tags


def _fits(tag: int, value: Any) -> bool:
    """Whether a tag can be written; files hold some with values of a type that the tag does not have."""
    probe = Image.Exif()
    probe[tag] = value
    try:
        probe.tobytes()
    except Exception:  # Pillow raises whatever an odd type provokes
        return False
    return True


def to_tiff(exif: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Enters EXIF into the directory of a TIFF file that is being written."""
    parsed = Image.Exif()
    parsed.load(exif)
    for tag, value in directory_tags(parsed).items():
        directory[tag] = value
