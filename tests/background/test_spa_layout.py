from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from background.test_clean_frame import rainy_clip
from derain.background.spa_layout import write_pairs
from derain.errors import UsageError
from derain.pictures import read_picture


def test_two_clips_share_a_folder(tmp_path: Path) -> None:
    clip, scene = rainy_clip(3, 16, 20)
    assert write_pairs(tmp_path, "street", clip, scene) == 3
    assert write_pairs(tmp_path, "yard", clip[:2], scene) == 2
    lines = (tmp_path / "real_world.txt").read_text().splitlines()
    assert len(lines) == 5
    for line, frame in zip(lines[:3], clip, strict=True):
        rainy, clean = line.split(" ")
        assert Path(rainy).name == Path(clean).name
        np.testing.assert_array_equal(read_picture(tmp_path / rainy).pixels, frame)
        np.testing.assert_array_equal(read_picture(tmp_path / clean).pixels, scene)


def test_a_clip_is_not_added_twice(tmp_path: Path) -> None:
    clip, scene = rainy_clip(2, 16, 20)
    write_pairs(tmp_path, "street", clip, scene)
    with pytest.raises(UsageError, match="already holds pairs of a clip named street"):
        write_pairs(tmp_path, "street", clip, scene)


def test_an_interrupted_clip_can_be_added_again(tmp_path: Path) -> None:
    clip, scene = rainy_clip(3, 16, 20)

    def breaks_off() -> Iterator[NDArray[np.uint8]]:
        yield clip[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(tmp_path, "street", breaks_off(), scene)
    assert write_pairs(tmp_path, "street", clip, scene) == 3
    assert len((tmp_path / "real_world.txt").read_text().splitlines()) == 3
