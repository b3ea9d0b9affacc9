"""Writing still pictures, whole or not at all.

Pillow writes everything but 16-bit colour, which it has no mode for: there OpenCV compresses PNG, to
which the metadata are added, and TIFF is laid out here with Pillow's directory.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from derain.atomic import replace_file
from derain.errors import DerainError, UsageError
from derain.pictures import exif as exif_blocks
from derain.pictures.picture import Array, Picture, to_8_bits

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
HOLD_16_BITS = {"PNG", "TIFF"}
HOLD_GREY = {"PNG", "JPEG", "TIFF", "BMP"}
HOLD_ALPHA = {"PNG", "TIFF", "WebP", "AVIF"}
# Lossy formats other than JPEG: visually lossless at a fraction of the size of their lossless modes.
WEBP_QUALITY = 95
AVIF_QUALITY = 90
STRIP_BYTES = 1 << 20


def write_picture(path: str | Path, picture: Picture, jpeg_quality: int = 95) -> None:
    """Writes a picture in the format of the extension, whole or not at all; replaces what was there.

    PNG, TIFF and BMP are lossless; JPEG has full colour resolution (4:4:4). PNG and TIFF keep 16 bits, the
    others get 8, rounded. WebP and AVIF have no grey and hold it as RGB, as do PNG and TIFF for 16-bit
    grey with alpha; a grey profile is left out then. JPEG and BMP have no alpha: one that is opaque
    throughout is left out, any other is refused. BMP has no place for EXIF and colour profiles.

    Raises:
        UsageError: an unknown extension, or a quality outside 1 to 100.
        DerainError: the format cannot hold the picture, the folder cannot be written, the disk is full.
    """
    path = Path(path)
    try:
        content = encode_picture(picture, path.suffix, jpeg_quality)
    except DerainError as error:
        raise type(error)(f"{path}: {error}") from None
    replace_file(path, content)


def encode_picture(picture: Picture, extension: str, jpeg_quality: int = 95) -> bytes:
    """The bytes of the file that `write_picture` writes; raises the same."""
    name = FORMATS.get(extension.lower())
    if name is None:
        raise UsageError(f"pictures cannot be written as '{extension}'; use one of {', '.join(FORMATS)}.")
    if not 1 <= jpeg_quality <= 100:
        raise UsageError(f"JPEG quality {jpeg_quality} is outside 1 to 100.")
    samples = _samples(picture, name)
    if picture.icc is not None and picture.icc[16:20] == b"GRAY" and samples.shape[2] >= 3:
        picture = replace(picture, icc=None)  # grey that had to become RGB
    try:
        if name == "TIFF":
            return _tiff(picture, samples)
        if samples.dtype == np.uint16:
            return _png_16(picture, samples)
        return _with_pillow(picture, samples, name, jpeg_quality)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise DerainError(f"cannot be written as {name} ({error}).") from None


def _samples(picture: Picture, name: str) -> Array:
    """(H, W, 1 to 4): colours and alpha as the format `name` holds them."""
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None and name not in HOLD_ALPHA:
        if (alpha != picture.largest).any():
            raise DerainError(
                f"{name} cannot hold its transparency; write .png, .tif, .webp or .avif instead."
            )
        alpha = None
    if name not in HOLD_16_BITS:
        pixels = to_8_bits(pixels)
        alpha = None if alpha is None else to_8_bits(alpha)
    # OpenCV writes no such PNG, and Pillow reads no such TIFF, as 16-bit grey with alpha.
    if name not in HOLD_GREY or (alpha is not None and pixels.dtype == np.uint16):
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)
    if alpha is None:
        return pixels
    return np.concatenate([pixels, alpha[..., None]], axis=2)


def _with_pillow(picture: Picture, samples: Array, name: str, jpeg_quality: int) -> bytes:
    image = Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    settings: dict[str, dict[str, Any]] = {
        "PNG": {},
        "JPEG": {"quality": jpeg_quality, "subsampling": "4:4:4"},
        "WebP": {"quality": WEBP_QUALITY, "alpha_quality": 100},
        "BMP": {},
        "AVIF": {"quality": AVIF_QUALITY, "subsampling": "4:4:4"},
    }
    carried = {"exif": picture.exif, "icc_profile": picture.icc, "dpi": picture.dpi}
    buffer = io.BytesIO()
    given = {key: value for key, value in carried.items() if value is not None}
    image.save(buffer, name, **settings[name], **given)
    return buffer.getvalue()


def _png_16(picture: Picture, samples: Array) -> bytes:
    import cv2

    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    done, encoded = cv2.imencode(".png", samples[..., order], [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError("OpenCV refuses it")
    content = encoded.tobytes()
    header = 33  # signature and IHDR; the other chunks may follow in any order before the pixels
    return content[:header] + b"".join(_png_chunks(picture)) + content[header:]


def _png_chunks(picture: Picture) -> Iterator[bytes]:
    """What the picture carries, as chunks of the PNG specification (third edition)."""
    if picture.icc is not None:
        yield _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc))
    if picture.dpi is not None:
        across, down = (round(value / 0.0254) for value in picture.dpi)
        yield _png_chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if picture.exif is not None:
        yield _png_chunk(b"eXIf", picture.exif.removeprefix(exif_blocks.PREFIX))


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _tiff(picture: Picture, samples: Array) -> bytes:
    """Baseline TIFF 6.0 in strips, deflated after horizontal differencing (predictor 2)."""
    height, width, channels = samples.shape
    colours = 3 if channels >= 3 else 1
    rows = max(1, STRIP_BYTES // (width * channels * samples.itemsize))
    strips = [zlib.compress(_differences(samples[y : y + rows])) for y in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    if picture.exif is not None:
        exif_blocks.to_tiff(picture.exif, directory)
    directory[TiffImagePlugin.IMAGEWIDTH] = width
    directory[TiffImagePlugin.IMAGELENGTH] = height
    directory[TiffImagePlugin.BITSPERSAMPLE] = (8 * samples.itemsize,) * channels
    directory[TiffImagePlugin.COMPRESSION] = 8  # deflate
    directory[TiffImagePlugin.PREDICTOR] = 2
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2 if colours == 3 else 1
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    directory[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    directory[TiffImagePlugin.ROWSPERSTRIP] = rows
    directory[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(sizes)
    # Counted from the end of the directory; Pillow adds its length.
    directory[TiffImagePlugin.STRIPOFFSETS] = tuple(sum(sizes[:index]) for index in range(len(sizes)))
    if channels > colours:
        directory[TiffImagePlugin.EXTRASAMPLES] = 2  # straight alpha
    if picture.icc is not None:
        directory[TiffImagePlugin.ICCPROFILE] = picture.icc
    if picture.dpi is not None:
        directory[TiffImagePlugin.X_RESOLUTION], directory[TiffImagePlugin.Y_RESOLUTION] = picture.dpi
        directory[TiffImagePlugin.RESOLUTION_UNIT] = 2  # inch
    buffer = io.BytesIO()
    directory.save(buffer)
    for strip in strips:
        buffer.write(strip)
    return buffer.getvalue()


def _differences(rows: Array) -> bytes:
    """Each pixel less its left neighbour, modulo the range, little-endian."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return differences.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
