"""Training patches depend on seed and index alone, whatever reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from derain.data.folders import pairs_in, pictures_in
from derain.data.patches import PairedPatches, Pictures, SyntheticPairs, picture_number
from derain.errors import DerainError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("clean", "rainy"):
        (tmp_path / name).mkdir()
        for number in range(5):
            small = rng.integers(0, 256, (7 + number, 9, 3)).astype(np.uint8)
            picture = cv2.resize(small, (72, 60 + number), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), picture)
    return tmp_path


def synthetic(folder: Path, **changes: object) -> SyntheticPairs:
    options = {"rain": "mixed", "patch": 32, "count": 12, "seed": 3} | changes
    return SyntheticPairs(Pictures(pictures_in(folder / "clean")), **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_the_same_in_any_worker(folder: Path, workers: int) -> None:
    alone = synthetic(folder)
    loader = DataLoader(synthetic(folder), batch_size=4, num_workers=workers)
    for start, batch in zip(range(0, 12, 4), loader, strict=True):
        for offset in range(4):
            item = alone[start + offset]
            assert torch.equal(batch["rainy"][offset], item["rainy"])
            assert torch.equal(batch["clean"][offset], item["clean"])
            assert batch["name"][offset] == item["name"]


def test_items_do_not_depend_on_what_was_read_before(folder: Path) -> None:
    a, b = synthetic(folder), synthetic(folder)
    last = b[11]
    assert torch.equal([a[i] for i in range(12)][-1]["rainy"], last["rainy"])
    assert not torch.equal(synthetic(folder, seed=4)[11]["rainy"], last["rainy"])


def test_every_pass_takes_each_picture_once_in_a_new_order() -> None:
    passes = [[picture_number(0, i, 20) for i in range(k * 20, k * 20 + 20)] for k in range(3)]
    assert all(sorted(order) == list(range(20)) for order in passes)
    assert passes[0] != passes[1]


def test_paired_patches_are_cut_at_one_place(folder: Path) -> None:
    clean = Pictures(pictures_in(folder / "clean"))
    for turn in (False, True):
        pairs = PairedPatches(clean, clean, patch=24, count=10, turn=turn)
        for i in range(10):
            assert torch.equal(pairs[i]["rainy"], pairs[i]["clean"])
            assert pairs[i]["clean"].shape == (3, 24, 24)


def test_sizes_that_differ_are_named(folder: Path) -> None:
    cv2.imwrite(str(folder / "rainy" / "2.png"), np.zeros((50, 50, 3), np.uint8))
    rainy, clean = zip(*pairs_in(folder / "rainy", folder / "clean"), strict=True)
    pairs = PairedPatches(Pictures(rainy), Pictures(clean), patch=24, count=10)
    with pytest.raises(DerainError, match=r"2\.png .*sizes differ \(50x50 and 72x62\)"):
        [pairs[i] for i in range(10)]


def test_what_is_wrong_with_a_folder_is_named(folder: Path) -> None:
    with pytest.raises(DerainError, match="nowhere: no such folder"):
        pictures_in(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(DerainError, match="empty: no pictures"):
        pictures_in(folder / "empty")
    (folder / "clean" / "3.png").unlink()
    with pytest.raises(DerainError, match=r"3\.png: no clean picture of the same name"):
        pairs_in(folder / "rainy", folder / "clean")
    (folder / "clean" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DerainError, match=r"3\.png: not a picture"):
        Pictures(pictures_in(folder / "clean")).read_all()
    rainy = Pictures(pictures_in(folder / "rainy"))
    with pytest.raises(DerainError, match="smaller than the patch of 100"):
        PairedPatches(rainy, rainy, patch=100, count=1)[0]
