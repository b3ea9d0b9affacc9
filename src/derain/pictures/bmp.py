"""BMP: pixels, their resolution and, rarely, a profile. Pillow decodes and encodes."""

from __future__ import annotations

import io
import struct

from PIL import BmpImagePlugin, Image

from derain.pictures.decoding import colours_and_alpha, left_behind, with_supported_pixels
from derain.pictures.picture import Array, Picture

# Kinds of colour description in the header of its fifth version.
PROFILES = (b"DEBM", b"KNIL")


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A BMP file's picture."""
    image = with_supported_pixels(BmpImagePlugin.BmpImageFile(io.BytesIO(content), name), name, max_pixels)
    pixels, alpha = colours_and_alpha(image)
    dpi = image.info.get("dpi")
    held = dpi is not None and all(0 < value < 1e6 for value in dpi)
    return Picture(pixels, alpha, dpi=dpi if held else None, lost=(*left_behind(image.mode), *_lost(content)))


def write(picture: Picture, samples: Array) -> bytes:
    """(H, W, 1 or 3) uint8 samples as a BMP file."""
    buffer = io.BytesIO()
    image = Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    image.save(buffer, "BMP", **({} if picture.dpi is None else {"dpi": picture.dpi}))
    return buffer.getvalue()


def _lost(content: bytes) -> tuple[str, ...]:
    (size,) = struct.unpack_from("<I", content, 14)
    if size < 108 or len(content) < 74:
        return ()
    kind = content[70:74]
    if kind in PROFILES:
        return ("its colour profile",)
    return ("its primaries and gamma",) if kind == bytes(4) and any(content[74:110]) else ()
