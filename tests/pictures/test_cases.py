"""Files that broke this program or others like it, each with its right result or one clear line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.errors import DerainError
from derain.pictures import EXTENSIONS, Picture, read_picture, write_picture
from derain.pictures.picture import ColourCode


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("the folder of files that broke the program is not beside the project")
    return folder


def similar(picture: Picture, cases: Path) -> bool:
    """Whether a picture shows the scene that the files of this folder share."""
    with Image.open(cases / "formats" / "text.png") as image:
        right = np.asarray(image.convert("RGB")).astype(float)
    if picture.size != right.shape[:2]:
        right = np.rot90(right, -1)
    shown = picture.pixels / picture.largest * 255
    # Grey files hold the green of it, or its brightness.
    views = [right] if shown.shape[2] == 3 else [right[..., 1:2], right.mean(2, keepdims=True)]
    return min(float(np.abs(shown - view).mean()) for view in views) < 8


RIGHT: dict[str, Callable[[Picture], bool]] = {
    "orient6_grey.tif": lambda p: p.size == (96, 64),
    "orient6_rgba.tif": lambda p: p.size == (96, 64) and p.alpha is not None,
    "grey12.tif": lambda p: p.pixels.dtype == np.uint16 and 25_000 < p.pixels.mean() < 33_000,
    "p3_nclx.avif": lambda p: p.colour == ColourCode(12, 13),
    "cicp_pq16.png": lambda p: p.colour == ColourCode(9, 16) and p.pixels.dtype == np.uint16,
    "gamma_linear.png": lambda p: {kind for kind, _ in p.colour_chunks} == {b"gAMA", b"cHRM"},
    "xmp_iptc.jpg": lambda p: None not in (p.xmp, p.iptc, p.exif) and p.texts[0].text == "a comment",
    "text.png": lambda p: {text.keyword for text in p.texts} == {"parameters", "Copyright", "Description"},
    "raw_profile_exif.png": lambda p: p.exif is not None and not p.texts,
    "phone_thumb.jpg": lambda p: p.size == (96, 64) and p.exif is not None,
    "ultrahdr.jpg": lambda p: p.lost == ("its HDR gain map",),
    "photo.jfif": lambda p: p.lost == (),
    "float32.tif": lambda p: p.pixels.dtype == np.uint16 and "floating point" in p.lost[0],
    "thumbnail_page.tif": lambda p: p.lost == ("its smaller copies",),
    "bad_crc_text.png": lambda p: p.lost == ("a tEXt chunk with a wrong checksum",),
    "lossless.webp": lambda p: p.lossless,
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_read_right_is_written_right(cases: Path, tmp_path: Path, name: str) -> None:
    picture = read_picture(cases / "formats" / name)
    assert RIGHT[name](picture)
    assert similar(picture, cases)
    target = tmp_path / f"a{Path(name).suffix.replace('.jfif', '.jpg')}"
    notes = write_picture(target, picture)
    assert set(notes) == set(picture.lost)
    again = read_picture(target)
    assert similar(again, cases)
    assert again.lost == ()
    if name not in ("ultrahdr.jpg", "float32.tif", "thumbnail_page.tif", "bad_crc_text.png"):
        assert RIGHT[name](again)


def test_a_jpeg_of_12_bits_is_read_in_full(cases: Path, tmp_path: Path) -> None:
    picture = read_picture(cases / "formats" / "twelve.jpg")
    assert picture.pixels.dtype == np.uint16
    assert len(np.unique(picture.pixels)) > 256
    assert similar(picture, cases)
    assert write_picture(tmp_path / "a.jpg", picture) == ("12 bits per channel (JPEG holds 8)",)
    assert write_picture(tmp_path / "a.png", picture) == ("12 bits per channel (became 16)",)
    assert similar(read_picture(tmp_path / "a.jpg"), cases)


def test_the_thumbnail_of_a_phone_is_made_anew(cases: Path, tmp_path: Path) -> None:
    picture = read_picture(cases / "formats" / "phone_thumb.jpg")
    write_picture(tmp_path / "a.jpg", picture)
    content = (tmp_path / "a.jpg").read_bytes()
    with Image.open(io.BytesIO(content[content.index(b"\xff\xd8", 2) :])) as thumbnail:
        assert thumbnail.size[1] > thumbnail.size[0]  # upright


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("formats/zeros_behind.jpg", "damaged or cut short"),
        ("pictures/jpeg_300_scans.jpg", "36 megapixels in 112 or more scans"),
        ("pictures/tiff_5k_ifds.tif", "frames or pages"),
    ],
)
def test_what_is_refused_is_refused_for_the_true_reason(cases: Path, name: str, reason: str) -> None:
    with pytest.raises(DerainError, match=reason) as caught:
        read_picture(cases / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_mutated_pictures_give_a_result_or_one_line(
    cases: Path, tmp_path: Path, extension: str, capfd: pytest.CaptureFixture[str]
) -> None:
    messages = []
    for path in sorted((cases / "pictures").iterdir()):
        try:
            write_picture(tmp_path / f"a{extension}", read_picture(path))
        except DerainError as error:
            messages.append(str(error))
    assert all(re.fullmatch(r"[^\n]+", message) for message in messages)
    assert capfd.readouterr().err == ""
