"""Public sets as people unpack them, recognised and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from derain import UsageError
from derain.data.duplicates import find_duplicates
from derain.data.layouts import SETS, find_splits, pictures_to_compare, problems
from derain.evaluation import PROTOCOLS
from derain.pictures import Picture, write_picture

RANDOM = np.random.default_rng(3)


def write(path: Path, pixels: np.ndarray | None = None) -> None:
    write_picture(path, Picture(RANDOM.integers(0, 256, (9, 8, 3), np.uint8) if pixels is None else pixels))


def scene(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Smooth blobs, as different from those of another seed as two photographs."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
    return small[rows][:, columns]


LAYOUTS = [
    (
        "Rain200H/train/rain/X2/norain-{}x2.png",
        "Rain200H/train/norain/norain-{}.png",
        "Rain200H train",
        [1800],
    ),
    ("Rain200L_test/input/rain-{}x2.png", "Rain200L_test/target/norain-{}.png", "Rain200L test", [200]),
    ("x/test/rain/X2/rain-{}x2.png", "x/test/norain/norain-{}.png", "Rain200L or Rain200H test", [200]),
    ("Rain100L/rainy/rain-00{}.png", "Rain100L/norain-00{}.png", "Rain100L", [200, 100]),
    ("RainTrainH/rain-{}.png", "RainTrainH/norain-{}.png", "Rain100H train", [1800]),
    ("Rain12/rainy/{}.png", "Rain12/clean/{}.png", "Rain12 test", [12]),
    ("DID-Data/test/{}_DR.png", "DID-Data/test/{}_GT.png", "DID-Data test", [1200]),
    ("DDN-Data/input/{}.png", "DDN-Data/target/{}.png", "DDN-Data", [12600, 1400]),
    ("Rain1400/rainy_image/90{}_1.jpg", "Rain1400/ground_truth/90{}.jpg", "DDN-Data", [12600, 1400]),
    (
        "SPA-Data/real_test_1000/rain/00{}.png",
        "SPA-Data/real_test_1000/gt/00{}gt.png",
        "SPA-Data test",
        [1000],
    ),
    ("RainDS_syn/test/rainstreak/rain-{}.png", "RainDS_syn/test/gt/norain-{}.png", "RainDS-Syn test", [200]),
    ("y/test/raindrop/rd-{}.png", "y/test/gt/norain-{}.png", "RainDS-Syn or RainDS-Real test", [200, 98]),
    ("test_a/data/{}_rain.png", "test_a/gt/{}_clean.png", "AGAN-Data test_a", [58]),
    ("Rain13K/train/input/{}.png", "Rain13K/train/target/{}.png", "Rain13K train", [13712]),
    ("Rain13K/test/Test2800/input/{}.png", "Rain13K/test/Test2800/target/{}.png", "Test2800 test", [2800]),
    ("Rain800/val/rainy/{}.png", "Rain800/val/clean/{}.png", "Rain800 test", [100]),
    ("mine/rainy/{}.png", "mine/clean/{}.png", "unknown set", []),
]


@pytest.mark.parametrize(("rainy", "clean", "title", "expected"), LAYOUTS, ids=lambda x: str(x)[:30])
def test_recognised(rainy: str, clean: str, title: str, expected: list[int], tmp_path: Path) -> None:
    for i in (1, 2):
        write(tmp_path / rainy.format(i))
        write(tmp_path / clean.format(i))
    (split,) = find_splits(tmp_path)
    assert split.title == title
    assert list(split.expected) == expected
    assert len(split.pairing.pairs) == 2
    wrong = problems(split)
    assert wrong == ([f"2 pairs instead of {' or '.join(map(str, expected))}"] if expected else [])


def test_every_set_names_a_protocol() -> None:
    for public in SETS:
        assert PROTOCOLS[public.protocol].needs_truth
        assert public.sizes


def test_everything_that_is_wrong_is_said(tmp_path: Path) -> None:
    for i in range(1, 7):
        for side in ("rainy", "clean"):
            write(tmp_path / side / f"{i}.png")
    write(tmp_path / "rainy/7.png")
    write(tmp_path / "clean/8.png")
    (tmp_path / "rainy/2.png").write_bytes(b"not a picture")
    write(tmp_path / "rainy/3.png", np.zeros((5, 5, 3), np.uint8))
    (tmp_path / "rainy/4.png").write_bytes((tmp_path / "clean/4.png").read_bytes())
    (split,) = find_splits(tmp_path)
    assert problems(split) == [
        "1 rainy pictures without a clean one, first 7.png",
        "1 clean pictures without a rainy one, first 8.png",
        "1 files cannot be read, first 2.png: not a picture, or damaged",
        "1 pairs of different sizes, first 3.png",
        "1 pairs whose clean picture is the rainy one itself, first 4.png",
    ]


def test_folders_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is empty"):
        find_splits(tmp_path)
    write(tmp_path / "a" / "1.png")
    with pytest.raises(UsageError, match="recognised by names"):
        find_splits(tmp_path)
    write(tmp_path / "Rain800" / "training" / "1.png")
    with pytest.raises(UsageError, match="Rain800 is published with rainy and clean pictures as halves"):
        find_splits(tmp_path / "Rain800")


def test_scenes_in_training_and_test_are_found(tmp_path: Path) -> None:
    """Cut at the edges, compressed, mirrored, with light rain; but not merely similar ones."""
    for i in range(6):
        write(tmp_path / f"train/clean/{i}.png", scene(i))
        write(tmp_path / f"train/rainy/{i}.png", scene(i))
    changed = {
        0: scene(0)[:-1, :-1],
        1: scene(1)[:, ::-1],
        2: np.maximum(scene(2), np.where(RANDOM.random((120, 160, 1)) < 0.01, 200, 0)).astype(np.uint8),
        9: scene(9),
    }
    for i, pixels in changed.items():
        write(tmp_path / f"test/clean/{i}.jpg", pixels)
        write(tmp_path / f"test/rainy/{i}.jpg", pixels)
    splits = find_splits(tmp_path)
    assert [split.purpose for split in splits] == ["test", "train"]
    found = find_duplicates(*pictures_to_compare(tmp_path, splits, None))
    assert [(d.first.stem, d.second.stem, d.mirrored) for d in found] == [
        ("0", "0", False),
        ("1", "1", True),
        ("2", "2", False),
    ]
    alone, against = pictures_to_compare(tmp_path / "train/clean", [], tmp_path / "test")
    assert (len(alone), len(against)) == (6, 4)


def test_flat_pictures_are_like_nothing(tmp_path: Path) -> None:
    for i in (0, 1):
        write(tmp_path / f"{i}.png", np.full((30, 30, 3), 90 * i, np.uint8))
    assert find_duplicates([tmp_path / "0.png"], [tmp_path / "1.png"]) == []


def test_the_scenes_of_public_training_pairs_occur_in_rain100l(shared: Path) -> None:
    data = shared / "data"
    rain100l = sorted((data / "rain100l" / "clean").iterdir())
    found = find_duplicates(sorted(data.glob("rain200_train/*/clean/*")), rain100l)
    assert {(d.first.name, d.second.name) for d in found} == {("1.png", "1.png")}
    assert find_duplicates(sorted((data / "clean_pictures").glob("bsds_1*"))[:60], rain100l) == []
