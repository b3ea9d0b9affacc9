"""What files hold besides pixels is kept, converted or named; never lost without a word."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from derain.errors import DerainError
from derain.pictures import EXTENSIONS, Picture, encode_picture, read_picture, write_picture
from derain.pictures.picture import ColourCode, Text
from derain.pictures.writing import CARRIED, FORMATS

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="1" xmp:Rating="5"/>'
IPTC = b"\x1c\x02\x19\x00\x04rain\x1c\x02t\x00\tA. Nobody"


def smooth(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / 9 + i) * np.cos(y / (11 + i)) for i in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)


def exif(**tags: Any) -> bytes:
    block = Image.Exif()
    block[0x010F] = "Camera maker"
    block[0x0112] = tags.get("orientation", 1)
    block.get_ifd(0x8769)[0xA002] = 4000  # width and height that are not these
    block.get_ifd(0x8769)[0xA003] = 3000
    return block.tobytes()


def full() -> Picture:
    """A picture with everything."""
    return Picture(
        smooth(),
        exif=exif(),
        icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        dpi=(300.0, 300.0),
        xmp=XMP,
        iptc=IPTC,
        texts=(Text("Comment", "Straße im Regen"), Text("Software", "雨 1.0", "ja", "ソフト")),
        colour=ColourCode(9, 16),
        colour_chunks=((b"gAMA", struct.pack(">I", 100_000)), (b"cLLI", bytes(8))),
    )


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("attribute", CARRIED)
def test_every_format_keeps_everything_or_names_it(tmp_path: Path, extension: str, attribute: str) -> None:
    nothing = Picture(smooth())
    picture = replace(nothing, **{attribute: getattr(full(), attribute)})
    notes = write_picture(tmp_path / f"a{extension}", picture)
    back = read_picture(tmp_path / f"a{extension}")
    held = FORMATS[extension] in CARRIED[attribute][1]
    assert bool(notes) != held, notes
    assert back.lost == ()
    kept, wanted = getattr(back, attribute), getattr(picture, attribute)
    if not held:
        assert not kept
    elif attribute == "dpi":
        assert kept == pytest.approx(wanted, abs=0.02)
    elif attribute == "exif":
        read = Image.Exif()
        read.load(kept)
        assert read[0x010F] == "Camera maker"
        assert (read.get_ifd(0x8769)[0xA002], read.get_ifd(0x8769)[0xA003]) == (64, 48)
    elif attribute == "texts" and extension in (".jpg", ".jpeg"):
        assert [text.text for text in kept] == ["Straße im Regen", "Software: 雨 1.0"]
    else:
        assert kept == wanted


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_everything_at_once(tmp_path: Path, extension: str) -> None:
    notes = write_picture(tmp_path / f"a{extension}", full())
    back = read_picture(tmp_path / f"a{extension}")
    for attribute, (_, formats) in CARRIED.items():
        assert bool(getattr(back, attribute)) == (FORMATS[extension] in formats), attribute
    assert bool(notes) == (extension != ".png")


def chunk(kind: bytes, content: bytes, spoilt: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ spoilt
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(*chunks: bytes) -> bytes:
    content = encode_picture(Picture(smooth()), ".png")
    return content[:33] + b"".join(chunks) + content[33:]


def jpeg(*segments: tuple[int, bytes], behind: bytes = b"", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG", **settings)
    content = buffer.getvalue()
    added = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return content[:20] + added + content[20:] + behind


def raw_profile(name: str, content: bytes) -> bytes:
    body = f"\n{name}\n{len(content):8}\n{content.hex()}\n".encode()
    return chunk(b"zTXt", f"Raw profile type {name}\0\0".encode() + zlib.compress(body))


def resource(number: int, content: bytes) -> bytes:
    return struct.pack(">4sHHI", b"8BIM", number, 0, len(content)) + content + bytes(len(content) % 2)


def test_exif_iptc_and_xmp_in_texts_of_png(tmp_path: Path) -> None:
    """Where programs put them before PNG had a chunk for EXIF."""
    (tmp_path / "a.png").write_bytes(
        png(
            raw_profile("exif", exif(orientation=6)),
            raw_profile("iptc", resource(0x0404, IPTC)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        )
    )
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (64, 48)
    assert picture.exif == exif()
    assert (picture.iptc, picture.xmp) == (IPTC, XMP)
    assert (picture.lost, picture.texts) == ((), ())


def test_a_text_with_a_wrong_checksum_or_a_bomb_is_named(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(100 << 20))
    (tmp_path / "a.png").write_bytes(
        png(
            chunk(b"tEXt", b"Comment\0rain", spoilt=True),
            chunk(b"zTXt", b"Comment\0\0" + bomb),
            chunk(b"prVt", b"?"),
        )
    )
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.pixels, smooth())
    assert picture.lost == (
        "a tEXt chunk with a wrong checksum",
        "a zTXt chunk that cannot be read",
        "a prVt chunk",
    )


def test_metadata_of_jpeg(tmp_path: Path) -> None:
    photoshop = b"Photoshop 3.0\0" + resource(0x03ED, bytes(16)) + resource(0x0404, IPTC)
    segments = [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), (0xED, photoshop), (0xFE, b"a comment")]
    (tmp_path / "a.jpg").write_bytes(jpeg((0xE1, exif(orientation=8)), *segments, (0xE5, b"Maker\0x")))
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (64, 48)
    assert (picture.exif, picture.iptc, picture.xmp) == (exif(), IPTC, XMP)
    assert picture.texts == (Text("Comment", "a comment"),)
    assert picture.lost == ("an APP5 segment (Maker)",)


def test_an_incomplete_profile_is_named_and_costs_no_pixel(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg((0xE2, b"ICC_PROFILE\0\1\2" + bytes(200))))
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.lost == ("its colour profile, which is incomplete",)
    (tmp_path / "b.jpg").write_bytes(jpeg())
    assert np.array_equal(picture.pixels, read_picture(tmp_path / "b.jpg").pixels)


def test_a_jpeg_whose_height_comes_later_is_refused_for_that(tmp_path: Path) -> None:
    content = bytearray(jpeg())
    height = content.index(b"\xff\xc0") + 5
    content[height : height + 2] = b"\0\0"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DerainError, match="states its height after its pixels"):
        read_picture(tmp_path / "a.jpg")


def test_gain_maps_and_clips_behind_a_picture_are_named_and_nothing_tells_of_them(tmp_path: Path) -> None:
    tells = (
        b'<rdf:Description hdrgm:Version="1.0" xmp:Rating="5"><Container:Directory>x</Container:Directory>'
        b"<xmp:Thumbnails>a</xmp:Thumbnails>"
    )
    segment = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + tells)
    (tmp_path / "a.jpg").write_bytes(jpeg(segment, (0xE2, b"MPF\0" + bytes(8)), behind=jpeg()))
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.lost == ("its HDR gain map",)
    assert write_picture(tmp_path / "b.jpg", picture) == ("its HDR gain map",)
    assert read_picture(tmp_path / "b.jpg").xmp == b'<rdf:Description xmp:Rating="5">'
    assert read_picture(tmp_path / "b.jpg").lost == ()
    (tmp_path / "c.jpg").write_bytes(jpeg(behind=b"\0\0\0\x18ftypmp42" + bytes(99)))
    assert read_picture(tmp_path / "c.jpg").lost == ("the clip of a motion photo",)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("quality", "progressive"), [(40, False), (75, True), (98, False)])
def test_a_jpeg_is_compressed_as_its_source_was(
    tmp_path: Path, subsampling: str, quality: int, progressive: bool
) -> None:
    content = jpeg(quality=quality, subsampling=subsampling, progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(content)
    picture = read_picture(tmp_path / "a.jpg")
    write_picture(tmp_path / "b.jpg", picture)
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert after.quantization == before.quantization
        assert [layer[1:3] for layer in after.layer] == [layer[1:3] for layer in before.layer]
        assert after.info.get("progressive") == before.info.get("progressive")
    assert (tmp_path / "b.jpg").stat().st_size == pytest.approx(len(content), rel=0.1)
    write_picture(tmp_path / "c.jpg", picture, 95)
    assert (tmp_path / "c.jpg").read_bytes() == encode_picture(Picture(picture.pixels), ".jpg", 95)


def test_lossless_webp_stays_lossless(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.webp", lossless=True, exact=True)
    picture = read_picture(tmp_path / "a.webp")
    assert write_picture(tmp_path / "b.webp", picture) == ()
    back = read_picture(tmp_path / "b.webp")
    assert np.array_equal(back.pixels, noise[..., :3])
    assert np.array_equal(back.alpha, noise[..., 3])
    assert any("lossless" in note for note in write_picture(tmp_path / "c.avif", picture))


def test_what_colours_mean_goes_from_avif_to_png_and_back(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.avif", Picture(smooth(), colour=ColourCode(12, 13)))  # Display P3
    write_picture(tmp_path / "b.png", read_picture(tmp_path / "a.avif"))
    back = read_picture(tmp_path / "b.png")
    assert back.colour == ColourCode(12, 13)
    (note,) = write_picture(tmp_path / "c.jpg", back)
    assert "primaries 12" in note


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_every_program_assumes_need_not_be_said(tmp_path: Path, extension: str) -> None:
    chunks = ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455)))
    picture = Picture(smooth(), colour=ColourCode(1, 13), colour_chunks=chunks)
    assert write_picture(tmp_path / f"a{extension}", picture) == ()


DAMAGE: dict[str, Callable[[bytearray, int], None]] = {
    "zeros to the end": lambda file, start: file.__setitem__(slice(start, None), bytes(len(file) - start)),
    "zeros inside": lambda file, start: file.__setitem__(slice(start, start + 300), bytes(300)),
    "a part that is missing": lambda file, start: file.__delitem__(slice(start, start + 300)),
    "bytes of something else": lambda file, start: file.__setitem__(
        slice(start, start), bytes(range(1, 200))
    ),
    "no end": lambda file, start: file.__delitem__(slice(-2, None)),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("progressive", [False, True])
def test_garbage_in_a_jpeg_is_found(tmp_path: Path, kind: str, progressive: bool) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", progressive=progressive)
    content = bytearray(buffer.getvalue())
    DAMAGE[kind](content, len(content) // 2)
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DerainError, match="damaged or cut short"):
        read_picture(tmp_path / "a.jpg")


def test_stray_bytes_before_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    content = jpeg()
    (tmp_path / "a.jpg").write_bytes(content[:-2] + bytes(range(1, 13)) + content[-2:])
    (tmp_path / "b.jpg").write_bytes(content)
    picture = read_picture(tmp_path / "a.jpg")
    assert np.array_equal(picture.pixels, read_picture(tmp_path / "b.jpg").pixels)
    (lost,) = picture.lost
    assert "stray bytes before its end" in lost


def test_a_flood_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = bytearray(jpeg(progressive=True))
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    scan = content[content.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(content[:-2] + scan * 100 + content[-2:])
    with pytest.raises(DerainError, match="81 megapixels in 50 or more scans"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(("marker", "depth"), [(0xC3, 8), (0xC3, 16)])
def test_jpegs_that_are_not_read_say_so(tmp_path: Path, marker: int, depth: int) -> None:
    content = bytearray(jpeg())
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = marker, depth
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DerainError, match=r"(16-bit|lossless) JPEG"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_odd_exif_never_stops_a_result(tmp_path: Path, extension: str) -> None:
    """Pillow's encoders raise TypeError, OverflowError and more for such blocks."""
    content, generator = bytearray(exif()[6:]), np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(content)
        for place in generator.integers(8, len(broken), 4):
            broken[place] = generator.integers(256)
        Image.fromarray(smooth()).save(tmp_path / "a.png", exif=b"Exif\0\0" + bytes(broken))
        write_picture(tmp_path / f"b{extension}", read_picture(tmp_path / "a.png"))


def test_paths_and_other_resources_of_photoshop_are_named(tmp_path: Path) -> None:
    def resource(number: int, content: bytes) -> bytes:
        return struct.pack(">4sHHI", b"8BIM", number, 0, len(content)) + content

    plain = encode_picture(Picture(np.zeros((8, 9, 3), np.uint8)), ".jpg")
    for numbers, words in (
        ((0x0404, 0x0425, 0x040C), ()),
        ((0x0404, 0x07D0), ("its clipping paths",)),
        ((0x0406,), ("further image resources of Photoshop",)),
    ):
        content = b"Photoshop 3.0\0" + b"".join(resource(number, b"rain") for number in numbers)
        (tmp_path / "a.jpg").write_bytes(
            plain[:20] + struct.pack(">BBH", 0xFF, 0xED, 2 + len(content)) + content + plain[20:]
        )
        picture = read_picture(tmp_path / "a.jpg")
        assert picture.lost == words
        assert (picture.iptc is not None) == (0x0404 in numbers)
