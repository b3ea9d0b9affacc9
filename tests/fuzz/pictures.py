"""Broken pictures: read, and written again in any format."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from derain.errors import DerainError
from derain.pictures import (
    EXTENSIONS,
    Picture,
    encode_picture,
    read_picture,
    to_tensor,
    with_pixels,
    write_picture,
)
from derain.pictures.picture import ColourCode, Text
from fuzz.mutations import mutated
from fuzz.trial import Kind

HEIGHT, WIDTH = 24, 30
SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"


def scene(channels: int = 3, kind: type = np.uint8) -> NDArray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [(np.sin(x / 4 + k) * np.cos(y / (5 + k)) + 1) / 2 for k in range(channels)]
    return (np.stack(planes, 2) * np.iinfo(kind).max).astype(kind)


def exif() -> bytes:
    block = Image.Exif()
    block[0x010F], block[0x0112], block[0x8298] = "A camera", 6, "somebody"
    block.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    block.get_ifd(0x8825)[2] = (52.0, 22.0, 3.5)
    return block.tobytes()


def rich(picture: Picture) -> Picture:
    """A picture that carries all that a picture can."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return replace(
        picture,
        exif=exif(),
        icc=profile if picture.pixels.shape[2] == 3 else None,
        dpi=(300.0, 300.0),
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmp:Rating="5" tiff:Orientation="6"/>',
        iptc=b"\x1c\x02\x19\x00\x04rain",
        texts=(Text("Comment", "rain"), Text("Title", "ü", "de", "Titel")),
        colour=ColourCode(9, 16),
        colour_chunks=((b"gAMA", b"\0\1\x86\xa0"),),
    )


@functools.cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """{format: good files}."""
    found: dict[str, list[bytes]] = {}
    for extension in EXTENSIONS:
        kept = found.setdefault(extension, [])
        for channels in (1, 3):
            for kind in (np.uint8, np.uint16):
                for alpha in (None, scene(1, kind)[..., 0]):
                    try:
                        picture = Picture(scene(channels, kind), alpha)
                        kept += [encode_picture(picture, extension), encode_picture(rich(picture), extension)]
                    except DerainError:
                        continue
    colour = Image.fromarray(scene())
    for name, image, options in (
        ("JPEG", colour, {"progressive": True, "exif": exif()}),
        ("JPEG", colour.convert("CMYK"), {}),
        ("PNG", colour.quantize(16), {"bits": 4}),
        ("PNG", colour.convert("1"), {}),
        ("TIFF", colour, {"compression": "tiff_lzw"}),
        ("TIFF", colour, {"compression": "jpeg"}),
        ("TIFF", colour, {"compression": "packbits"}),
        ("TIFF", colour.convert("1"), {"compression": "group4"}),
        ("TIFF", colour, {"big_tiff": True}),
        ("TIFF", colour.convert("CMYK"), {"compression": "tiff_adobe_deflate"}),
        ("TIFF", Image.fromarray(scene(1, np.uint8)[..., 0].astype(np.float32) / 255), {}),
        ("WEBP", colour, {"lossless": True, "exif": exif()}),
        ("BMP", colour.quantize(16), {}),
        ("GIF", colour.quantize(16), {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        found.setdefault(f".{name.lower()}", []).append(buffer.getvalue())
    for folder in ("pictures", "formats"):
        for path in sorted((SHARED / folder).glob("*")):
            if path.suffix in (*EXTENSIONS, ".jfif") and path.stat().st_size < 100_000:
                found.setdefault(path.suffix, []).append(path.read_bytes())
    _add_heic(found)
    _add_jxl(found)
    joined = {".jpeg": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
    for name, other in joined.items():
        found[other] += found.pop(name, [])
    return {name: tuple(files) for name, files in found.items()}


def _add_heic(found: dict[str, list[bytes]]) -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    for options in ({}, {"exif": exif()}):
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(scene())).save(buffer, quality=80, **options)
        found.setdefault(".heic", []).append(buffer.getvalue())


def _add_jxl(found: dict[str, list[bytes]]) -> None:
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        return
    boxes = {"exif": exif(), "xmp": b"<x:xmpmeta/>", "use_container": True}
    for options in ({"lossless": True}, {"quality": 80, **boxes}):
        for image in (Image.fromarray(scene()), Image.fromarray(scene(4)), Image.fromarray(scene(1)[..., 0])):
            buffer = io.BytesIO()
            image.save(buffer, "JXL", **options)
            found.setdefault(".jxl", []).append(buffer.getvalue())


def make(rng: np.random.Generator, folder: Path) -> Path:
    formats = sorted(seeds())
    name = formats[int(rng.integers(len(formats)))]
    files = seeds()[name]
    content, other = (files[int(rng.integers(len(files)))] for _ in range(2))
    path = folder / f"a{name}"
    path.write_bytes(mutated(content, other, rng))
    return path


def use(source: Path, output: Path) -> None:
    picture = read_picture(source)
    extension = EXTENSIONS[source.stat().st_size % len(EXTENSIONS)]
    target = output / f"result{extension}"
    result = with_pixels(picture, to_tensor(picture)) if picture.pixels.size < 10**7 else picture
    try:
        write_picture(target, result)
    except DerainError:
        assert not target.exists()
        raise
    again = read_picture(target)
    assert again.size == picture.size
    assert again.lost == (), again.lost


PICTURES = Kind("pictures", 10_000, make, use)
