"""JPEG (ITU-T T.81 and T.871): segments, and what they carry.

libjpeg returns a picture for almost any bytes and reports garbage only in warnings, which Pillow drops and
OpenCV prints. simplejpeg, based on the same library, raises them. Only FFmpeg reads samples of 12 bits.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from derain.errors import DerainError
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import (
    BECAME_16,
    INK_PROFILE,
    behind_the_end,
    colours_and_alpha,
    is_utf8,
    left_behind,
    refuse_size,
)
from derain.pictures.photoshop import iptc_of_photoshop, other_resources, photoshop_of_iptc
from derain.pictures.picture import Array, JpegCoding, Picture, Text, without_pixels

DEFAULT_QUALITY = 95
XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
PHOTOSHOP = b"Photoshop 3.0\0"
# Markers
START_OF_SCAN, END, COMMENT, TABLES, PROGRESSIVE = 0xDA, 0xD9, 0xFE, 0xDB, 0xC2
APP0, APP1, APP2, APP11, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
SEGMENT = 65533  # bytes of content at most
ICC_PART, ICC_PARTS = SEGMENT - 14, 255  # bytes of a profile in a segment, and segments of it, at most
# Work grows with the number of scans, as each passes over all pixels. Ten scans are usual.
MAX_SCANNED = 4_000_000_000
# Some cameras write these between the last block and the end of the file.
STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
MOST_STRAY = 16
BAD_PROFILE = "bad ICC marker"
MOST_TEXTS = 100
SUBSAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}


@dataclass
class _Found:
    """What the segments of a file contain, as far as they have been searched."""

    carried: Picture = field(default_factory=without_pixels)
    profile: dict[int, bytes] = field(default_factory=dict)
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)
    frame: bytes = b""
    marker: int = 0
    gain_map: bool = False
    several: bool = False

    def lose(self, what: str) -> None:
        if what not in self.carried.lost and len(self.carried.lost) < 20:
            self.carried = replace(self.carried, lost=(*self.carried.lost, what))


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A JPEG file's picture as stored, not yet turned upright."""
    found, scans, end = _Found(), 0, 0
    for marker, start, stop in _segments(content):
        if marker == START_OF_SCAN:
            scans += 1
            _refuse_scans(found, scans, name)
        elif marker == END:
            end = stop
        elif marker in FRAMES and not found.frame:
            found.frame, found.marker = content[start:stop], marker
            _refuse_frame(found, name, max_pixels)
        else:
            _look_into(found, marker, content[start:stop])
    if not end or not found.frame:
        raise ValueError("cut off before its end")
    _name_the_rest(found, content[end:])
    components = found.frame[5]
    if found.frame[0] == 12:
        lost = (*found.carried.lost, f"12 bits per channel{BECAME_16}")
        pixels = _deep_pixels(content, end, components)
        return replace(found.carried, icc=_profile(found), pixels=pixels, lost=lost)
    pixels = _pixels(content, components, found)
    carried = replace(found.carried, icc=_profile(found), jpeg=_coding(found))
    if components == 4:  # its profile describes inks, not the RGB that it is converted to
        lost = (*carried.lost, *left_behind("CMYK"), *([INK_PROFILE] if found.profile else []))
        carried = replace(carried, icc=None, jpeg=None, lost=lost)
    return replace(carried, pixels=pixels)


def write(picture: Picture, samples: Array, quality: int | None) -> bytes:
    """(H, W, 1 or 3) uint8 samples as a JPEG file with everything that `picture` carries.

    Compressed like the source if that was a JPEG and no quality is given; otherwise with full colour
    resolution.
    """
    coding = picture.jpeg if quality is None else None
    buffer = io.BytesIO()
    image = Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    given = {} if picture.dpi is None else {"dpi": picture.dpi}
    if coding is None:
        image.save(buffer, "JPEG", quality=quality or DEFAULT_QUALITY, subsampling="4:4:4", **given)
    else:
        tables, progressive = [list(table) for table in coding.tables], coding.progressive
        image.save(
            buffer, "JPEG", qtables=tables, subsampling=coding.subsampling, progressive=progressive, **given
        )
    content = buffer.getvalue()
    first = 4 + struct.unpack_from(">H", content, 4)[0]  # after the JFIF segment
    return b"".join([content[:first], *_carried(picture), content[first:]])


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end of the content) of each segment up to the end of the picture."""
    at = 2
    while at < len(content):
        if content[at] != 0xFF:
            raise ValueError("cut off or overwritten between its segments")
        marker = content[at + 1] if at + 1 < len(content) else END
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == END:
            yield END, at + 2, min(at + 2, len(content))
            return
        if at + 4 > len(content):
            return
        stop = at + 2 + struct.unpack_from(">H", content, at + 2)[0]
        yield marker, at + 4, stop
        at = stop
        if marker == START_OF_SCAN:
            following = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]").search(content, stop)
            at = following.end() - 2 if following else len(content)


def _refuse_scans(found: _Found, scans: int, name: str) -> None:
    if len(found.frame) < 6:
        raise ValueError("pixels before their frame")
    height, width = struct.unpack_from(">HH", found.frame, 1)
    if scans * height * width > MAX_SCANNED:
        raise DerainError(
            f"{name}: stores {height * width / 1e6:,.0f} megapixels in {scans} or more scans, which takes "
            "too long to read; save it again with another program."
        )


def _refuse_frame(found: _Found, name: str, max_pixels: int) -> None:
    if len(found.frame) < 6:
        raise ValueError("its frame is cut short")
    depth, height, width, components = struct.unpack_from(">BHHB", found.frame)
    if not height:
        raise DerainError(
            f"{name}: a JPEG that states its height after its pixels, which is not supported; save it "
            "again with another program."
        )
    refuse_size(name, width, height, max_pixels)
    if components not in (1, 3, 4):
        raise ValueError(f"{components} components")
    lossless = found.marker in (0xC3, 0xC7, 0xCB, 0xCF)
    if lossless or depth not in (8, 12) or (depth == 12 and components == 4):
        how = "lossless" if lossless else f"{depth}-bit" + (" CMYK" if components == 4 else "")
        raise DerainError(f"{name}: a {how} JPEG, which is not supported; save it as 16-bit TIFF or PNG.")


def _look_into(found: _Found, marker: int, content: bytes) -> None:
    """Notes what a segment that describes the picture contains."""
    if marker == APP1 and content.startswith(exif_blocks.PREFIX) and found.carried.exif is None:
        found.carried = replace(found.carried, exif=content)
    elif marker == APP1 and content.startswith(XMP) and found.carried.xmp is None:
        found.carried = replace(found.carried, xmp=content[len(XMP) :])
        found.gain_map |= b"hdrgm:" in content or b"HDRGainMap" in content
    elif marker == APP1 and content.startswith(EXTENDED_XMP):
        found.lose("extended XMP")
    elif marker == APP2 and content.startswith(ICC) and len(content) > 14:
        found.profile.setdefault(content[12], content[14:])
    elif marker == APP2 and content.startswith(b"MPF\0"):
        found.several = True
    elif marker == APP2 and content.startswith(b"urn:iso:std:iso:ts:21496"):
        found.gain_map = True
    elif marker == APP11:
        found.lose("content credentials" if b"jumb" in content else "an APP11 segment")
    elif marker == APP13 and content.startswith(PHOTOSHOP):
        _take_photoshop(found, content[len(PHOTOSHOP) :])
    elif marker == COMMENT:
        _take_comment(found, content)
    elif marker == APP0 and content.startswith(b"JFIF\0") and len(content) >= 12:
        _take_resolution(found, content)
    elif marker == TABLES:
        _take_tables(found, content)
    elif APP0 < marker <= 0xEF and marker != APP14:
        label = re.sub(r"[^ -~].*", "", content[:40].decode("latin-1"))[:24]
        found.lose(f"an APP{marker - APP0} segment" + (f" ({label})" if label else ""))


def _take_photoshop(found: _Found, resources: bytes) -> None:
    if iptc := iptc_of_photoshop(resources):
        found.carried = replace(found.carried, iptc=(found.carried.iptc or b"") + iptc)
    if others := other_resources(resources):
        found.lose(others)


def _take_comment(found: _Found, content: bytes) -> None:
    text = content.decode() if is_utf8(content) else content.decode("latin-1")
    if len(found.carried.texts) < MOST_TEXTS:
        found.carried = replace(found.carried, texts=(*found.carried.texts, Text("Comment", text)))


def _take_resolution(found: _Found, content: bytes) -> None:
    unit, across, down = struct.unpack_from(">BHH", content, 7)
    if unit in (1, 2) and across and down:
        inch = 1 if unit == 1 else 2.54
        found.carried = replace(found.carried, dpi=(across * inch, down * inch))


def _take_tables(found: _Found, content: bytes) -> None:
    at = 0
    while at < len(content):
        size = 2 if content[at] >> 4 else 1
        if at + 1 + 64 * size > len(content):
            return
        steps = struct.unpack_from(f">64{'BH'[size - 1]}", content, at + 1)
        natural = [0] * 64
        for number, place in enumerate(JpegImagePlugin.zigzag_index):
            natural[number] = steps[place]
        found.tables[content[at] & 15] = tuple(natural)
        at += 1 + 64 * size


def _name_the_rest(found: _Found, rest: bytes) -> None:
    """Describes what follows the picture: gain maps, further pictures, clips of motion photos."""
    if found.gain_map:
        found.lose("its HDR gain map")
    elif found.several and rest:
        found.lose("the further pictures behind it")
    elif behind := behind_the_end(rest):
        found.lose(behind)


def _profile(found: _Found) -> bytes | None:
    return b"".join(found.profile[number] for number in sorted(found.profile)) or None


def _coding(found: _Found) -> JpegCoding | None:
    """How the file was compressed; None if that should not be copied."""
    frame, tables = found.frame, found.tables
    parts = [frame[6 + 3 * number : 9 + 3 * number] for number in range(frame[5])]
    if any(len(part) < 3 or part[2] not in tables for part in parts):
        return None
    factors = [(part[1] >> 4, part[1] & 15) for part in parts]
    subsampling = SUBSAMPLINGS.get(factors[0]) if set(factors[1:]) <= {(1, 1)} else None
    if len(parts) == 1:
        subsampling = "4:4:4"
    chosen = [tables[parts[0][2]], *([tables[parts[1][2]]] if len(parts) == 3 else [])]
    if subsampling is None or not all(0 < step < 256 for table in chosen for step in table):
        return None
    return JpegCoding(tuple(chosen), subsampling, found.marker == PROGRESSIVE)


def _pixels(content: bytes, components: int, found: _Found) -> Array:
    """(H, W, 1 or 3) uint8. Raises `ValueError` where the decoder had to invent pixels."""
    colours = {1: "GRAY", 3: "RGB", 4: "CMYK"}[components]
    try:
        pixels: Array = simplejpeg.decode_jpeg(content, colours)
    except ValueError as error:
        if BAD_PROFILE in str(error) and found.profile:
            found.profile.clear()
            found.lose("its colour profile, which is incomplete")
            return _pixels(_without_profile(content), components, found)
        stray = STRAY.search(str(error))
        if stray is None or int(stray[1]) > MOST_STRAY:
            raise
        found.lose(f"{stray[1]} stray bytes before its end")
        pixels = simplejpeg.decode_jpeg(content, colours, strict=False)
    if components == 4:  # Pillow knows which programs store inverted inks
        pixels, _ = colours_and_alpha(JpegImagePlugin.JpegImageFile(io.BytesIO(content)))
    return pixels


def _without_profile(content: bytes) -> bytes:
    kept, at = [], 0
    for marker, start, stop in _segments(content):
        if marker == APP2 and content.startswith(ICC, start):
            kept.append(content[at : start - 4])
            at = stop
    return b"".join([*kept, content[at:]])


def _deep_pixels(content: bytes, end: int, components: int) -> Array:
    """(H, W, 1 or 3) uint16 of samples of 12 bits. Raises `ValueError` where they are broken.

    Args:
        end: the end of the picture in `content`.
    """
    # FFmpeg does not report a missing last block, but decodes whatever follows instead.
    first, *others = (
        _decoded_deep(content[: end - 2] + filler + content[end - 2 : end], components)
        for filler in (bytes(64), b"\x55" * 64, b"\0" + b"\x55" * 64)
    )
    if not all(np.array_equal(first, other) for other in others):
        raise ValueError("its 12-bit samples are cut short")
    # FFmpeg shifts samples up by four bits; white is 4095.
    scaled: Array = np.minimum(np.round(first * (65535 / (4095 << 4))), 65535).astype(np.uint16)
    return scaled


def _decoded_deep(content: bytes, components: int) -> Array:
    import av  # loads slowly, and few pictures need it
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import VideoReformatter

    from derain.pictures.video import EXACT
    from derain.pictures.video_facts import RANGE_FULL

    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options, decoder.thread_count = {"err_detect": "explode"}, 1
    try:
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)]
    except av.error.FFmpegError:
        frames = []
    if len(frames) != 1 or frames[0].is_corrupt or not frames[0].format.name.endswith("16le"):
        raise ValueError("its 12-bit samples are broken")
    if components == 1:
        return frames[0].to_ndarray()[..., None]
    matrix = 5  # swscale's number for BT.601, which T.871 prescribes
    rgb = VideoReformatter().reformat(
        frames[0],
        format="rgb48le",
        interpolation=EXACT,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=RANGE_FULL,
        dst_color_range=RANGE_FULL,
    )
    return rgb.to_ndarray()


def _carried(picture: Picture) -> Iterator[bytes]:
    """The segments of what a picture carries, except what is too long for one; see `too_long`."""
    if picture.exif is not None and not too_long(picture.exif):
        yield _segment(APP1, picture.exif)
    if picture.xmp is not None and not too_long(XMP + picture.xmp):
        yield _segment(APP1, XMP + picture.xmp)
    if picture.icc is not None:
        parts = [picture.icc[at : at + ICC_PART] for at in range(0, len(picture.icc), ICC_PART)]
        for number, part in enumerate(parts, 1):
            yield _segment(APP2, ICC + bytes([number, len(parts)]) + part)
    if picture.iptc is not None and not too_long(PHOTOSHOP + picture.iptc + bytes(14)):
        yield _segment(APP13, PHOTOSHOP + photoshop_of_iptc(picture.iptc))
    for text in picture.texts:
        line = text.text if text.keyword == "Comment" else f"{text.keyword}: {text.text}"
        if not too_long(line.encode()):
            yield _segment(COMMENT, line.encode())


def too_long(content: bytes) -> bool:
    """Whether content is too long for a segment."""
    return len(content) > SEGMENT


def profile_too_long(icc: bytes | None) -> bool:
    """Whether a colour profile is too long for the largest number of segments that may hold it."""
    return icc is not None and len(icc) > ICC_PARTS * ICC_PART


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
