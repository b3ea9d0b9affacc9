"""Files that cannot be read, and places that cannot be written: one clear line, nothing left behind."""

from __future__ import annotations

import io
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from derain.errors import DerainError
from derain.pictures import EXTENSIONS, Picture, encode_picture, read_picture, write_picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> NDArray:
    largest = np.iinfo(dtype).max
    generator = np.random.default_rng(0)
    return generator.integers(0, largest, (height, width, channels), dtype=dtype, endpoint=True)


def refusal(path: Path) -> str:
    """The message that `path` is refused with: one line that starts with its name."""
    with pytest.raises(DerainError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    rows: bytes,
    *,
    more: bytes = b"",
    packed: bytes | None = None,
    methods: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, *methods)
    pixels = png_chunk(b"IDAT", zlib.compress(rows) if packed is None else packed)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + more + pixels + png_chunk(b"IEND", b"")


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.png")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".png"))
    assert "cannot be read" in refusal(tmp_path / "a\0b.png")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "empty" in refusal(tmp_path / "a.png")


def test_a_folder(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "regular file" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"<html>" * 99, b"GIF89a" + bytes(99), bytes(5000)],
)
def test_what_is_not_a_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    message = refusal(tmp_path / "a.png")
    assert "not a picture" in message
    assert "PNG, JPEG, WebP, TIFF, BMP, AVIF" in message


def test_a_picture_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jp2").write_bytes(b"\xff\x4f\xff\x51" + bytes(99))
    assert "JPEG 2000 pictures are not supported here; save it as PNG or TIFF" in refusal(tmp_path / "a.jp2")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_truncated_file_is_never_half_read(
    tmp_path: Path, extension: str, dtype: type, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encode_picture(Picture(noise(120, 150, dtype=dtype)), extension)
    for kept in (9, 40, 100, len(content) // 4, len(content) // 2, len(content) * 9 // 10):
        (tmp_path / "a").write_bytes(content[:kept])
        assert "picture" in (message := refusal(tmp_path / "a")) or "damaged or cut short" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_broken_bytes_give_a_picture_or_one_line(tmp_path: Path, extension: str) -> None:
    content = encode_picture(Picture(noise(24, 30), noise(24, 30)[..., 0] | 255), extension)
    generator = np.random.default_rng(1)
    refused = []
    for _ in range(60):
        broken = bytearray(content)
        for place in generator.integers(0, min(len(broken), 400), 3):
            broken[place] = generator.integers(256)
        (tmp_path / "a").write_bytes(broken)
        try:
            read_picture(tmp_path / "a", max_pixels=10**6)
        except DerainError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in message for message in refused)


DEEP = noise(4, 5, 3, np.uint16)
DEEP_ROWS = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP)
KEY = png_chunk(b"tRNS", DEEP[1, 2].astype(">u2").tobytes())
ODDITIES = {
    "too many pixels": png(5, 4, 16, 2, DEEP_ROWS + bytes(50)),
    "something behind the pixels": png(5, 4, 16, 2, b"", packed=zlib.compress(DEEP_ROWS) + b"rain"),
    "a palette of odd length": png(5, 4, 16, 2, DEEP_ROWS, more=png_chunk(b"PLTE", b"12")),
    "transparency of odd length": png(5, 4, 16, 2, DEEP_ROWS, more=png_chunk(b"tRNS", b"12345678")),
    "transparency twice": png(5, 4, 16, 2, DEEP_ROWS, more=2 * KEY),
    "transparency behind the pixels": png(5, 4, 16, 2, DEEP_ROWS)[:-12] + KEY + png_chunk(b"IEND", b""),
}
BROKEN = {
    "no checksum": (png(5, 4, 16, 2, b"", packed=zlib.compress(DEEP_ROWS)[:-4]), "fewer pixels"),
    "a wrong checksum": (png(5, 4, 16, 2, b"", packed=zlib.compress(DEEP_ROWS)[:-1] + b"x"), "damaged"),
    "too few pixels": (png(5, 4, 16, 2, DEEP_ROWS[:-7]), "damaged"),
    "an unknown compression": (png(5, 4, 16, 2, DEEP_ROWS, methods=(1, 0, 0)), "an unknown compression"),
    "too wide": (png(1_000_001, 1, 16, 2, bytes(1 + 6 * 1_000_001)), "1,000,001 x 1 pixels of 16 bits"),
    "no header": (b"\x89PNG\r\n\x1a\n" + KEY + png_chunk(b"IEND", b""), "its header is missing"),
}


@pytest.mark.parametrize("what", ODDITIES)
def test_what_is_odd_about_a_png_of_16_bits_spoils_nothing(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(ODDITIES[what])
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.pixels, DEEP)
    assert (picture.alpha is not None) == (KEY in ODDITIES[what])
    assert picture.alpha is None or np.argwhere(picture.alpha == 0).tolist() == [[1, 2]]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_png_of_16_bits_is_refused_in_one_line(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = BROKEN[what]
    (tmp_path / "a.png").write_bytes(content)
    assert words in refusal(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (9, 17)])
def test_interlaced_pictures_of_16_bits(
    tmp_path: Path, colour_type: int, channels: int, height: int, width: int
) -> None:
    """Seven passes over the pixels, as Adam M. Costello thought them out (PNG, section 8)."""
    values = noise(height, width, channels, np.uint16)
    starts = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = [values[y::down, x::across] for y, x, down, across in starts]
    rows = [b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part]
    content = png(width, height, 16, colour_type, b"".join(rows), methods=(0, 0, 1))
    (tmp_path / "a.png").write_bytes(content)
    picture = read_picture(tmp_path / "a.png")
    colours = channels if channels == 3 else channels - 1
    assert np.array_equal(picture.pixels, values[..., :colours])
    assert channels == 3 or np.array_equal(picture.alpha, values[..., -1])


@pytest.mark.parametrize(("depth", "colour_type"), [(8, 2), (16, 2), (16, 6), (1, 0)])
def test_a_pixel_bomb_is_refused_before_memory_is_taken(tmp_path: Path, depth: int, colour_type: int) -> None:
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, depth, colour_type, bytes(10**6)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refusal(tmp_path / "a.png")
    assert "60,000 x 60,000" in message
    assert "400 megapixels" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_grey_with_alpha_takes_no_more_memory_than_colour(tmp_path: Path) -> None:
    """At the limit of pixels the copies of Pillow used to take three times as much."""
    width, height = 4000, 3000
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height, 8, 4, bytes((2 * width + 1) * height)))
    program = f"""
import resource
from derain.pictures import read_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_picture({str(path)!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) * 1024 < 10 * width * height


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_pixel_limit_holds_for_every_format(tmp_path: Path, extension: str) -> None:
    write_picture(tmp_path / f"a{extension}", Picture(noise(40, 50)))
    assert read_picture(tmp_path / f"a{extension}", max_pixels=2000).size == (40, 50)
    with pytest.raises(DerainError, match="50 x 40 pixels"):
        read_picture(tmp_path / f"a{extension}", max_pixels=1999)


def test_the_lower_limit_of_pillow_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    write_picture(tmp_path / "a.png", Picture(noise(40, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert read_picture(tmp_path / "a.png").size == (40, 50)
    assert not recwarn


def test_32_bit_pixels(tmp_path: Path) -> None:
    Image.new("I", (5, 4)).save(tmp_path / "a.tif")
    assert "8 or 16 bits per channel" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("extension", [".png", ".webp", ".avif", ".tif"])
def test_several_frames_or_pages(tmp_path: Path, extension: str) -> None:
    frames = [Image.fromarray(noise(40, 50) // (index + 1)) for index in range(3)]
    frames[0].save(tmp_path / f"a{extension}", save_all=True, append_images=frames[1:])
    assert "3 frames or pages" in refusal(tmp_path / f"a{extension}")


def test_the_preview_of_a_raw_file_is_not_the_picture(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.nef", noise(40, 50), photometric="rgb", subfiletype=1)
    assert "preview" in refusal(tmp_path / "a.nef")


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk", b"MM\0*" + bytes(3)]
)
def test_unreadable_exif_spoils_no_picture(tmp_path: Path, block: bytes) -> None:
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.jpg", exif=block)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (40, 50)
    assert picture.exif is None
    for extension in EXTENSIONS:
        write_picture(tmp_path / f"b{extension}", picture)


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """The rights of a user who is not root; ours when we are not."""
    user = os.geteuid()
    if user == 0:
        system = Path(tempfile.gettempdir()).resolve()
        for parent in [tmp_path, *tmp_path.parents]:  # of pytest's own making
            if system in parent.parents:
                parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(65534)
    yield
    if user == 0:
        os.seteuid(user)


@pytest.fixture
def locked_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    write_picture(path, Picture(noise(4, 5)))
    path.chmod(0)
    return path


@pytest.fixture
def locked_folder(tmp_path: Path) -> Path:
    path = tmp_path / "locked"
    path.mkdir(mode=0o555)
    return path


@pytest.mark.usefixtures("locked_file", "nobody")
def test_a_file_without_permission(locked_file: Path) -> None:
    assert "no permission" in refusal(locked_file)


@pytest.mark.usefixtures("locked_folder", "nobody")
def test_a_folder_without_permission(locked_folder: Path) -> None:
    with pytest.raises(DerainError, match=r"a\.png: cannot be written \(no permission"):
        write_picture(locked_folder / "a.png", Picture(noise(4, 5)))
    assert not list(locked_folder.iterdir())


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DerainError, match="cannot be written"):
        write_picture(tmp_path / "file" / "a.png", Picture(noise(4, 5)))


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files fails in the same call as a full disk, part of the way through."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    path.write_bytes(b"earlier")
    with pytest.raises(DerainError) as caught:
        write_picture(path, Picture(noise(200, 300)))
    assert str(caught.value) == f"{path}: cannot be written (File too large)."
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_and_sizes_that_a_format_cannot_hold(tmp_path: Path) -> None:
    huge = b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 0) + bytes(70_000)
    assert encode_picture(Picture(noise(4, 5), exif=huge), ".jpg") == encode_picture(
        Picture(noise(4, 5)), ".jpg"
    )
    with pytest.raises(DerainError, match=r"a\.webp: cannot be written as WebP"):
        write_picture(tmp_path / "a.webp", Picture(noise(4, 17_000)))
    assert not list(tmp_path.iterdir())


def test_importing_is_light_and_refusing_is_silent(tmp_path: Path) -> None:
    content = encode_picture(Picture(noise(40, 50)), ".tif")
    (tmp_path / "a.tif").write_bytes(content[:60])
    program = f"""
import sys, derain.pictures
print(*(name for name in ("cv2", "av") if name in sys.modules))
try:
    derain.pictures.read_picture({str(tmp_path / "a.tif")!r})
except derain.DerainError:
    pass
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
    assert result.stderr == ""


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    content = encode_picture(Picture(noise(40, 50)), ".jpg") + b"trailing bytes"
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(read_picture(tmp_path / "a.jpg").pixels, np.asarray(image))


@pytest.mark.parametrize("name", ["twelve_bits.jpg", "twelve_bits_progressive.jpg"])
def test_a_jpeg_of_12_bits(tmp_path: Path, name: str) -> None:
    """The first file is libjpeg-turbo's, of 4:2:0 and quality 95; the second holds the same coefficients, all
    DC in one scan and AC in one for each component. Libjpeg's other users read 8 bits alone."""
    source = Path(__file__).with_name(name)
    assert np.array_equal(
        read_picture(source).pixels, read_picture(source.with_name("twelve_bits.jpg")).pixels
    )
    y, x = np.mgrid[:24, :32]
    right = np.stack([2047.5 + 1900 * np.sin(x / 6 + k) * np.cos(y / (7 + k)) for k in range(3)], 2) / 4095
    picture = read_picture(source)
    assert picture.pixels.dtype == np.uint16
    assert np.abs(picture.pixels / 65535 - right).mean() < 0.004
    content = source.read_bytes()
    for kept in (0.6, 0.9, 0.99):
        (tmp_path / "a.jpg").write_bytes(content[: int(len(content) * kept)] + b"\xff\xd9")
        assert "its 12-bit samples are" in refusal(tmp_path / "a.jpg")
