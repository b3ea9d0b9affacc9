"""Which pictures files and folders stand for."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.errors import UsageError
from derain.pictures import EXTENSIONS, Found, find, find_pictures, kind_of, passed_over
from derain.pictures.kinds import VIDEO_KINDS


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative(inputs: list[Path]) -> list[str]:
    return [found.relative.as_posix() for found in find_pictures(inputs)]


def test_a_file_keeps_its_name_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "deep/picture.dat")
    source = tmp_path / "deep" / "picture.dat"
    assert find_pictures([source]) == [Found(source, Path("picture.dat"))]


def test_a_folder_keeps_its_structure_and_is_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpg", "sub/c.Tiff", "sub/sub/d.webp", "notes.txt", "clip.mp4", "ä ö.avif")
    assert relative([tmp_path]) == ["a.jpg", "b.PNG", "sub/c.Tiff", "sub/sub/d.webp", "ä ö.avif"]


def test_every_extension_is_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a{extension}" for extension in EXTENSIONS))
    assert len(find_pictures([tmp_path])) == len(EXTENSIONS)


def test_hidden_entries_are_left_out_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.png", "._a.png", ".cache/b.png", "c.png")
    assert relative([tmp_path]) == ["c.png"]
    assert relative([tmp_path / ".cache"]) == ["b.png"]


def test_a_folder_called_like_a_picture(tmp_path: Path) -> None:
    touch(tmp_path, "a.png/b.png")
    assert relative([tmp_path]) == ["a.png/b.png"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in" / "self")
    assert relative([tmp_path / "in"]) == ["a.png", "link/b.png"]


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png")
    with pytest.raises(UsageError, match=r"one/a\.png and .*two/a\.png would both be written as a\.png"):
        find_pictures([tmp_path / "one", tmp_path / "two" / "a.png"])


def test_the_same_file_given_twice_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    assert relative([tmp_path / "b.png", tmp_path]) == ["b.png", "a.png"]


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"no pictures found; looked for .*\.png .*\.avif"):
        find_pictures([tmp_path])
    with pytest.raises(UsageError, match="no input: no pictures"):
        find_pictures([])


def test_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.png: no such file"):
        find_pictures([tmp_path / "nothing.png"])


def test_content_tells_what_a_file_without_a_known_name_is(tmp_path: Path) -> None:
    """A JPEG without extension and one called .jfif, clips of cameras, sound, and what is not read."""
    start = {
        "DSC0001": b"\xff\xd8\xff\xe0",
        "a.jfif": b"\xff\xd8\xff\xe0",
        "cam.mts": (b"G" + bytes(187)) * 5,
        "card.m2ts": (bytes(4) + b"G" + bytes(187)) * 5,
        "disc.mpg": b"\0\0\x01\xba",
        "phone.3gp": b"\0\0\0\x18ftyp3gp4",
        "old.wmv": bytes.fromhex("3026b2758e66cf11"),
        "song.m4a": b"\0\0\0\x18ftypM4A ",
        "scan.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "scan2.jp2": b"\xff\x4f\xff\x51",
        "layers.psd": b"8BPS",
        "notes.txt": b"GGG",
    }
    for name, head in start.items():
        (tmp_path / name).write_bytes(head)
    found, unread = find([tmp_path])
    videos = [entry.relative.name for entry in found if entry.is_video]
    pictures = [entry.relative.name for entry in found if not entry.is_video]
    assert pictures == ["DSC0001", "a.jfif"]
    assert videos == ["cam.mts", "card.m2ts", "disc.mpg", "old.wmv", "phone.3gp"]
    assert passed_over(unread) == (
        "5 files not read: 2 JP2 (save it as PNG or TIFF), 1 PSD (save it as PNG or TIFF), 1 TXT, 1 M4A."
    )


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ([(254, 4, 1), (330, 4, 500)], "camera RAW"),  # Nikon, Sony: a preview first
        ([(254, 4, 0), (262, 3, 32803)], "camera RAW"),  # a mosaic
        ([(254, 4, 0), (262, 3, 2), (50706, 1, 0x0401)], "camera RAW"),  # DNG
        ([(254, 4, 0), (262, 3, 2)], "TIFF"),
        ([(254, 4, 1), (262, 3, 2)], "TIFF"),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_raw_files_of_cameras_are_told_from_other_tiff(
    tags: list[tuple[int, int, int]], name: str, order: str
) -> None:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, form, value in tags:
        content = struct.pack(
            f"{order}HH" if form == 3 else f"{order}I", *([value, 0] if form == 3 else [value])
        )
        head += struct.pack(f"{order}HHI", tag, form, 1) + content
    kind = kind_of(head)
    assert kind is not None
    assert kind.name == name


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"\0\0\0\x18ftyp", b"RIFF", b""]))
def test_any_content_is_of_a_kind_or_none(content: bytes, start: bytes) -> None:
    kind = kind_of(start + content)
    assert kind is None or not kind.is_read or kind.result in (*EXTENSIONS, *VIDEO_KINDS)


def test_odd_names_and_what_cannot_be_opened(tmp_path: Path) -> None:
    odd = [b"\xff\xfe.png", b"\x1b[2Jred.jpg", b"new\nline.png"]
    for name in odd:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    found, unread = find([tmp_path])
    assert {os.fsencode(entry.relative) for entry in found} == {*odd, b"self.png"}
    assert {entry.source.name for entry in unread} == {"gone", "pipe"}
    with pytest.raises(UsageError, match="no such file"):
        find([tmp_path / ("n" * 5000)])
