"""Which pictures files and folders stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from derain.errors import UsageError
from derain.pictures import EXTENSIONS, Found, find_pictures


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
