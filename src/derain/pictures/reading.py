"""Reads still pictures from untrusted files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from derain.errors import DerainError, reason
from derain.pictures import avif, bmp, heic, jpeg, jxl, kinds, png, raw, tiff, webp
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import MAX_PIXELS, TooManyPixels, is_utf8
from derain.pictures.kinds import FileKind
from derain.pictures.picture import Picture

__all__ = ["MAX_PIXELS", "READERS", "TooManyPixels", "read_picture"]

READERS: dict[FileKind, Callable[[bytes, str, int], Picture]] = {
    kinds.PNG: png.read,
    kinds.JPEG: jpeg.read,
    kinds.WEBP: webp.read,
    kinds.TIFF: tiff.read,
    kinds.BMP: bmp.read,
    kinds.AVIF: avif.read,
    kinds.HEIC: heic.read,
    kinds.JPEG_XL: jxl.read,
    kinds.RAW: raw.read,
}
# How much larger than its pixels a file may be.
MOST_BYTES_PER_PIXEL, MOST_BYTES_BESIDE = 8, 256 << 20


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF, BMP or AVIF file, recognised by its content.

    HEIC, JPEG XL and raw files of cameras are read with the optional packages of `formats`.

    Depth is kept (8 or 16 bits; 1 to 7 bits become 8, 9 to 15 bits and floats in [0, 1] become 16, AVIF of
    10 or 12 bits becomes 8), and grey stays grey. Palettes and CMYK become RGB, 1 bit becomes grey. The EXIF
    orientation is applied, once. `lost` names what the file contains that a `Picture` does not.

    Raises:
        DerainError: the file is missing, unreadable, empty, not a picture, damaged or truncated, animated or
            of several pages, of an unsupported depth, or has more than `max_pixels` (refused before memory is
            allocated).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DerainError(f"{path}: is a folder; a picture is needed.")
        if path.exists() and not path.is_file():
            raise DerainError(f"{path}: is not a regular file; a picture is needed.")
        with path.open("rb") as file:
            head = file.read(kinds.HEAD)
            kind = _readable_kind(head, path.stat().st_size, str(path), max_pixels)
            file.seek(0)
            content = file.read()
    except DerainError:
        raise
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
    except ValueError as error:  # an impossible file name
        raise DerainError(f"{path}: cannot be read ({error}).") from None
    return _decoded(content, kind, str(path), max_pixels)


def _readable_kind(head: bytes, size: int, name: str, max_pixels: int) -> FileKind:
    """The kind of a file, by its first bytes, if it is a picture that can be read."""
    if not head:
        raise DerainError(f"{name}: the file is empty.")
    kind = kinds.kind_of(head)
    if kind is None or kind.media != "picture":
        known = ", ".join(kind.name for kind in READERS)
        raise DerainError(f"{name}: not a picture in a known format ({known}).")
    if not kind.is_read:
        raise DerainError(f"{name}: {kind.name} pictures are not supported here; {kind.advice}.")
    if size > MOST_BYTES_PER_PIXEL * max_pixels + MOST_BYTES_BESIDE:
        raise DerainError(f"{name}: {size / 1e9:,.1f} GB, larger than any picture of an accepted size.")
    return kind


def _decoded(content: bytes, kind: FileKind, name: str, max_pixels: int) -> Picture:
    try:
        picture = READERS[kind](content, name, max_pixels)
        exif, orientation = (None, 1) if picture.exif is None else exif_blocks.upright(picture.exif)
        if kind is kinds.TIFF:
            orientation = tiff.orientation(content)
    except DerainError:
        raise
    except MemoryError:
        raise DerainError(f"{name}: not enough memory to read it.") from None
    except Exception as error:  # decoders raise anything on broken bytes
        said = error.args[0] if error.args else ""
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(error)
        why = (text.splitlines() or ["its decoder failed"])[0][:160]
        raise DerainError(f"{name}: a {kind.name} file that is damaged or cut short ({why}).") from None
    icc = picture.icc if picture.icc is not None and _is_profile(picture.icc) else None
    # All files that hold XMP must hold it in UTF-8 (XMP part 3).
    xmp = picture.xmp if picture.xmp is not None and is_utf8(picture.xmp) else None
    lost = list(picture.lost)
    if picture.exif is not None and exif is None:
        lost.append("EXIF that cannot be read")
    if picture.icc is not None and icc is None:
        lost.append("a colour profile that cannot be read")
    if picture.xmp is not None and xmp is None:
        lost.append("XMP that cannot be read")
    return replace(
        picture,
        pixels=exif_blocks.turned_upright(picture.pixels, orientation),
        alpha=None if picture.alpha is None else exif_blocks.turned_upright(picture.alpha, orientation),
        exif=exif,
        icc=icc,
        xmp=xmp,
        dpi=picture.dpi if picture.dpi is None or orientation < 5 else picture.dpi[::-1],
        lost=tuple(dict.fromkeys(lost)),
    )


def _is_profile(icc: bytes) -> bool:
    """Whether bytes begin as a colour profile does (ICC.1:2022, section 7.2)."""
    return len(icc) >= 128 and icc[36:40] == b"acsp"
