"""Reading still pictures from files that may be anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from derain.errors import DerainError
from derain.pictures import avif, bmp, jpeg, png, tiff, webp
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import MAX_PIXELS, TooManyPixels
from derain.pictures.picture import Picture

__all__ = ["MAX_PIXELS", "READERS", "TooManyPixels", "picture_kind", "read_picture"]

READERS: dict[str, Callable[[bytes, str, int], Picture]] = {
    "PNG": png.read,
    "JPEG": jpeg.read,
    "WebP": webp.read,
    "TIFF": tiff.read,
    "BMP": bmp.read,
    "AVIF": avif.read,
}
HEAD = 64
# A file may be this much larger than the pixels that are read of it.
MOST_BYTES_PER_PIXEL, MOST_BYTES_BESIDE = 8, 256 << 20


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF, BMP or AVIF file, recognised by its content.

    Depth stays as it is (8 or 16 bits; 1 to 7 bits become 8, 9 to 15 bits and floats in [0, 1] become 16,
    AVIF of 10 or 12 bits becomes 8), grey stays grey. Palettes and CMYK become RGB, 1 bit becomes grey. The
    EXIF orientation is applied, once. What the file holds and a `Picture` does not is named in its `lost`.

    Raises:
        DerainError: missing, unreadable, empty, not a picture, damaged or truncated, animated or of several
            pages, of a depth that is not read, or of more than `max_pixels` (refused before memory is taken).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DerainError(f"{path}: a picture is needed, this is a folder.")
        if path.exists() and not path.is_file():
            raise DerainError(f"{path}: a picture is needed, this is not a regular file.")
        with path.open("rb") as file:
            content = _content(file.read(HEAD), file.read, path.stat().st_size, str(path), max_pixels)
    except DerainError:
        raise
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:  # a name that no file can have
        raise DerainError(f"{path}: cannot be read ({error}).") from None
    return _decoded(content, str(path), max_pixels)


def _content(head: bytes, rest: Callable[[], bytes], size: int, name: str, max_pixels: int) -> bytes:
    """All of a file, if its first bytes are those of a picture."""
    if not head:
        raise DerainError(f"{name}: the file is empty.")
    if picture_kind(head) is None:
        raise DerainError(f"{name}: not a picture in a known format ({', '.join(READERS)}).")
    if size > MOST_BYTES_PER_PIXEL * max_pixels + MOST_BYTES_BESIDE:
        raise DerainError(f"{name}: {size / 1e9:,.1f} GB, more than any picture of a size that is read.")
    return head + rest()


def _decoded(content: bytes, name: str, max_pixels: int) -> Picture:
    kind = picture_kind(content[:HEAD])
    assert kind is not None
    try:
        picture = READERS[kind](content, name, max_pixels)
        exif, orientation = (None, 1) if picture.exif is None else exif_blocks.upright(picture.exif)
        if kind == "TIFF":
            orientation = tiff.orientation(content)
    except DerainError:
        raise
    except MemoryError:
        raise DerainError(f"{name}: not enough memory to read it.") from None
    except Exception as error:  # decoders raise whatever broken bytes provoke
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise DerainError(f"{name}: a {kind} file that is damaged or cut short ({reason}).") from None
    lost = list(picture.lost)
    if picture.exif is not None and exif is None:
        lost.append("EXIF that cannot be read")
    if picture.icc is not None and not _is_profile(picture.icc):
        lost.append("a colour profile that cannot be read")
    return replace(
        picture,
        pixels=exif_blocks.turned(picture.pixels, orientation),
        alpha=None if picture.alpha is None else exif_blocks.turned(picture.alpha, orientation),
        exif=exif,
        icc=picture.icc if picture.icc is not None and _is_profile(picture.icc) else None,
        dpi=picture.dpi if picture.dpi is None or orientation < 5 else picture.dpi[::-1],
        lost=tuple(dict.fromkeys(lost)),
    )


def _is_profile(icc: bytes) -> bool:
    """Whether bytes begin as a colour profile does (ICC.1:2022, section 7.2)."""
    return len(icc) >= 128 and icc[36:40] == b"acsp"


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
