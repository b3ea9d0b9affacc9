"""What a file is, by its first bytes; its name matters only if the content is not conclusive.

The same rule holds for files named by users, files in folders, and uploads.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from derain.errors import DerainError, reason
from derain.extras import how_to_install
from derain.paths import is_file
from derain.pictures.tags import Tag

HEAD = 1024  # bytes at the start of a file that tell its kind
# Extension of a written video -> FFmpeg's name of the container.
VIDEO_KINDS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".gif": "gif",
}
EXTRA = "formats"  # the optional dependencies
MOSAIC, LINEAR_RAW = 32803, 34892  # photometric interpretations of DNG


@dataclass(frozen=True)
class FileKind:
    """A kind of file that holds pictures or video.

    Attributes:
        name: what people call it.
        media: a still picture, or moving ones.
        extensions: extensions of files of this kind, the usual one first.
        result: the extension of results if files like the source cannot be written; empty for kinds that
            are not read.
        package: the optional package that reads it; empty if none is needed.
    """

    name: str
    media: Literal["picture", "video"]
    extensions: tuple[str, ...]
    result: str
    package: str = ""

    @property
    def is_read(self) -> bool:
        """Whether files of this kind can be read here."""
        return bool(self.result) and (not self.package or importlib.util.find_spec(self.package) is not None)

    @property
    def other(self) -> str:
        """What else the user can do with an unsupported file."""
        return "save it as PNG or TIFF" if self.media == "picture" else "convert it to MP4 or MKV"

    @property
    def advice(self) -> str:
        """What to do with an unsupported file."""
        return f"{how_to_install(EXTRA)}, or {self.other}" if self.package else self.other


def _picture(name: str, *extensions: str, result: str = "", package: str = "") -> FileKind:
    return FileKind(name, "picture", extensions, result or extensions[0], package)


def _video(name: str, *extensions: str, result: str = "") -> FileKind:
    return FileKind(name, "video", extensions, result or extensions[0])


def _unread(name: str, *extensions: str) -> FileKind:
    return FileKind(name, "picture", extensions, "")


PNG = _picture("PNG", ".png")
JPEG = _picture("JPEG", ".jpg", ".jpeg", ".jpe", ".jfif")
WEBP = _picture("WebP", ".webp")
TIFF = _picture("TIFF", ".tif", ".tiff")
BMP = _picture("BMP", ".bmp")
AVIF = _picture("AVIF", ".avif")
# Results keep the depth and transparency that these may have.
HEIC = _picture("HEIC", ".heic", ".heif", ".hif", result=".png", package="pillow_heif")
JPEG_XL = _picture("JPEG XL", ".jxl", result=".png", package="pillow_jxl")
RAW = _picture(
    *("camera RAW", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef"),
    *(".srw", ".3fr", ".iiq", ".erf", ".mef", ".mos", ".rwl"),
    result=".tif",
    package="rawpy",
)
JPEG_2000 = _unread("JPEG 2000", ".jp2", ".j2k", ".jpf", ".jpx")
JPEG_XR = _unread("JPEG XR", ".jxr", ".wdp")
PHOTOSHOP = _unread("Photoshop", ".psd", ".psb")
OPENEXR = _unread("OpenEXR", ".exr")
RADIANCE = _unread("Radiance HDR", ".hdr")

MP4 = _video("MP4", ".mp4", ".m4v")
MOV = _video("QuickTime", ".mov")
MATROSKA = _video("Matroska", ".mkv")
WEBM = _video("WebM", ".webm")
AVI = _video("AVI", ".avi")
GIF = _video("GIF", ".gif")
# Matroska holds every kind of sound that these may have.
MOBILE = _video("3GPP", ".3gp", ".3g2", result=".mkv")
TRANSPORT = _video("MPEG transport stream", ".mts", ".m2ts", ".ts", result=".mkv")
PROGRAM = _video("MPEG", ".mpg", ".mpeg", ".vob", result=".mkv")
WMV = _video("Windows Media", ".wmv", ".asf", result=".mkv")
FLASH = _video("Flash Video", ".flv", result=".mkv")

# Every kind that is read where its package is installed.
KINDS = (
    *(PNG, JPEG, WEBP, TIFF, BMP, AVIF, HEIC, JPEG_XL, RAW),
    *(MP4, MOV, MATROSKA, WEBM, AVI, GIF, MOBILE, TRANSPORT, PROGRAM, WMV, FLASH),
)
# Extensions of files that hold pictures or video, read or not.
KNOWN_EXTENSIONS = {
    *(*VIDEO_KINDS, *JPEG.extensions, *HEIC.extensions, *RAW.extensions, *JPEG_XL.extensions),
    *(
        *JPEG_2000.extensions,
        *JPEG_XR.extensions,
        *PHOTOSHOP.extensions,
        *OPENEXR.extensions,
        *RADIANCE.extensions,
    ),
}

_STARTS = {
    b"\x89PNG\r\n\x1a\n": PNG,
    b"\xff\xd8\xff": JPEG,
    b"BM": BMP,
    b"FUJIFILMCCD-RAW": RAW,
    b"IIRO": RAW,
    b"IIRS": RAW,
    b"MMOR": RAW,
    b"IIU\0": RAW,
    b"\xff\x0a": JPEG_XL,
    b"\0\0\0\x0cJXL \r\n\x87\n": JPEG_XL,
    b"\0\0\0\x0cjP  \r\n\x87\n": JPEG_2000,
    b"\xff\x4f\xff\x51": JPEG_2000,
    b"II\xbc": JPEG_XR,
    b"8BPS": PHOTOSHOP,
    b"\x76\x2f\x31\x01": OPENEXR,
    b"#?RADIANCE": RADIANCE,
    b"GIF8": GIF,
    b"\0\0\x01\xba": PROGRAM,
    b"\0\0\x01\xb3": PROGRAM,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": WMV,
    b"FLV\x01": FLASH,
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip"}


def kind_of(head: bytes) -> FileKind | None:
    """The kind of a file by its first `HEAD` bytes; None if it is neither a picture nor a video."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return RAW if _is_raw(head) else TIFF
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"AVI ": AVI}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _iso(head)
    if head[4:8] in _QUICKTIME_ATOMS:
        return MOV
    if head[:4] == b"\x1aE\xdf\xa3":
        return WEBM if b"webm" in head[:64] else MATROSKA
    for first, length in ((0, 188), (4, 192)):  # of packets; cameras put a time before each
        if head[first::length][:3] == b"GGG":
            return TRANSPORT
    return None


def _iso(head: bytes) -> FileKind | None:
    """An ISO base media file, by its brands."""
    brand = head[8:12]
    if brand == b"crx ":
        return RAW
    if b"avif" in head[:64] or b"avis" in head[:64]:
        return AVIF
    if brand in _HEIF_BRANDS:
        return HEIC
    if brand in _SOUND_BRANDS:
        return None
    if brand[:3] in (b"3gp", b"3g2"):
        return MOBILE
    return MOV if brand == b"qt  " else MP4


def _is_raw(head: bytes) -> bool:
    """Whether a TIFF file is a camera's: Canon's raw, DNG, a mosaic, or one that starts with a preview."""
    order = "<" if head[:2] == b"II" else ">"
    if head[8:10] == b"CR":
        return True
    start = struct.unpack(f"{order}I", head[4:8].ljust(4, b"\0"))[0]
    if len(head) < start + 2:
        return False
    count = struct.unpack(f"{order}H", head[start : start + 2])[0]
    tags: dict[int, int] = {}
    for place in range(start + 2, min(start + 2 + 12 * count, len(head) - 11), 12):
        tag, form = struct.unpack(f"{order}HH", head[place : place + 4])
        value = head[place + 8 : place + 12]
        tags[tag] = (
            struct.unpack(f"{order}H", value[:2])[0] if form == 3 else struct.unpack(f"{order}I", value)[0]
        )
    return (
        Tag.DNG_VERSION in tags
        or tags.get(Tag.PHOTOMETRIC) in (MOSAIC, LINEAR_RAW)
        or bool(tags.get(Tag.NEW_SUBFILE_TYPE, 0) & 1 and Tag.SUB_IFDS in tags)
    )


def file_kind(path: Path) -> FileKind | None:
    """The kind of a file by its content; None if it is neither a picture nor a video, or not a file.

    Raises:
        DerainError: it cannot be read.
    """
    try:
        if not is_file(path):
            return None
        with path.open("rb") as file:
            return kind_of(file.read(HEAD))
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise DerainError(f"{path}: cannot be read ({why}).") from None


def label(path: Path, kind: FileKind | None) -> str:
    """A kind of file in a few letters: HEIC, JXL, CR2; otherwise the extension."""
    suffix = path.suffix[1:].upper()
    known = kind is None or f".{suffix.lower()}" in kind.extensions
    if known and re.fullmatch(r"\w{1,8}", suffix):
        return suffix
    return "without extension" if kind is None else kind.name
