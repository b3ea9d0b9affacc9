"""Every format there and back: depth, alpha, EXIF, profile, resolution."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps

from derain.errors import DerainError, UsageError
from derain.pictures import EXTENSIONS, Picture, encode_picture, read_picture, write_picture

LOSSLESS = [".png", ".tif", ".tiff", ".bmp"]
DEEP = [".png", ".tif", ".tiff"]
WITH_ALPHA = [".png", ".tif", ".tiff", ".webp", ".avif"]
WITH_METADATA = [extension for extension in EXTENSIONS if extension != ".bmp"]


def noise(height: int, width: int, channels: int, dtype: type = np.uint8, seed: int = 0) -> NDArray:
    largest = np.iinfo(dtype).max
    generator = np.random.default_rng(seed)
    return generator.integers(0, largest, (height, width, channels), dtype=dtype, endpoint=True)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Something that lossy formats keep well."""
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / 9 + i) * np.cos(y / (11 + i)) for i in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)


def icc_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    exif[0x0132] = "2024:05:06 07:08:09"
    exif[0x8298] = "Someone"
    exif.get_ifd(0x8769)[0x829A] = 0.004  # exposure time
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825)[1] = "N"  # GPS latitude
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 31.5)
    if orientation is not None:
        exif[0x0112] = orientation
    return exif.tobytes()


def psnr(first: NDArray, second: NDArray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize("extension", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_keep_every_bit(tmp_path: Path, extension: str, channels: int) -> None:
    picture = Picture(noise(31, 47, channels))
    write_picture(tmp_path / f"a{extension}", picture)
    back = read_picture(tmp_path / f"a{extension}")
    assert back.pixels.dtype == np.uint8
    assert np.array_equal(back.pixels, picture.pixels)
    assert back.alpha is None


@pytest.mark.parametrize("extension", DEEP)
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_stay_16_bits(tmp_path: Path, extension: str, channels: int) -> None:
    picture = Picture(noise(31, 47, channels, np.uint16))
    write_picture(tmp_path / f"a{extension}", picture)
    back = read_picture(tmp_path / f"a{extension}")
    assert back.pixels.dtype == np.uint16
    assert np.array_equal(back.pixels, picture.pixels)


@pytest.mark.parametrize("extension", DEEP)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_kept_to_the_bit(tmp_path: Path, extension: str, dtype: type, channels: int) -> None:
    picture = Picture(noise(31, 47, channels, dtype), noise(31, 47, 1, dtype, seed=1)[..., 0])
    write_picture(tmp_path / f"a{extension}", picture)
    back = read_picture(tmp_path / f"a{extension}")
    assert np.array_equal(back.alpha, picture.alpha)
    assert np.array_equal(*np.broadcast_arrays(back.pixels, picture.pixels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("extension", DEEP)
def test_other_programs_read_the_16_bit_files(tmp_path: Path, extension: str, channels: int) -> None:
    samples = noise(301, 470, channels, np.uint16)  # several strips
    alpha = samples[..., 3] if channels == 4 else None
    path = tmp_path / f"a{extension}"
    write_picture(path, Picture(samples[..., :3], alpha, exif_block(), icc_profile()))
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(samples.shape)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert np.array_equal(read[..., order], samples)


def test_16_bit_files_of_another_program_are_read(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    samples = noise(100, 120, 4, np.uint16)
    for name, options in {
        "plain": {},
        "zlib": {"compression": "zlib"},
        "big endian": {"byteorder": ">"},
        "tiles": {"tile": (32, 32)},
        "bigtiff": {"bigtiff": True},
    }.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, samples[..., :3], photometric="rgb", **options)
        assert np.array_equal(read_picture(path).pixels, samples[..., :3]), name
        tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"], **options)
        assert np.array_equal(read_picture(path).alpha, samples[..., 3]), name
        tifffile.imwrite(path, samples[..., 0], photometric="minisblack", **options)
        assert np.array_equal(read_picture(path).pixels[..., 0], samples[..., 0]), name


@pytest.mark.parametrize("extension", [".jpg", ".webp", ".avif"])
def test_lossy_formats_stay_close(tmp_path: Path, extension: str) -> None:
    picture = Picture(smooth(96, 128))
    write_picture(tmp_path / f"a{extension}", picture)
    assert psnr(read_picture(tmp_path / f"a{extension}").pixels, picture.pixels) > 38


def test_jpeg_has_full_colour_resolution_and_the_quality_asked_for() -> None:
    picture = Picture(smooth(96, 128))
    fine, coarse = (encode_picture(picture, ".jpg", jpeg_quality=quality) for quality in (95, 30))
    assert len(coarse) < len(fine)
    with Image.open(io.BytesIO(fine)) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    with pytest.raises(UsageError, match="quality 0"):
        encode_picture(picture, ".jpg", jpeg_quality=0)


def test_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", Picture(smooth(40, 50)[..., :1]))
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (40, 50, 1)


@pytest.mark.parametrize("extension", [".jpg", ".webp", ".bmp", ".avif"])
def test_16_bits_are_rounded_where_8_must_do(tmp_path: Path, extension: str) -> None:
    deep = smooth(40, 50).astype(np.uint16) * 257 + np.uint16(100)
    write_picture(tmp_path / f"a{extension}", Picture(deep))
    write_picture(tmp_path / f"b{extension}", Picture(smooth(40, 50)))
    assert (tmp_path / f"a{extension}").read_bytes() == (tmp_path / f"b{extension}").read_bytes()


@pytest.mark.parametrize("extension", [".webp", ".avif"])
def test_lossy_formats_keep_alpha(tmp_path: Path, extension: str) -> None:
    alpha = smooth(40, 50)[..., 0]
    write_picture(tmp_path / f"a{extension}", Picture(smooth(40, 50), alpha))
    back = read_picture(tmp_path / f"a{extension}").alpha
    assert back is not None
    assert psnr(back, alpha) > 38


@pytest.mark.parametrize("extension", [".jpg", ".bmp"])
def test_transparency_is_never_lost_in_silence(tmp_path: Path, extension: str) -> None:
    opaque = np.full((40, 50), 255, np.uint8)
    write_picture(tmp_path / f"a{extension}", Picture(smooth(40, 50), opaque))
    assert read_picture(tmp_path / f"a{extension}").alpha is None
    with pytest.raises(DerainError, match=r"b\.\w+: not written: \w+ cannot hold the picture's transparency"):
        write_picture(tmp_path / f"b{extension}", Picture(smooth(40, 50), opaque - 1))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("extension", WITH_METADATA)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_and_profile_are_kept(tmp_path: Path, extension: str, dtype: type) -> None:
    pixels = smooth(40, 50).astype(dtype)
    picture = Picture(pixels, exif=exif_block(1), icc=icc_profile())
    write_picture(tmp_path / f"a{extension}", picture)
    back = read_picture(tmp_path / f"a{extension}")
    assert back.icc == picture.icc
    assert back.exif is not None
    exif = Image.Exif()
    exif.load(back.exif)
    assert exif[0x010F] == "Camera maker"
    assert exif[0x8298] == "Someone"
    assert exif.get_ifd(0x8769)[0x829A] == pytest.approx(0.004)
    assert exif.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    assert exif.get_ifd(0x8825)[2] == pytest.approx((48.0, 8.0, 31.5))
    if extension not in (".tif", ".tiff", ".avif"):  # Pillow writes the block anew there
        assert back.exif == picture.exif
    with Image.open(tmp_path / f"a{extension}") as image:  # others find it too
        assert image.getexif()[0x010F] == "Camera maker"
        assert image.info["icc_profile"] == picture.icc


def test_a_tag_of_an_odd_type_is_kept_as_it_is(tmp_path: Path) -> None:
    head = struct.pack("<2sHIH", b"II", 42, 8, 2)
    description, maker = struct.pack("<HHII", 0x010E, 2, 12, 38), struct.pack("<HHII", 0x010F, 5, 1, 50)
    values = b"In the rain\0" + struct.pack("<II", 1, 3)  # a number for a maker
    block = b"Exif\0\0" + head + description + maker + bytes(4) + values
    Image.fromarray(smooth(40, 50)).save(tmp_path / "odd.jpg", exif=block)
    picture = read_picture(tmp_path / "odd.jpg")
    write_picture(tmp_path / "odd.tif", picture)
    with Image.open(tmp_path / "odd.tif") as image:
        assert image.getexif()[0x010E] == "In the rain"
        assert float(image.getexif()[0x010F]) == pytest.approx(1 / 3)


def test_a_grey_profile_stays_with_grey_only(tmp_path: Path) -> None:
    profile = bytearray(icc_profile())
    profile[16:20] = b"GRAY"
    grey = Picture(smooth(40, 50)[..., :1], icc=bytes(profile))
    for extension in WITH_METADATA:
        write_picture(tmp_path / f"a{extension}", grey)
        back = read_picture(tmp_path / f"a{extension}")
        assert back.icc == (grey.icc if back.pixels.shape[2] == 1 else None), extension


@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resolution_is_kept(tmp_path: Path, extension: str, dtype: type) -> None:
    write_picture(tmp_path / f"a{extension}", Picture(smooth(4, 5).astype(dtype), dpi=(300, 150)))
    assert read_picture(tmp_path / f"a{extension}").dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_orientation_is_applied_once(tmp_path: Path, extension: str, orientation: int) -> None:
    stored = Image.fromarray(smooth(40, 56))
    path = tmp_path / f"a{extension}"
    stored.save(path, exif=exif_block(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, expected)
    write_picture(path, picture)
    again = read_picture(path)
    assert again.pixels.shape == picture.pixels.shape
    assert psnr(again.pixels, picture.pixels) > 38
    with Image.open(path) as image:
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_orientation_of_16_bit_colour_with_alpha(tmp_path: Path, extension: str, orientation: int) -> None:
    """OpenCV turns TIFF itself, but not PNG."""
    samples = noise(40, 56, 4, np.uint16)
    path = tmp_path / f"a{extension}"
    if extension == ".png":
        write_picture(path, Picture(samples[..., :3], samples[..., 3], exif_block(orientation)))
    else:
        tifffile = pytest.importorskip("tifffile")
        tags = [(0x0112, "H", 1, orientation, True)]
        tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"], extratags=tags)
    places = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56))
    places.getexif()[0x0112] = orientation
    turned = samples.reshape(-1, 4)[np.asarray(ImageOps.exif_transpose(places))]
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, turned[..., :3])
    assert np.array_equal(picture.alpha, turned[..., 3])
    write_picture(path, picture)
    assert np.array_equal(read_picture(path).pixels, picture.pixels)


def test_makers_notes_stay_and_the_thumbnail_is_made_anew(tmp_path: Path) -> None:
    thumbnail, preview = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise(112, 160, 3)).save(thumbnail, "JPEG")
    Image.fromarray(noise(48, 64, 3)).save(preview, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x927C] = b"maker's note" + preview.getvalue() + b"ends"
    first = exif.tobytes()
    tail = len(first) - 6
    order = "little" if first[6:8] == b"II" else "big"
    # A second directory with the thumbnail, which Pillow cannot write: linked from the end of the first.
    count = int.from_bytes(first[14:16], order)
    link = 16 + 12 * count
    jpeg = thumbnail.getvalue()
    entries = [(0x0201, 4, tail + 2 + 24 + 4), (0x0202, 4, len(jpeg))]
    second = (2).to_bytes(2, order)
    for tag, kind, value in entries:
        second += b"".join(number.to_bytes(size, order) for number, size in ((tag, 2), (kind, 2), (1, 4)))
        second += value.to_bytes(4, order)
    block = first[:link] + tail.to_bytes(4, order) + first[link + 4 :] + second + bytes(4) + jpeg
    Image.fromarray(smooth(400, 560)).save(tmp_path / "a.jpg", exif=block)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (560, 400)
    write_picture(tmp_path / "b.jpg", picture)
    with Image.open(tmp_path / "b.jpg") as image:
        exif = image.getexif()
        assert exif[0x0112] == 1
        blanked = bytes(len(preview.getvalue()))  # it showed the rainy picture
        assert exif.get_ifd(0x8769)[0x927C] == b"maker's note" + blanked + b"ends"
        assert jpeg not in image.info["exif"]
        tags = exif.get_ifd(ExifTags.IFD.IFD1)
        assert tags[0x0202] < len(jpeg)
        with Image.open(io.BytesIO(image.info["exif"][6 + tags[0x0201] :])) as small:
            assert small.size == (114, 160)  # upright


def test_a_thumbnail_that_is_not_compressed_is_dropped(tmp_path: Path) -> None:
    first = exif_block(1)
    order, tail = ("<" if first[6:8] == b"II" else ">"), len(first) - 6
    link = 16 + 12 * struct.unpack_from(f"{order}H", first, 14)[0]
    strip = b"\x5a\xa5" * 300
    second = struct.pack(f"{order}HHHIIHHIII", 2, 0x0111, 4, 1, tail + 30, 0x0117, 4, 1, len(strip), 0)
    block = first[:link] + struct.pack(f"{order}I", tail) + first[link + 4 :] + second + strip
    content = encode_picture(Picture(smooth(40, 56), exif=block), ".jpg")
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(tmp_path / "a.jpg") as image:
        assert len(image.info["exif"]) == len(block)
        assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert strip not in content


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path: Path, dtype: type) -> None:
    content = encode_picture(Picture(smooth(40, 56).astype(dtype), exif=exif_block(6)), ".png")
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    moved = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    (tmp_path / "a.png").write_bytes(moved)
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (56, 40)
    assert picture.exif == exif_block(1)


def test_palettes_become_rgb_and_keep_their_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(40, 50)).quantize(16)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB"))
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.pixels, expected)
    assert picture.alpha is None
    assert picture.lost == ("its palette (converted to RGB)",)
    image.save(tmp_path / "a.bmp")
    assert read_picture(tmp_path / "a.bmp").lost == picture.lost
    image.save(tmp_path / "b.png", transparency=3)
    picture = read_picture(tmp_path / "b.png")
    assert np.array_equal(picture.pixels, expected)
    assert np.array_equal(picture.alpha == 0, np.asarray(image) == 3)
    image.save(tmp_path / "c.png", transparency=bytes(range(0, 160, 10)))
    assert np.array_equal(read_picture(tmp_path / "c.png").alpha, np.asarray(image) * 10)


def test_colour_keys_become_alpha(tmp_path: Path) -> None:
    grey, colour = smooth(40, 50)[..., 0], smooth(40, 50)
    key = int(grey[3, 4])
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=key)
    picture = read_picture(tmp_path / "grey.png")
    assert np.array_equal(picture.pixels[..., 0], grey)
    assert np.array_equal(picture.alpha == 0, grey == key)
    Image.fromarray(colour).save(tmp_path / "colour.png", transparency=tuple(colour[3, 4].tolist()))
    alpha = read_picture(tmp_path / "colour.png").alpha
    assert np.array_equal(alpha == 0, (colour == colour[3, 4]).all(axis=2))
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=key * 257)
    picture = read_picture(tmp_path / "deep.png")
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.alpha == 0, grey == key)


@pytest.mark.parametrize("extension", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_grey(tmp_path: Path, extension: str) -> None:
    bits = smooth(40, 50)[..., 0] > 128
    Image.fromarray(bits).save(tmp_path / f"a{extension}")
    picture = read_picture(tmp_path / f"a{extension}")
    assert np.array_equal(picture.pixels[..., 0], bits * np.uint8(255))
    assert picture.lost == ("1 bit per channel (became 8)",)


def test_two_bits_of_grey_become_eight(tmp_path: Path) -> None:
    pieces = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\x1b")),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in pieces]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.ravel().tolist() == [0, 85, 170, 255]
    assert picture.lost == ("2 bits per channel (became 8)",)


def test_cmyk_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(40, 50)).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=95, icc_profile=icc_profile())
    picture = read_picture(tmp_path / "a.jpg")
    assert psnr(picture.pixels, smooth(40, 50)) > 30
    assert picture.icc is None
    assert picture.lost == ("its CMYK colours (converted to RGB)", "its CMYK profile")
    image.save(tmp_path / "b.jpg", quality=95)
    assert read_picture(tmp_path / "b.jpg").lost == ("its CMYK colours (converted to RGB)",)
    image.save(tmp_path / "a.tif", icc_profile=icc_profile())
    assert read_picture(tmp_path / "a.tif").lost == picture.lost


def test_the_content_decides_not_the_extension(tmp_path: Path) -> None:
    Image.fromarray(smooth(40, 50)).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(read_picture(tmp_path / "a.jpg").pixels, smooth(40, 50))


@pytest.mark.parametrize(
    "name", ["Regen über Zürich.png", "雨 の 日.jpg", "a.b.c.TIF", "-x.webp", "q'\"?.bmp", "雨" * 83 + ".jpg"]
)
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ein Ordner" / name
    write_picture(path, Picture(smooth(40, 50)))
    assert read_picture(path).size == (40, 50)
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    sources = sorted((shared / "data" / "real_rain").glob("*.jpg"))[:8]
    assert sources
    for source in sources:
        picture = read_picture(source)
        with Image.open(source) as image:
            assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB"))), source
        for extension in (".png", ".tif"):
            path = tmp_path / f"{source.stem}{extension}"
            write_picture(path, picture)
            assert np.array_equal(read_picture(path).pixels, picture.pixels)
        write_picture(tmp_path / source.name, picture)
        assert psnr(read_picture(tmp_path / source.name).pixels, picture.pixels) > 36


def test_an_unknown_extension_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.gif: .*'\.gif'.*\.png"):
        write_picture(tmp_path / "a.gif", Picture(smooth(4, 5)))
