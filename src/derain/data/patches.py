"""Training patches: endless streams of (rainy, clean) pairs.

Item i is a pure function of (seed, i), whatever the loader, its number of workers or the number of
processes, so a training run can resume exactly from a step number. Every pass over the pictures takes
them in a new order. An item is a dict of `rainy` and `clean`, (3, patch, patch) float32 RGB in
[0, 1], and `name`, the picture's file. The streams have no length: give the loader a sampler, e.g.
`DataLoader(pairs, batch_size=8, sampler=range(8000))`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from derain.data.folders import read_rgb
from derain.data.synthesis import make_pair, preset
from derain.data.synthesis.layers import FILMED, LayerRanges, lay_over
from derain.data.synthesis.weather import ORDINARY, Weather
from derain.errors import DerainError
from derain.pictures import Picture, to_tensor

Levels = NDArray[np.uint8]
Item = dict[str, Tensor | str | int]
Crop = Literal["window", "resized"]
Turns = Literal["none", "mirror", "flips_and_rotations", "upright_twice_as_likely"]
POSITIONS = {"none": 1, "mirror": 2, "flips_and_rotations": 8, "upright_twice_as_likely": 9}
NO_ZOOM = (1.0, 1.0)
KEPT = 2**30  # bytes of pictures kept, for each folder in each process


class Pictures:
    """Picture files, read as uint8 RGB; up to `room` bytes of them are kept in memory."""

    def __init__(self, paths: Sequence[Path], room: int = KEPT) -> None:
        self.paths = list(paths)
        self._read: dict[int, Levels] = {}
        self._room = room

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Levels:
        if number in self._read:
            return self._read[number]
        picture = read_rgb(self.paths[number])
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._read[number] = picture
        return picture


@dataclass(frozen=True)
class Cut:
    """How a patch is taken from a picture.

    Attributes:
        patch: side in pixels; a smaller picture is mirrored at its right and bottom edges.
        crop: "window", or "resized": 80 to 100 % of the area at an aspect ratio of 3/4 to 4/3,
            resized to the patch (Wang et al., SPANet).
        turns: "none"; "mirror" left-right; "flips_and_rotations", all eight positions of a square, equally
            likely; "upright_twice_as_likely", the same with no turn twice as likely (Chen et al., NeRD-Rain).
        saturation: with probability 1/3, make colours up to 20 % stronger or weaker (same source).
        sideways: share of synthetic pairs that are rotated again after rain was added, so that rain comes
            from any side.
        zoom: smallest and largest factor by which pairs are enlarged (below 1: reduced) together with their
            rain; the window is smaller by the same factor. Factors are drawn log-uniformly.
    """

    patch: int
    crop: Crop = "window"
    turns: Turns = "flips_and_rotations"
    saturation: bool = False
    sideways: float = 0.0
    zoom: tuple[float, float] = NO_ZOOM


Rainmaker = Callable[[np.random.Generator, Levels], tuple[Levels, Levels]]


def rain_of_preset(name: str, weather: Weather = ORDINARY) -> Rainmaker:
    """A function that adds the rain of a preset of `data.synthesis`, in this weather.

    Raises:
        UsageError: the name is unknown, or the weather changes nothing in this preset.
    """
    return functools.partial(make_pair, kinds=weather.applied_to(preset(name)))


def rain_of_layers(layers: Pictures, ranges: LayerRanges = FILMED) -> Rainmaker:
    """A function that lays a piece of one of the layers, streaks on black, over a clean picture."""
    return functools.partial(_rain_of_one_layer, layers, ranges)


def _rain_of_one_layer(
    layers: Pictures, ranges: LayerRanges, rng: np.random.Generator, clean: Levels
) -> tuple[Levels, Levels]:
    return lay_over(rng, clean, layers[int(rng.integers(len(layers)))], ranges)


class SyntheticPairs(Dataset[Item]):
    """Patches of clean pictures, each with synthetic rain.

    Args:
        clean: the pictures.
        rain: makes a pair, a rainy picture and the clean one that belongs to it, from a clean picture.
        cut: how patches are taken; the clean patch is turned before rain is added.
        seed: the seed of all randomness.
    """

    def __init__(self, clean: Pictures, rain: Rainmaker, cut: Cut, seed: int = 0) -> None:
        self.clean, self.rain, self.cut, self.seed = clean, rain, cut, seed

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, index])
        number = picture_number(self.seed, index, len(self.clean))
        (clean,) = take(rng, window_before_zoom(rng, self.cut), self.clean[number])
        rainy, clean = self.rain(rng, clean)
        if self.cut.sideways and rng.random() < self.cut.sideways:
            position = int(rng.integers(8))
            rainy, clean = turned(rainy, position), turned(clean, position)
        rainy, clean = zoomed(rng, self.cut, rainy, clean)
        return {
            "rainy": levels_to_tensor(rainy),
            "clean": levels_to_tensor(clean),
            "name": self.clean.paths[number].name,
        }


class PairedPatches(Dataset[Item]):
    """Patches from the same random place in a rainy and a clean picture.

    Args:
        rainy, clean: pictures in the same order.
        cut: how patches are taken.
        seed: the seed of all randomness.
    """

    def __init__(self, rainy: Pictures, clean: Pictures, cut: Cut, seed: int = 0) -> None:
        self.rainy, self.clean, self.cut, self.seed = rainy, clean, cut, seed

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng([self.seed, index])
        number = picture_number(self.seed, index, len(self.clean))
        window = window_before_zoom(rng, self.cut)
        rainy, clean = zoomed(rng, self.cut, *take(rng, window, *read_pair(self.rainy, self.clean, number)))
        return {
            "rainy": levels_to_tensor(rainy),
            "clean": levels_to_tensor(clean),
            "name": self.rainy.paths[number].name,
        }


def read_pair(rainy: Pictures, clean: Pictures, number: int) -> tuple[Levels, Levels]:
    """Both pictures of a pair. Raises `DerainError` naming both files when their sizes differ."""
    pair = rainy[number], clean[number]
    if pair[0].shape != pair[1].shape:
        sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in pair)
        raise DerainError(f"{rainy.paths[number]} and {clean.paths[number]}: sizes differ ({sizes}).")
    return pair


def picture_number(seed: int, index: int, count: int) -> int:
    """The picture from which item `index` is cut: each once per pass, in a new order."""
    rounds, place = divmod(index, count)
    return int(_order(seed, rounds, count)[place])


@functools.lru_cache(maxsize=2)
def _order(seed: int, rounds: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, rounds, 1]).permutation(count)


def take(rng: np.random.Generator, cut: Cut, *pictures: Levels) -> list[Levels]:
    """One patch of each picture, at the same place and with the same turn and saturation."""
    if cut.crop == "resized":
        height, width = pictures[0].shape[:2]
        place = rectangle(height, width, rng.uniform, rng.integers)
        patches = resized(cut.patch, place, pictures)
    else:
        patches = _window(rng, cut.patch, pictures)
    if cut.saturation and rng.random() < 1 / 3:
        factor = rng.uniform(0.8, 1.2)
        patches = [_saturated(patch, factor) for patch in patches]
    position = int(rng.integers(POSITIONS[cut.turns])) % 8
    return [turned(patch, position) for patch in patches]


ENLARGING = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)  # from soft to sharp


def window_before_zoom(rng: np.random.Generator, cut: Cut) -> Cut:
    """The same cut with a patch size that `zoomed` brings to the right one, by a factor drawn at random."""
    if cut.zoom == NO_ZOOM:
        return cut  # without drawing a random number
    low, high = np.log(cut.zoom)
    return replace(cut, patch=max(1, round(cut.patch / math.exp(rng.uniform(low, high)))))


def zoomed(rng: np.random.Generator, cut: Cut, *patches: Levels) -> list[Levels]:
    """Square patches, all resized in the same way to the size of the cut."""
    side = len(patches[0])
    if side == cut.patch:
        return list(patches)
    kind = cv2.INTER_AREA if side > cut.patch else ENLARGING[int(rng.integers(len(ENLARGING)))]
    size = (cut.patch, cut.patch)
    return [np.asarray(cv2.resize(patch, size, interpolation=kind), np.uint8) for patch in patches]


def _window(rng: np.random.Generator, patch: int, pictures: Sequence[Levels]) -> list[Levels]:
    height, width = pictures[0].shape[:2]
    missing = ((0, max(patch - height, 0)), (0, max(patch - width, 0)), (0, 0))
    if min(height, width) < patch:
        pictures = [np.pad(picture, missing, "symmetric") for picture in pictures]
    top, left = rng.integers(max(height - patch, 0) + 1), rng.integers(max(width - patch, 0) + 1)
    return [picture[top : top + patch, left : left + patch] for picture in pictures]


def rectangle(
    height: int, width: int, uniform: Callable[[float, float], float], below: Callable[[int], int]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle: 80 to 100 % of a picture's area, aspect ratio 3/4 to 4/3.

    After ten draws that do not fit, it is the centred square of the shorter side. `uniform` draws a number
    between two others, `below` an integer from 0; those of Python's `random` give the published draws.
    """
    for _ in range(10):
        area, aspect = uniform(0.8, 1) * width * height, uniform(3 / 4, 4 / 3)
        tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if uniform(0, 1) < 0.5:
            tall, wide = wide, tall
        if tall <= height and wide <= width:
            return int(below(height - tall + 1)), int(below(width - wide + 1)), tall, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def resized(patch: int, place: tuple[int, int, int, int], pictures: Sequence[Levels]) -> list[Levels]:
    """A rectangle of each picture, resized to `patch` x `patch` pixels (anti-aliased bicubic)."""
    top, left, tall, wide = place
    windows = [picture[top : top + tall, left : left + wide] for picture in pictures]
    return [np.array(Image.fromarray(w).resize((patch, patch), Image.Resampling.BICUBIC)) for w in windows]


def _saturated(patch: Levels, factor: float) -> Levels:
    grey = np.rint(patch @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.asarray(np.clip(grey + factor * (patch - grey), 0, 255), np.uint8)


def turned(patch: Levels, position: int) -> Levels:
    """One of the 8 positions of a square: position // 2 quarter turns, mirrored if it is odd."""
    rotated = np.rot90(patch, position // 2)
    return np.ascontiguousarray(rotated[:, ::-1] if position % 2 else rotated)


def levels_to_tensor(levels: Levels) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return to_tensor(Picture(levels))[0]
