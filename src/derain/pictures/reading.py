"""Reading still pictures from files that may be anything.

Pillow reads the headers and all 8-bit pixels. It has no mode for 16-bit colour, so OpenCV decodes
16-bit RGB(A) PNG and TIFF.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from derain.errors import DerainError
from derain.pictures import exif as exif_blocks
from derain.pictures.picture import Array, Picture

# Pillow warns of oddities in metadata that spoil no pixel; whatever does raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

MAX_PIXELS = 400_000_000
# Opened by class: `Image.open` would try every format that Pillow knows, below a limit of its own.
READERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
GREY_MODES = {"1", "L", "LA", "La"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
# TIFF tags
SUBFILE_TYPE, BITS_PER_SAMPLE, PHOTOMETRIC, X_RESOLUTION, PLANAR, EXTRA_SAMPLES = 254, 258, 262, 282, 284, 338
STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325


class TooManyPixels(DerainError):
    """A picture of more pixels than are read."""


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF, BMP or AVIF file, recognised by its content.

    Depth stays as it is (8 or 16 bits; AVIF of 10 or 12 bits becomes 8), grey stays grey. Palettes and
    CMYK become RGB, 1 bit becomes grey. The EXIF orientation is applied, once.

    Raises:
        DerainError: missing, unreadable, empty, not a picture, damaged or truncated, animated or of several
            pages, 32-bit or floating-point, or of more than `max_pixels` (refused before memory is taken).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DerainError(f"{path}: a picture is needed, this is a folder.")
        if path.exists() and not path.is_file():
            raise DerainError(f"{path}: a picture is needed, this is not a regular file.")
        with path.open("rb") as file:
            return _read(file, str(path), max_pixels)
    except DerainError:
        raise
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:  # a name that no file can have
        raise DerainError(f"{path}: cannot be read ({error}).") from None


def _read(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    head = file.read(64)
    if not head:
        raise DerainError(f"{name}: the file is empty.")
    kind = picture_kind(head)
    if kind is None:
        raise DerainError(f"{name}: not a picture in a known format ({', '.join(READERS)}).")
    file.seek(0)
    try:
        image = READERS[kind](file, name)
        _refuse_unsuitable(image, name, max_pixels)
        pixels, alpha = _pixels(image, file, kind)
        exif, orientation = _exif(image)  # PNG may hold it behind the pixels
    except DerainError:
        raise
    except MemoryError:
        raise DerainError(f"{name}: not enough memory to read it.") from None
    except Exception as error:  # decoders raise whatever broken bytes provoke
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise DerainError(f"{name}: a {kind} file that is damaged or cut short ({reason}).") from None
    return Picture(
        pixels=exif_blocks.turned(pixels, orientation),
        alpha=None if alpha is None else exif_blocks.turned(alpha, orientation),
        exif=exif,
        # The profile of a CMYK picture describes inks, not the RGB that it is turned into.
        icc=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
        dpi=_dpi(image),
    )


def picture_kind(head: bytes) -> str | None:
    """The format, a key of `READERS`, by the first 64 bytes of a file; None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp" and (b"avif" in head or b"avis" in head):
        return "AVIF"
    return None


def _refuse_unsuitable(image: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    """Looks at the header only, before pixels are decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{name}: {width:,} x {height:,} pixels, more than the {max_pixels / 1e6:,.0f} megapixels "
            "that are read; make it smaller or cut it into parts."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DerainError(f"{name}: holds {frames} frames or pages; save each as a picture, or use a video.")
    if image.mode not in GREY_MODES | COLOUR_MODES and not image.mode.startswith("I;16"):
        raise DerainError(
            f"{name}: pixels of the kind '{image.mode}' are not supported; save it with 8 or 16 bits per "
            "channel, grey or RGB."
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _refuse_unsuitable_tiff(image, name)


def _refuse_unsuitable_tiff(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    tags = image.tag_v2
    if tags.get(SUBFILE_TYPE, 0) & 1:
        raise DerainError(
            f"{name}: starts with a preview, as raw camera files do; develop it to TIFF or JPEG."
        )
    if _is_16_bit(image) and (
        tags.get(PHOTOMETRIC) not in (1, 2)
        or tags.get(PLANAR, 1) != 1
        or tags.get(EXTRA_SAMPLES, ()) not in ((), (0,), (2,))
    ):
        raise DerainError(
            f"{name}: an unusual 16-bit TIFF; save it as RGB or grey (black is zero) with interleaved "
            "channels and straight alpha."
        )


def _is_16_bit(image: TiffImagePlugin.TiffImageFile) -> bool:
    return 16 in image.tag_v2.get(BITS_PER_SAMPLE, (1,))


def _pixels(image: ImageFile.ImageFile, file: BinaryIO, kind: str) -> tuple[Array, Array | None]:
    """(H, W, C) and (H, W) alpha, as stored, not yet turned."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _expect_all_pixels(image, file)
    if image.mode.startswith("I;16"):
        grey = np.array(image).astype(np.uint16, copy=False)[..., None]
        key = image.info.get("transparency")
        return grey, None if key is None else np.where(grey[..., 0] == key, 0, 65535).astype(np.uint16)
    if kind == "PNG":
        file.seek(24)
        depth, colour_type = file.read(2)
        if depth == 16:
            image.load()  # Pillow's errors are clearer, and it finds metadata behind the pixels
            return _with_opencv(file, grey=colour_type == 4, has_alpha=True)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_16_bit(image):
        return _with_opencv(file, grey=False, has_alpha=image.mode == "RGBA")
    return _with_pillow(image)


def _expect_all_pixels(image: TiffImagePlugin.TiffImageFile, file: BinaryIO) -> None:
    """Finds a TIFF file cut short before its decoder, which writes to the terminal."""
    length = file.seek(0, os.SEEK_END)
    for offsets, sizes in ((STRIP_OFFSETS, STRIP_SIZES), (TILE_OFFSETS, TILE_SIZES)):
        parts = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(sizes, ()), strict=False)
        end = max((offset + size for offset, size in parts), default=0)
        if end > length:
            raise ValueError(f"pixels up to byte {end:,} of {length:,}")


def _with_pillow(image: ImageFile.ImageFile) -> tuple[Array, Array | None]:
    has_alpha = image.has_transparency_data
    if image.mode in GREY_MODES:
        converted = image.convert("RGBA").convert("LA") if has_alpha else image.convert("L")
    else:
        converted = image.convert("RGBA" if has_alpha else "RGB")
    samples = np.array(converted)
    if not has_alpha:
        return samples.reshape(*samples.shape[:2], -1), None
    return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])


def _with_opencv(file: BinaryIO, *, grey: bool, has_alpha: bool) -> tuple[Array, Array | None]:
    """Decodes 16-bit colour."""
    import cv2

    file.seek(0)
    content = np.frombuffer(file.read(), np.uint8)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        samples: Array | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("its 16-bit pixels cannot be decoded")
    pixels = samples[..., :1] if grey else samples[..., 2::-1]
    alpha = samples[..., 3] if has_alpha and samples.shape[2] == 4 else None
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)


def _exif(image: ImageFile.ImageFile) -> tuple[bytes | None, int]:
    """EXIF with orientation 1, and the orientation that the pixels are still to be turned by."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        block = exif_blocks.from_tiff(image.getexif())
    else:
        block = image.info.get("exif")
    return exif_blocks.upright(block) if block else (None, 1)


def _dpi(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and X_RESOLUTION not in image.tag_v2:
        return None  # Pillow makes one up
    if dpi is None or not all(0 < float(value) < 1e6 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])
