"""HEIC and raw files of cameras, read with the optional packages."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.errors import DerainError
from derain.pictures import file_kind, read_picture

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra 'formats' is not installed")
pytest.importorskip("rawpy", reason="the extra 'formats' is not installed")


def ramp(bits: int, channels: int = 3) -> np.ndarray:
    values = np.linspace(0, (1 << bits) - 1, 64).round().astype(np.uint8 if bits == 8 else np.uint16)
    return np.ascontiguousarray(np.broadcast_to(values[None, :, None], (48, 64, channels)))


def heic(path: Path, mode: str, samples: np.ndarray, **more: object) -> Path:
    buffer = io.BytesIO()
    pillow_heif.encode(mode, samples.shape[1::-1], samples.tobytes(), buffer, quality=-1, **more)
    path.write_bytes(buffer.getvalue())
    return path


def test_a_phone_picture_keeps_what_it_holds(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A phone", 6  # the encoder says the same in the container, which counts
    path = heic(tmp_path / "IMG_1.jpg", "RGB", ramp(8), exif=exif.tobytes())  # whatever it is called
    kind = file_kind(path)
    assert kind is not None
    assert (kind.name, kind.result) == ("HEIC", ".png")
    picture = read_picture(path)
    assert picture.size == (64, 48)
    assert np.abs(picture.pixels.astype(int) - np.rot90(ramp(8), -1)).max() <= 3
    read = Image.Exif()
    assert picture.exif is not None
    read.load(picture.exif)
    assert (read[0x010F], read[0x0112]) == ("A phone", 1)


def test_depth_and_transparency_of_heic(tmp_path: Path) -> None:
    deep = read_picture(heic(tmp_path / "deep.heic", "RGB;16", ramp(16)))
    assert deep.pixels.dtype == np.uint16
    assert (deep.pixels.min(), deep.pixels.max()) == (0, 65535)
    assert np.abs(deep.pixels.astype(int) - ramp(16)).max() < 300
    assert deep.lost == ("10 bits per channel (became 16)",)  # what the encoder makes of 16
    glass = ramp(8, 4)
    read = read_picture(heic(tmp_path / "glass.heic", "RGBA", glass))
    assert read.alpha is not None
    assert np.abs(read.alpha.astype(int) - glass[..., 3]).max() <= 1


def test_a_damaged_or_huge_heic_is_refused_in_a_line(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", "RGB", ramp(8))
    with pytest.raises(DerainError, match="more than the accepted 0 megapixels"):
        read_picture(path, max_pixels=100)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DerainError, match=r"a\.heic"):
        read_picture(path)


def dng(path: Path, turned: int = 1) -> Path:
    """A raw picture, 64 x 48, grey but for a mosaic of red, green, green, blue, as Adobe's DNG 1.4 says."""
    mosaic = np.broadcast_to(np.linspace(1000, 60000, 64).astype("<u2"), (48, 64))
    text = b"A camera\0"
    entries: list[tuple[int, int, int, bytes]] = [
        (254, 4, 1, struct.pack("<I", 0)),
        (256, 4, 1, struct.pack("<I", 64)),
        (257, 4, 1, struct.pack("<I", 48)),
        (258, 3, 1, struct.pack("<H", 16)),
        (259, 3, 1, struct.pack("<H", 1)),
        (262, 3, 1, struct.pack("<H", 32803)),
        (271, 2, len(text), text),
        (272, 2, len(text), text),
        (273, 4, 1, b"strip"),
        (274, 3, 1, struct.pack("<H", turned)),
        (277, 3, 1, struct.pack("<H", 1)),
        (278, 4, 1, struct.pack("<I", 48)),
        (279, 4, 1, struct.pack("<I", mosaic.nbytes)),
        (33421, 3, 2, struct.pack("<HH", 2, 2)),
        (33422, 1, 4, bytes([0, 1, 1, 2])),
        (50706, 1, 4, bytes([1, 4, 0, 0])),
        (50708, 2, len(text), text),
        (50721, 10, 9, struct.pack("<18i", *(v for n in (1, 0, 0, 0, 1, 0, 0, 0, 1) for v in (n, 1)))),
        (50728, 5, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
    ]
    place = 8 + 2 + 12 * len(entries) + 4
    directory, behind = struct.pack("<H", len(entries)), b""
    strip = place + sum(
        len(value) + len(value) % 2 for *_, value in entries if len(value) > 4 and value != b"strip"
    )
    for tag, kind, count, value in entries:
        value = struct.pack("<I", strip) if value == b"strip" else value
        if len(value) > 4:
            directory += struct.pack("<HHII", tag, kind, count, place + len(behind))
            behind += value + b"\0" * (len(value) % 2)
        else:
            directory += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + behind + mosaic.tobytes())
    return path


def test_a_raw_picture_is_developed_to_16_bits(tmp_path: Path) -> None:
    path = dng(tmp_path / "a.dng")
    kind = file_kind(path)
    assert kind is not None
    assert (kind.name, kind.result) == ("camera RAW", ".tif")
    picture = read_picture(path)
    assert (picture.size, picture.pixels.dtype) == ((48, 64), np.uint16)
    across = picture.pixels[24, ::8].mean(-1)
    assert (np.diff(across) > 0).all()
    assert any("developed" in words for words in picture.lost)
    read = Image.Exif()
    assert picture.exif is not None
    read.load(picture.exif)
    assert read[0x010F] == "A camera"
    assert not [tag for tag in read if tag >= 50706]
    turned = read_picture(dng(tmp_path / "turned.dng", 6))
    assert turned.size == (64, 48)
    assert np.array_equal(turned.pixels, np.rot90(picture.pixels, -1))


def test_a_raw_picture_cut_short_is_refused(tmp_path: Path) -> None:
    path = dng(tmp_path / "a.dng")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DerainError, match=r"a\.dng: a camera RAW file that is damaged"):
        read_picture(path)
