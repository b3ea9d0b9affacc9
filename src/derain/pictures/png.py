"""PNG (third edition of the W3C recommendation): chunks, and what they carry.

Pillow decodes 8 bits, and OpenCV 16-bit colour, for which Pillow has no mode. Both get only the
chunks that make up the pixels, so that no odd text can spoil the picture, and OpenCV gets nothing that its
libpng would warn about on the terminal.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, PngImagePlugin

from derain.errors import DerainError
from derain.pictures import exif as exif_blocks
from derain.pictures.decoding import (
    BECAME_8,
    behind_the_end,
    colours_and_alpha,
    left_behind,
    opencv_16_bits,
    refuse_several,
    refuse_size,
)
from derain.pictures.photoshop import iptc_of_photoshop
from derain.pictures.picture import Array, ColourCode, Picture, Text, without_pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")
ANIMATION = (b"acTL", b"fcTL", b"fdAT")
XMP_KEYWORD = "XML:com.adobe.xmp"
INCH = 0.0254  # metres
MOST_BYTES = 64 << 20  # of everything but pixels, decompressed
MOST_TEXTS = 1000
LIBPNG_SIDE = 1_000_000  # pixels: libpng's limit
STRIP_BYTES = 1 << 20
# For each pass over the pixels, the first column and row, and the steps to the next (section 8.1).
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
)


def read(content: bytes, name: str, max_pixels: int) -> Picture:
    """A PNG file's picture as stored, not yet turned upright."""
    pieces, carried = [SIGNATURE], without_pixels()
    for kind, start, end in _chunks(content):
        if kind in PIXELS:
            if zlib.crc32(content[start - 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise ValueError("a wrong checksum of its pixels")
            pieces.append(content[start - 8 : end + 4])
            if kind == b"IHDR":
                width, height = struct.unpack_from(">II", content, start)
                refuse_size(name, width, height, max_pixels)
        elif kind == b"acTL":
            refuse_several(name, struct.unpack_from(">I", content, start)[0])
        elif kind not in ANIMATION:
            carried = _with_chunk(carried, kind, content[start:end], content[end : end + 4])
    if behind := behind_the_end(content[end + 4 :]):
        carried = _with_loss(carried, behind)
    clean = b"".join(pieces)
    if clean[12:16] != b"IHDR":
        raise ValueError("its header is missing")
    depth, colour_type = clean[24:26]
    if depth == 16 and colour_type != 0:
        PngImagePlugin.PngImageFile(io.BytesIO(clean), name).load()  # its errors are clearer
        pixels, alpha = opencv_16_bits(_without_oddities(pieces, name), grey=colour_type == 4)
        return replace(carried, pixels=pixels, alpha=alpha)
    image = PngImagePlugin.PngImageFile(io.BytesIO(clean), name)
    if image.mode.startswith("I;16"):
        pixels, alpha = np.array(image).astype(np.uint16, copy=False)[..., None], None
        if (key := image.info.get("transparency")) is not None:
            alpha = np.where(pixels[..., 0] == key, 0, 65535).astype(np.uint16)
    else:
        pixels, alpha = colours_and_alpha(image)
        few = (f"{depth} bits per channel{BECAME_8}",) if colour_type == 0 and depth in (2, 4) else ()
        carried = replace(carried, lost=(*carried.lost, *left_behind(image.mode), *few))
    return replace(carried, pixels=pixels, alpha=alpha)


def _without_oddities(pieces: list[bytes], name: str) -> bytes:
    """A file of 16-bit colour, given as its signature and chunks, reduced to its pixels.

    Raises:
        DerainError, ValueError, zlib.error: its pixels do not agree with its header.
    """
    bodies: dict[bytes, list[bytes]] = {}
    for piece in pieces[1:]:
        bodies.setdefault(piece[4:8], []).append(piece[8:-4])
    header = bodies[b"IHDR"][0]
    width, height, _, colour_type, *methods = struct.unpack(">IIBBBBB", header)
    if max(width, height) > LIBPNG_SIDE:
        raise DerainError(
            f"{name}: {width:,} x {height:,} pixels of 16 bits; sides up to {LIBPNG_SIDE:,} are read."
        )
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise ValueError("an unknown compression, filter or order of rows")
    passes = ADAM7 if methods[2] else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // across), -((y - height) // down)) for x, y, across, down in passes]
    row = 2 * {2: 3, 4: 2, 6: 4}[colour_type]
    length = sum(rows * (1 + columns * row) for columns, rows in sizes if columns > 0 and rows > 0)
    packed = _exactly(b"".join(bodies.get(b"IDAT", [])), length)
    clear = [body for body in bodies.get(b"tRNS", []) if colour_type == 2 and len(body) == 6]
    chunks = [(b"IHDR", header), *((b"tRNS", body) for body in clear[:1]), (b"IDAT", packed), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def _exactly(packed: bytes, length: int) -> bytes:
    """Compressed bytes that decompress to this length, without what some programs append to them.

    Raises:
        ValueError, zlib.error: there are fewer, or their checksum is wrong.
    """
    unpacker, found, rest = zlib.decompressobj(), 0, packed
    while rest and not unpacker.eof and found <= length:
        found += len(unpacker.decompress(rest, STRIP_BYTES))
        rest = unpacker.unconsumed_tail
    if found > length or unpacker.unused_data:
        return zlib.compress(zlib.decompressobj().decompress(packed, length), 1)
    if not unpacker.eof or found < length:
        raise ValueError("fewer pixels than it states")
    return packed


def write(picture: Picture, samples: Array) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16 samples as a PNG file with everything that `picture` carries."""
    if samples.dtype == np.uint16:
        import cv2  # loads slowly, and few pictures need it

        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
        done, encoded = cv2.imencode(".png", samples[..., order], [cv2.IMWRITE_PNG_COMPRESSION, 6])
        if not done:
            raise ValueError("its pixels cannot be compressed")
        content = encoded.tobytes()
    else:
        buffer = io.BytesIO()
        Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples).save(buffer, "PNG")
        content = buffer.getvalue()
    header_end = len(SIGNATURE) + 25
    return b"".join([content[:header_end], *_carried(picture), content[header_end:]])


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end of the content) of each chunk up to the end of the picture."""
    at = len(SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(content):
            raise ValueError("cut off inside its chunks")
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise ValueError("cut off before its end")


def _with_chunk(carried: Picture, kind: bytes, content: bytes, checksum: bytes) -> Picture:
    """`carried` with what another chunk holds."""
    label = f"a {kind.decode('ascii', 'replace')} chunk"
    if zlib.crc32(kind + content) != int.from_bytes(checksum, "big"):
        return _with_loss(carried, f"{label} with a wrong checksum")
    try:
        match kind:
            case b"tEXt" | b"zTXt" | b"iTXt":
                return _with_text(carried, _text(kind, content))
            case b"eXIf":
                return replace(carried, exif=exif_blocks.PREFIX + content.removeprefix(exif_blocks.PREFIX))
            case b"iCCP":
                return replace(carried, icc=_unpacked(content.split(b"\0", 1)[1][1:]))
            case b"pHYs":
                across, down, unit = struct.unpack(">IIB", content)
                if unit == 1:
                    return replace(carried, dpi=(across * INCH, down * INCH))
                return carried if across == down else _with_loss(carried, "its pixel aspect ratio")
            case b"cICP":
                primaries, transfer, matrix, full = struct.unpack(">4B", content)
                if matrix == 0:  # RGB, as everything in PNG
                    return replace(carried, colour=ColourCode(primaries, transfer, bool(full)))
    except (ValueError, IndexError, struct.error, zlib.error):
        return _with_loss(carried, f"{label} that cannot be read")
    if kind in COLOUR_CHUNKS and len(content) <= 64:
        return replace(carried, colour_chunks=(*carried.colour_chunks, (kind, content)))
    if kind == b"caBX":
        label = "content credentials"
    return carried if kind == b"tIME" else _with_loss(carried, label)  # a new file has its own time


def _with_loss(carried: Picture, what: str) -> Picture:
    """`carried` with a note on what the file contains that it does not; some twenty notes are enough."""
    if what in carried.lost or len(carried.lost) > 20:
        return carried
    return replace(carried, lost=(*carried.lost, what))


def _text(kind: bytes, content: bytes) -> Text:
    keyword, rest = content.split(b"\0", 1)
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return Text(name, rest.decode("latin-1"))
    if kind == b"zTXt":
        return Text(name, _unpacked(rest[1:]).decode("latin-1"))
    packed = rest[:1] == b"\1"
    language, translated, text = rest[2:].split(b"\0", 2)
    text = _unpacked(text) if packed else text
    return Text(name, text.decode("utf-8"), language.decode("ascii"), translated.decode("utf-8"))


def _with_text(carried: Picture, text: Text) -> Picture:
    """`carried` with a text. Some programs put XMP into texts and, before PNG had chunks for these, EXIF and
    IPTC."""
    if text.keyword == XMP_KEYWORD:
        return replace(carried, xmp=text.text.encode())
    if text.keyword.startswith("Raw profile type "):
        profile = text.keyword.removeprefix("Raw profile type ")
        # A newline, the name, the length, and the bytes in hexadecimal digits.
        raw = bytes.fromhex(text.text.split(None, 2)[2])
        if profile in ("exif", "APP1") and raw.startswith(exif_blocks.PREFIX):
            return carried if carried.exif is not None else replace(carried, exif=raw)
        if profile == "iptc":
            return replace(carried, iptc=_iptc(raw))
        if profile == "xmp":
            return replace(carried, xmp=raw)
    if len(carried.texts) >= MOST_TEXTS:
        return _with_loss(carried, f"texts beyond the first {MOST_TEXTS:,}")
    return replace(carried, texts=(*carried.texts, text))


def _iptc(raw: bytes) -> bytes:
    return iptc_of_photoshop(raw) or raw if raw.startswith(b"8BIM") else raw


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(content, MOST_BYTES)
    if not unpacker.eof:
        raise ValueError("larger than any picture's, or cut off")
    return unpacked


def _carried(picture: Picture) -> Iterator[bytes]:
    """The chunks of what a picture carries, in the order that PNG requires."""
    if picture.colour is not None:
        code = picture.colour
        yield _chunk(b"cICP", bytes([code.primaries, code.transfer, 0, code.full_range]))
    for kind, content in picture.colour_chunks:
        if not (kind == b"sRGB" and picture.icc is not None):  # one or the other
            yield _chunk(kind, content)
    if picture.icc is not None:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc))
    if picture.dpi is not None:
        across, down = (round(value / INCH) for value in picture.dpi)
        yield _chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if picture.exif is not None:
        yield _chunk(b"eXIf", picture.exif.removeprefix(exif_blocks.PREFIX))
    if picture.xmp is not None:
        yield _chunk(b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + picture.xmp)
    if picture.iptc is not None:
        digits = picture.iptc.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        profile = f"\niptc\n{len(picture.iptc):8}\n{lines}\n"
        yield _chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile.encode("ascii")))
    for text in picture.texts:
        yield _text_chunk(text)


def _text_chunk(text: Text) -> bytes:
    keyword = text.keyword.encode("latin-1", "replace")[:79].strip() or b"Comment"
    plain = not text.language and not text.translated
    try:
        if plain:
            return _chunk(b"tEXt", keyword + b"\0" + text.text.encode("latin-1").replace(b"\0", b" "))
    except UnicodeEncodeError:
        pass
    language, translated = text.language.encode("ascii", "replace"), text.translated.encode()
    return _chunk(b"iTXt", b"\0".join([keyword, b"\0" + b"\0" + language, translated, text.text.encode()]))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
