from pathlib import Path

import numpy as np
import pytest

from derain.background.clip import open_clip
from derain.errors import DerainError, UsageError
from derain.pictures import Picture, write_picture


def numbered(folder: Path, numbers: list[int], name: str = "rain") -> None:
    for number in numbers:
        write_picture(folder / f"{name}_{number}.png", Picture(np.full((4, 6, 3), number, np.uint8)))


def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    numbered(tmp_path / "my clip", [10, 9, 1, 100])
    clip = open_clip(tmp_path / "my clip")
    assert [frame[0, 0, 0] for frame in clip.frames()] == [1, 9, 10, 100]
    assert (clip.name, clip.expected_frames) == ("my_clip", 4)
    assert len(list(open_clip(tmp_path / "my clip", limit=3).frames())) == 3


def test_a_pattern_picks_one_sequence_of_a_folder(tmp_path: Path) -> None:
    numbered(tmp_path, [1, 2, 3])
    numbered(tmp_path, [1, 2], name="snow")
    clip = open_clip(tmp_path / "snow_%d.png")
    assert (len(list(clip.frames())), clip.name) == (2, "snow")
    with pytest.raises(UsageError, match="same number"):
        open_clip(tmp_path)


def test_16_bit_and_grey_pictures_become_8_bit_rgb(tmp_path: Path) -> None:
    write_picture(tmp_path / "a1.png", Picture(np.full((4, 6, 3), 257 * 100, np.uint16)))
    write_picture(tmp_path / "a2.png", Picture(np.full((4, 6, 1), 50, np.uint8)))
    first, second = open_clip(tmp_path).frames()
    assert (first == 100).all()
    assert second.shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("numbers", "limit", "message"), [([1, 2], 3, "has 2 frames"), ([], None, "no pictures")]
)
def test_what_is_missing_is_said(tmp_path: Path, numbers: list[int], limit: int | None, message: str) -> None:
    numbered(tmp_path, numbers)
    with pytest.raises(DerainError, match=message):
        open_clip(tmp_path, limit)


def test_a_name_without_a_number_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "cover.png", Picture(np.zeros((4, 6, 3), np.uint8)))
    with pytest.raises(UsageError, match="no number"):
        open_clip(tmp_path)
