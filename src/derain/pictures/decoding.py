"""What the readers of all formats share: limits, and getting pixels from Pillow and OpenCV."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

from derain.errors import DerainError
from derain.pictures.picture import Array

MAX_PIXELS = 400_000_000
GREY_MODES = {"1", "L", "LA", "La"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
STRIP_PIXELS = 1 << 22
BECAME_8, BECAME_16 = " (became 8)", " (became 16)"  # after a depth that was stretched when it was read
# What files in Pillow's other modes have that the grey or RGB pixels of a `Picture` do not.
LEFT_BEHIND = {
    "1": f"1 bit per channel{BECAME_8}",
    "P": "its palette (converted to RGB)",
    "PA": "its palette (converted to RGB)",
    "CMYK": "its CMYK colours (converted to RGB)",
}
INK_PROFILE = "its CMYK profile"


class TooManyPixels(DerainError):
    """A picture with more pixels than are accepted."""


def refuse_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raises `TooManyPixels` before memory is allocated."""
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{name}: {width:,} x {height:,} pixels, more than the accepted "
            f"{max_pixels / 1e6:,.0f} megapixels; make it smaller or cut it into parts."
        )


def behind_the_end(rest: bytes) -> str:
    """What follows the end of a picture in its file, in words; "" if only padding."""
    rest = rest.strip(b"\0\xff")
    if not rest:
        return ""
    return "the clip of a motion photo" if b"ftyp" in rest[:64] else f"{len(rest):,} bytes after its end"


def refuse_several(name: str, frames: int, *, and_more: bool = False) -> None:
    """Raises `DerainError` for a file of more than one picture.

    Args:
        name: the file's name.
        frames: how many were counted.
        and_more: whether there may be more.
    """
    if frames > 1:
        count = f"{frames:,} or more" if and_more else f"{frames:,}"
        raise DerainError(f"{name}: holds {count} frames or pages; save each as a picture, or use a video.")


def unsupported_pixels(name: str, kind: str) -> DerainError:
    """The error for pixels of a kind that a `Picture` cannot hold; `kind` is what the decoder calls it."""
    return DerainError(
        f"{name}: pixels of type '{kind}' are not supported; save it with 8 or 16 bits per channel, "
        "grey or RGB."
    )


def with_supported_pixels(image: ImageFile.ImageFile, name: str, max_pixels: int) -> ImageFile.ImageFile:
    """An image of which only the header was read, if its pixels are supported.

    Raises:
        DerainError: it is too large, has several frames, or pixels of another kind.
    """
    refuse_size(name, *image.size, max_pixels)
    refuse_several(name, getattr(image, "n_frames", 1))
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise unsupported_pixels(name, image.mode)
    return image


def colours_and_alpha(image: Image.Image) -> tuple[Array, Array | None]:
    """(H, W, 1 or 3) uint8 colours, and (H, W) alpha where there is any."""
    has_alpha = image.has_transparency_data
    grey = image.mode in GREY_MODES
    image.load()
    if has_alpha and image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = image.convert("LA") if grey else image
    elif not has_alpha and image.mode not in ("L", "RGB"):
        image = image.convert("L" if grey else "RGB")
    width, height = image.size
    channels = 1 if grey else 3
    pixels = np.empty((height, width, channels), np.uint8)
    alpha = np.empty((height, width), np.uint8) if has_alpha else None
    # In strips, because Pillow makes bytes and arrays by copying the whole picture.
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = np.asarray(image.crop((0, top, width, min(top + rows, height))))
        strip = strip.reshape(*strip.shape[:2], -1)
        pixels[top : top + rows] = strip[..., :channels]
        if alpha is not None:
            alpha[top : top + rows] = strip[..., channels]
    return pixels, alpha


def is_utf8(content: bytes) -> bool:
    """Whether bytes are text in UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def left_behind(mode: str) -> tuple[str, ...]:
    """What pixels of one of Pillow's modes lose in `colours_and_alpha`, in words."""
    return (LEFT_BEHIND[mode],) if mode in LEFT_BEHIND else ()


def opencv_16_bits(content: bytes, *, grey: bool) -> tuple[Array, Array | None]:
    """(H, W, 1 or 3) uint16 colours, and (H, W) alpha where there is any."""
    import cv2

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        samples: Array | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("its 16-bit pixels cannot be decoded")
    pixels = samples[..., :1] if grey else samples[..., 2::-1]
    alpha = samples[..., 3] if samples.shape[2] == 4 else None
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)
