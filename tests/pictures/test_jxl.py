"""JPEG XL pictures, read with the optional package."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from derain.errors import DerainError
from derain.pictures import file_kind, read_picture
from derain.pictures.jxl import CodestreamHeader, read_header
from derain.pictures.picture import ColourCode

pytest.importorskip("pillow_jxl", reason="the extra 'formats' is not installed")

WIDTH, HEIGHT = 24, 16
# Declares 8 x 8 pixels, and has one frame of 18,700 x 18,700.
LARGE_FRAME = zlib.decompress(base64.b64decode("eNr7z+XooMKhxsBwhgGCBRgkHBhYRtEoIg55S3SLNjEyjwJ6AwBzTzrg"))
SIZE = "1 10000 001"  # in eighths: 16 high, 3 : 2
RGB = "0 00 1 00 0 1 00 1"  # 8 bits, no other channels, as stored, sRGB


def scene(channels: int, kind: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = np.stack([x / WIDTH, y / HEIGHT, (x + y) / (WIDTH + HEIGHT), (x + 1) / WIDTH], 2)[..., :channels]
    return (planes * np.iinfo(kind).max).astype(kind)


def jxl(path: Path, samples: np.ndarray, **options: object) -> Path:
    image = Image.fromarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    image.save(path, "JXL", **{"lossless": True, **options})
    return path


def packed(bits: str) -> bytes:
    """Bits, the lowest of each byte first; spaces are for the eye."""
    bits = bits.replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def with_header(path: Path, bits: str) -> Path:
    """A file of `jxl` with another header, whose own is three bytes long."""
    content = path.read_bytes()
    path.write_bytes(content[:2] + packed(bits) + content[5:])
    return path


@pytest.mark.parametrize(("channels", "kind"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16)])
def test_pixels_are_those_of_the_file(channels: int, kind: type, tmp_path: Path) -> None:
    samples = scene(channels, kind)
    picture = read_picture(jxl(tmp_path / "a.png", samples))  # whatever it is called
    assert np.array_equal(picture.pixels, samples[..., :3])
    assert (picture.alpha is not None) == (channels == 4)
    assert picture.alpha is None or np.array_equal(picture.alpha, samples[..., 3])
    assert picture.lost == ()


def test_metadata_is_kept_and_results_are_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A phone", 6  # the codestream counts, and says nothing of being turned
    path = jxl(tmp_path / "a.jxl", scene(3), exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", use_container=True)
    kind = file_kind(path)
    assert kind is not None
    assert (kind.name, kind.result) == ("JPEG XL", ".png")
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, scene(3))
    assert picture.xmp == b"<x:xmpmeta/>"
    read = Image.Exif()
    assert picture.exif is not None
    read.load(picture.exif)
    assert (read[0x010F], read[0x0112]) == ("A phone", 1)


def test_a_packed_jpeg_is_that_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = tmp_path / "a.jpg"
    Image.fromarray(scene(3)).save(source, quality=75, exif=exif.tobytes(), comment=b"rain")
    with Image.open(source) as image, pytest.warns(UserWarning, match="JPEG reconstruction"):
        image.save(tmp_path / "a.jxl")
    one, other = read_picture(source), read_picture(tmp_path / "a.jxl")
    assert np.array_equal(one.pixels, other.pixels)
    assert one.size == (WIDTH, HEIGHT)
    assert (one.exif, one.jpeg, one.texts) == (other.exif, other.jpeg, other.texts)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation: int, tmp_path: Path) -> None:
    path = jxl(tmp_path / "a.jxl", scene(3))
    turn = f"{orientation - 1:03b}"[::-1]  # the lowest bit first
    with_header(path, SIZE + f"0 1 {turn} 0 0 0" + "0 00 1 00 0 1 1 00 1")
    turned = {
        **{1: scene(3), 2: scene(3)[:, ::-1], 3: scene(3)[::-1, ::-1], 4: scene(3)[::-1]},
        **{5: scene(3).swapaxes(0, 1), 6: np.rot90(scene(3), -1)},
        **{7: scene(3)[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(scene(3))},
    }
    assert np.array_equal(read_picture(path).pixels, turned[orientation])


def test_colours_multiplied_by_alpha_become_straight(tmp_path: Path) -> None:
    samples = scene(4)
    multiplied = samples.copy()
    multiplied[..., :3] = np.round(samples[..., :3] * (samples[..., 3:] / 255.0))
    path = jxl(tmp_path / "a.jxl", multiplied)
    alpha = "0 00 0 00 00 00 1"  # not as usual; alpha, 8 bits, full size, no name, multiplied
    with_header(path, SIZE + "0 0 0 00 1 10" + alpha + "0 1 00 1")
    picture = read_picture(path)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, samples[..., 3])
    opaque = samples[..., 3] > 100
    assert np.abs(picture.pixels.astype(int) - samples[..., :3])[opaque].max() <= 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("0 1 000 0 0 1", "is an animation"),
        ("0 0 1 00 0001 1 00 0 1 00 1", "type 'float'"),
        ("0 0 0 00 1 11" + "1" * 12 + "1" * 4096 + "0 1 00 1", "4,096 channels besides"),
        ("0 0 0 00 1 10 0 01 0100 0 00 00 00 1 1 00 1", "type 'CMYK'"),
        ("0 0 0 00 1 00 1 0 1 00 00 1", "does not apply its colour profile"),
        ("", "its header is cut short"),
    ],
)
def test_what_is_not_read_is_said_in_a_line(fields: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + packed(SIZE + fields))
    with pytest.raises(DerainError, match=words) as caught:
        read_picture(tmp_path / "a.jxl")
    assert "\n" not in str(caught.value)


def test_the_declared_size_counts_before_anything_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jxl"
    path.write_bytes(b"\xff\x0a" + packed("0 11" + "1" * 30 + "100" + RGB) + bytes(99))  # 2^30 squared
    with pytest.raises(DerainError, match=r"1,073,741,824 x 1,073,741,824"):
        read_picture(path)
    with pytest.raises(DerainError, match="0 megapixels"):
        read_picture(jxl(path, scene(3)), max_pixels=100)


def test_a_frame_larger_than_its_picture_meets_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jxl"
    path.write_bytes(LARGE_FRAME)
    assert read_header(LARGE_FRAME) == CodestreamHeader(8, 8)
    with pytest.raises(DerainError, match=r"a JPEG XL file that is damaged or cut short"):
        read_picture(path)


def test_colours_of_the_header() -> None:
    """BT.2020 with PQ has words, a gamma of 1/2 has none."""
    start = b"\xff\x0a"
    fields = SIZE + "0 0 0 00 1 00 0 0 0 00"
    code = fields + "10 01 1110 0 01 0111 00 00 1"
    assert read_header(start + packed(code)).colour == ColourCode(9, 16)
    gamma = fields + "10 10 1" + "0" * 24 + "00 00 1"
    assert read_header(start + packed(gamma)).colour is None


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_header_is_read_or_refused(tail: bytes) -> None:
    try:
        header = read_header(b"\xff\x0a" + tail)
    except ValueError:
        return
    assert header.width > 0
    assert header.height > 0


def test_broken_files_end_in_a_line(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene(4)).save(buffer, "JXL", lossless=True)
    rng, path = np.random.default_rng(0), tmp_path / "a.jxl"
    for turn in range(6):
        content = bytearray(buffer.getvalue())
        content[int(rng.integers(5, len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content[: len(content) - 20 * (turn % 2)])
        told = ""
        try:
            assert read_picture(path).size == (HEIGHT, WIDTH)
        except DerainError as error:
            told = str(error)
        assert not told or (told.startswith(f"{path}: ") and "\n" not in told)
