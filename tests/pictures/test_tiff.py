"""TIFF of every layout against an independent writer, and files that broke readers."""

from __future__ import annotations

import io
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from derain.errors import DerainError
from derain.pictures import read_picture, tiff_pixels, write_picture

HEIGHT, WIDTH = 37, 53
ALPHA = {"unassalpha": 2, "assocalpha": 1, "unspecified": 0}


def noise(samples: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random((HEIGHT, WIDTH, samples)).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, samples), dtype=dtype, endpoint=True)


def turned(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """As Pillow turns it, by way of the places of its pixels."""
    places = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH))
    places.getexif()[0x0112] = orientation
    return samples.reshape(HEIGHT * WIDTH, -1)[np.asarray(ImageOps.exif_transpose(places))]


def expected(samples: NDArray[Any], colours: int, white_is_zero: bool) -> NDArray[Any]:
    values = samples
    if samples.dtype.kind == "f":
        values = np.rint(samples.astype(np.float64) * 65535).astype(np.uint16)
    pixels = values[..., :colours]
    return np.iinfo(pixels.dtype).max - pixels if white_is_zero else pixels


@settings(max_examples=60, derandomize=True)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "float16", "float32", "float64"]),
    photometric=st.sampled_from(["minisblack", "miniswhite", "rgb"]),
    extra=st.lists(st.sampled_from(["unassalpha", "unspecified"]), max_size=2, unique=True),
    orientation=st.integers(1, 8),
    planar=st.sampled_from(["contig", "separate"]),
    tile=st.sampled_from([None, (16, 16), (16, 32)]),
    rows=st.sampled_from([None, 1, 10]),
    compression=st.sampled_from([None, "zlib"]),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    at_once=st.sampled_from([1, 2000, 1 << 24]),
)
def test_every_layout_is_read_as_it_was_written(
    dtype: str,
    photometric: str,
    extra: list[str],
    orientation: int,
    planar: str,
    tile: tuple[int, int] | None,
    rows: int | None,
    compression: str | None,
    order: Any,
    big: bool,
    at_once: int,
) -> None:
    colours = 3 if photometric == "rgb" else 1
    samples = noise(colours + len(extra), dtype)
    stored = samples.transpose(2, 0, 1) if planar == "separate" else samples
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        tifffile.imwrite(
            path,
            stored if samples.shape[2] > 1 else samples[..., 0],
            photometric=photometric,
            planarconfig=planar if samples.shape[2] > 1 else None,
            extrasamples=extra or None,
            tile=tile,
            rowsperstrip=None if tile else rows,
            compression=compression,
            byteorder=order,
            bigtiff=big,
            extratags=[(0x0112, "H", 1, orientation, True)],
            metadata=None,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiff_pixels, "GROUP_BYTES", at_once)
            picture = read_picture(path)
        right = turned(expected(samples, colours, photometric == "miniswhite"), orientation)
        assert np.array_equal(picture.pixels, right)
        if "unassalpha" in extra:
            alpha = expected(samples[..., colours + extra.index("unassalpha"), None], 1, False)
            assert np.array_equal(picture.alpha, turned(alpha, orientation)[..., 0])
        else:
            assert picture.alpha is None
        assert any("further channel" in what for what in picture.lost) == ("unspecified" in extra)
        assert any("floating point" in what for what in picture.lost) == (dtype[0] == "f")


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "zstd", "packbits", "tiff_adobe_deflate", "tiff_deflate", "lzma"]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_compressions(tmp_path: Path, compression: str, dtype: str) -> None:
    samples = noise(1, dtype)[..., 0] if dtype == "uint16" else noise(3, dtype)
    Image.fromarray(samples).save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 2})
    assert np.array_equal(np.squeeze(read_picture(tmp_path / "a.tif").pixels), samples)


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_is_more_than_numbers_is_converted(tmp_path: Path, mode: str, orientation: int) -> None:
    source = Image.fromarray(noise(3, "uint8")).resize((64, 48))
    image = source if mode == "LAB" else source.convert(mode)
    if mode == "LAB":
        pytest.importorskip("PIL.ImageCms")
        from PIL import ImageCms

        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    image.save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    if mode == "LAB":
        with pytest.raises(DerainError, match="not supported"):
            read_picture(tmp_path / "a.tif")
        return
    right = image.convert("L" if mode == "1" else "RGB")
    right.getexif()[0x0112] = orientation
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(np.squeeze(picture.pixels), np.asarray(ImageOps.exif_transpose(right)))
    changed = {
        "P": ("its palette (converted to RGB)",),
        "1": ("1 bit per channel (became 8)",),
        "CMYK": ("its CMYK colours (converted to RGB)",),
    }
    assert picture.lost == changed.get(mode, ())


def packed(values: NDArray[np.uint32], bits: int) -> bytes:
    """Rows of numbers of so many bits, each row filled up to whole bytes."""
    digits = (values.reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian file of one directory of (tag, type, count, value or offset), and bytes behind it."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", following) + tail


def layout(width: int, height: int, bits: int, size: int, more: int = 0) -> list[tuple[int, int, int, int]]:
    """Of one grey strip that follows a directory of ten tags and `more`."""
    place = 8 + 2 + 12 * (10 + more) + 4
    return [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, place), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, size), (284, 3, 1, 1)),
    ]


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_other_depths_are_stretched_to_the_full_range(tmp_path: Path, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (20, 31), dtype=np.uint32)
    values[0, :2] = 0, (1 << bits) - 1
    content = packed(values, bits)
    (tmp_path / "a.tif").write_bytes(tiff(layout(31, 20, bits, len(content)), content))
    pixels = read_picture(tmp_path / "a.tif").pixels[..., 0]
    full = 255 if bits < 8 else 65535
    assert np.abs(pixels - values / ((1 << bits) - 1) * full).max() <= 0.5
    assert pixels[0, :2].tolist() == [0, full]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_words_that_say_they_are_not_full_are_stretched(tmp_path: Path, bits: int, channels: int) -> None:
    most = (1 << bits) - 1
    samples = np.linspace(0, most, 24 * 30 * channels).round().astype(np.uint16).reshape(24, 30, channels)
    photometric = "rgb" if channels == 3 else "minisblack"
    largest = (281, 3, channels, (most,) * channels if channels > 1 else most, True)
    tifffile.imwrite(tmp_path / "a.tif", samples.squeeze(), photometric=photometric, extratags=[largest])
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels / 65535 - samples / most).max() < 1e-4
    assert picture.lost == (f"words of 16 bits of which {bits} were used (stretched to 16)",)
    samples[0, 0, 0] = most + 1  # then it says nothing
    tifffile.imwrite(tmp_path / "a.tif", samples.squeeze(), photometric=photometric, extratags=[largest])
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, samples)


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    content = (tmp_path / "a.tif").read_bytes()
    for number, name in ((50002, "JPEG XL"), (34712, "JPEG 2000")):
        entry = struct.pack("<HHI", 259, 3, 1)
        assert content.count(entry) == 1
        changed = content.replace(entry + struct.pack("<H", 1), entry + struct.pack("<H", number))
        (tmp_path / "a.tif").write_bytes(changed)
        with pytest.raises(DerainError, match=f"a TIFF compressed as {name}, which is not supported"):
            read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_premultiplied_colours_become_straight(tmp_path: Path, dtype: str) -> None:
    largest = np.iinfo(dtype).max
    alpha = noise(1, dtype, seed=1) | (largest // 2 + 1)
    colours = noise(3, dtype)
    product = np.round(colours.astype(float) * alpha / largest).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.concatenate([product, alpha], axis=2),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - colours).max() <= 1
    assert np.array_equal(picture.alpha, alpha[..., 0])


def test_floats_beyond_the_range_are_refused_with_what_was_seen(tmp_path: Path) -> None:
    samples = noise(3, "float32")
    samples[3, 4, 1] = 7.25
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    with pytest.raises(DerainError, match=r"from 0.* to 7\.25"):
        read_picture(tmp_path / "a.tif")
    samples[3, 4, 1] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    with pytest.raises(DerainError, match="nan"):
        read_picture(tmp_path / "a.tif")


def test_thumbnails_behind_the_picture_are_named_and_pages_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(noise(3, "uint8"), photometric="rgb")
        file.write(noise(3, "uint8")[::4, ::4], photometric="rgb", subfiletype=1)
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, noise(3, "uint8"))
    assert "its smaller copies" in picture.lost
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(noise(3, "uint8"), photometric="rgb")
        file.write(noise(3, "uint8"), photometric="rgb")
    with pytest.raises(DerainError, match="2 frames or pages"):
        read_picture(tmp_path / "b.tif")


def chain(pages: int) -> bytes:
    """A file of so many tiny pages."""
    strip, size = 8, 2 + 12 * 10 + 4
    parts = [b"II*\0" + struct.pack("<I", 24) + bytes(16)]
    for number in range(pages):
        entries = [(273, 4, 1, strip) if entry[0] == 273 else entry for entry in layout(4, 4, 8, 16)]
        following = 24 + (number + 1) * size if number + 1 < pages else 0
        parts.append(tiff(entries, following=following)[8:])
    return b"".join(parts)


def test_the_time_for_chains_of_pages_is_bounded(tmp_path: Path) -> None:
    """It used to grow with the square of the pages."""

    def seconds(pages: int) -> float:
        (tmp_path / "a.tif").write_bytes(chain(pages))
        began = time.process_time()
        with pytest.raises(DerainError, match="pages"):
            read_picture(tmp_path / "a.tif")
        return time.process_time() - began

    seconds(10)
    assert seconds(200_000) < 20 * seconds(2_000) + 0.5


@pytest.mark.parametrize(
    "odd",
    [
        (34675, 3, 1, 7),  # a profile of one SHORT
        (34675, 4, 1, 1),
        (34675, 7, 1 << 30, 8),  # beyond the end of the file
        (34675, 99, 4, 8),  # of no type
        (282, 2, 4, 0x414141),  # a resolution of letters
        (282, 5, 1, 1 << 30),
        (700, 3, 1, 7),
    ],
)
def test_tags_of_the_wrong_type_spoil_no_picture(tmp_path: Path, odd: tuple[int, int, int, int]) -> None:
    ramp = bytes(range(16))
    (tmp_path / "a.tif").write_bytes(tiff([*layout(4, 4, 8, 16, more=1), odd], ramp))
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels.tobytes() == ramp
    assert (picture.icc, picture.dpi, picture.xmp) == (None, None, None)
    assert picture.lost or odd[0] == 282
    for extension in (".png", ".jpg", ".tif", ".webp", ".avif", ".bmp"):
        notes = write_picture(tmp_path / f"b{extension}", picture)
        assert set(picture.lost) <= set(notes)


def test_broken_files_give_a_picture_or_one_line_and_no_chatter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(3, "uint8"), photometric="rgb", compression="zlib", description="rain")
    content, generator = buffer.getvalue(), np.random.default_rng(0)
    first = struct.unpack_from("<I", content, 4)[0]
    refused = []
    for _ in range(300):
        broken = bytearray(content)
        for place in generator.integers(0, 300, 4):
            broken[(first + place) % len(broken)] = generator.integers(256)
        broken[generator.integers(8, len(broken))] ^= 255  # mostly inside the compressed pixels
        (tmp_path / "a.tif").write_bytes(broken)
        try:
            read_picture(tmp_path / "a.tif", max_pixels=10**6)
        except DerainError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert not any("\n" in message for message in refused)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_strips_are_read_and_written_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    monkeypatch.setattr(tiff_pixels, "GROUP_BYTES", 1 << 18)
    samples = np.random.default_rng(0).integers(0, 65536, (900, 1200, 3), np.uint16)
    rows = None if compression is None else 16
    tifffile.imwrite(
        tmp_path / "a.tif", samples, photometric="rgb", compression=compression, rowsperstrip=rows
    )
    tracemalloc.start()
    picture = read_picture(tmp_path / "a.tif")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(picture.pixels, samples)
    assert most < (tmp_path / "a.tif").stat().st_size + samples.nbytes + (4 << 20)

    tracemalloc.start()
    write_picture(tmp_path / "b.tif", picture)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 << 20  # a few strips of 1 MB; the pixels take 6.5 MB
    assert np.array_equal(read_picture(tmp_path / "b.tif").pixels, samples)
