"""Training patches: endless streams of (rainy, clean) pairs.

Item i is a pure function of (seed, i), whatever the loader, the number of its workers or of
processes, so a training run goes on exactly from a step number. Every pass over the pictures takes
them in a new order. An item is a dict of `rainy` and `clean`, (3, patch, patch) float32 RGB in
[0, 1], and `name`, the picture's file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from derain.data.folders import read_rgb
from derain.data.synthesis import make_rainy, preset
from derain.errors import DerainError

Levels = NDArray[np.uint8]
Item = dict[str, Tensor | str]


class Pictures:
    """Files read as uint8 RGB at first use and kept in memory, where `keep` is set."""

    def __init__(self, paths: Sequence[Path], keep: bool = True) -> None:
        self.paths = list(paths)
        self._read: dict[int, Levels] = {}
        self._keep = keep

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Levels:
        if number in self._read:
            return self._read[number]
        picture = read_rgb(self.paths[number])
        if self._keep:
            self._read[number] = picture
        return picture

    def read_all(self) -> None:
        """Reads every file now, so that processes forked later share one copy."""
        for number in range(len(self)):
            self[number]


class SyntheticPairs(Dataset[Item]):
    """Patches of clean pictures, with rain made on each.

    Args:
        clean: the pictures.
        rain: name of a preset of `data.synthesis`.
        patch: side in pixels.
        count: how many items there are.
        seed: of everything.
        turn: besides mirroring, turn the clean patch by quarter turns before it rains on it.
    """

    def __init__(
        self, clean: Pictures, rain: str, patch: int, count: int, seed: int = 0, turn: bool = True
    ) -> None:
        self.clean, self.kinds, self.patch, self.count = clean, preset(rain), patch, count
        self.seed, self.turn = seed, turn

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, index])
        number = picture_number(self.seed, index, len(self.clean))
        clean = _cut(rng, self.patch, self.clean.paths[number], self.clean[number])[0]
        clean = _turned(clean, int(rng.integers(8)) if self.turn else int(rng.integers(2)))
        rainy = make_rainy(rng, clean, self.kinds)
        return {"rainy": to_tensor(rainy), "clean": to_tensor(clean), "name": self.clean.paths[number].name}


class PairedPatches(Dataset[Item]):
    """Patches at the same random place of a rainy and a clean picture.

    Args:
        rainy, clean: pictures in the same order.
        patch: side in pixels.
        count: how many items there are.
        seed: of everything.
        turn: turn and mirror the patch into one of its 8 positions, else leave it.
    """

    def __init__(
        self, rainy: Pictures, clean: Pictures, patch: int, count: int, seed: int = 0, turn: bool = True
    ) -> None:
        self.rainy, self.clean, self.patch, self.count = rainy, clean, patch, count
        self.seed, self.turn = seed, turn

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, index])
        number = picture_number(self.seed, index, len(self.clean))
        path = self.rainy.paths[number]
        rainy, clean = self.rainy[number], self.clean[number]
        if rainy.shape != clean.shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (rainy, clean))
            raise DerainError(f"{path} and {self.clean.paths[number]}: sizes differ ({sizes}).")
        pair = _cut(rng, self.patch, path, rainy, clean)
        position = int(rng.integers(8)) if self.turn else 0
        rainy, clean = (_turned(x, position) for x in pair)
        return {"rainy": to_tensor(rainy), "clean": to_tensor(clean), "name": path.name}


def picture_number(seed: int, index: int, count: int) -> int:
    """The picture that item `index` is cut from: each once in every pass, in a new order."""
    rounds, place = divmod(index, count)
    return int(np.random.default_rng([seed, rounds, 1]).permutation(count)[place])


def _cut(rng: np.random.Generator, patch: int, path: Path, *pictures: Levels) -> list[Levels]:
    height, width = pictures[0].shape[:2]
    if min(height, width) < patch:
        raise DerainError(
            f"{path}: {width}x{height} is smaller than the patch of {patch}; use a smaller patch."
        )
    top, left = rng.integers(height - patch + 1), rng.integers(width - patch + 1)
    return [picture[top : top + patch, left : left + patch] for picture in pictures]


def _turned(patch: Levels, position: int) -> Levels:
    """One of the 8 positions of a square: odd ones are mirrored, position // 2 quarter turns."""
    turned = np.rot90(patch, position // 2)
    return np.ascontiguousarray(turned[:, ::-1] if position % 2 else turned)


def to_tensor(levels: Levels) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1), np.float32) / 255)
