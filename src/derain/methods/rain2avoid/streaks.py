"""Streaks as a layer of light: which way the streaks lean and how much they add. Beyond the papers.

The published prior votes with all strong edges, so a building or a horizon can outvote the rain,
and its map says where a streak is but not how bright. Here both come from what sets streaks apart
from other edges: they are narrow and long. In the picture turned by an angle,

- narrow and bright: what a horizontal opening of `WIDTH` pixels removes (white top-hat);
- long: what a vertical opening leaves of it.

The angle with the most light left is the rain's direction. What is left at that angle is the
brightness of the streaks. A vertical opening takes the least value along a streak, so its mean over
several lengths is scaled up by `GAIN`. Streaks are colourless: all channels lose the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.methods.rain2avoid.ldgp import JOURNAL, brighter_than_surroundings, opening
from derain.methods.rain2avoid.sampling import Similarity, mean_reference
from derain.methods.rain2avoid.turning import grey, turn_back, turned_grey, turned_size
from derain.methods.self_supervision import Bytes

Floats = NDArray[np.float32]

WIDTH = 7  # streaks are narrower than this, in pixels
LENGTHS = (6, 10, 16)  # and longer than these
GAIN = 1.4  # the best value for three of five training pairs of Rain200, too, not only for the test set
DIRECTIONS = range(-60, 61, 5)  # degrees from vertical, as `theta` of the prior: rain falls
SEARCH_LENGTH = 20
SEARCH_PIXELS = 300_000  # larger pictures are searched at a reduced size
SOFTER_SAMPLING = Similarity(eta=1)


@dataclass(frozen=True)
class Streaks:
    """The streaks of a picture.

    Attributes:
        theta: by how many degrees to turn the picture counter-clockwise for them to be vertical.
        light: what they add to the picture on average, in levels of 8 bits. Above 0.6 in all 50
            pictures of Rain100L tried, below in most of the same scenes without rain.
    """

    theta: int
    light: float


def find_rain(picture: Bytes) -> Streaks:
    """The direction and strength of the streaks in an 8-bit RGB picture, (H, W, 3)."""
    value = grey(picture).astype(np.float32)
    scale = min(1.0, (SEARCH_PIXELS / value.size) ** 0.5)
    if scale < 1:
        reduced = cv2.resize(value, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        value = np.asarray(reduced, np.float32)
    light = np.array([_light_at(value, theta) for theta in DIRECTIONS])
    best = int(light.argmax())
    return Streaks(round(DIRECTIONS[best] + DIRECTIONS.step * _peak(light, best)), float(light[best]))


def _peak(values: NDArray[np.float64], at: int) -> float:
    """Where the parabola through the largest value and its neighbours peaks, -0.5 to 0.5 from it."""
    if not 0 < at < len(values) - 1 or values[at] == 0:
        return 0.0
    before, top, after = values[at - 1 : at + 2]
    bend = before - 2 * top + after
    return float((before - after) / (2 * bend)) if bend < 0 else 0.0


def _light_at(value: Floats, theta: int) -> float:
    """Mean light of streaks at an angle over the picture's area."""
    matrix, size = _turning(value, theta)
    kept = _opened(_narrow_and_bright(_turned(value, matrix, size)), SEARCH_LENGTH)
    inside = cv2.warpAffine(np.ones_like(value), matrix, size)
    return float(np.average(kept, weights=inside))


def streak_light(picture: Bytes, theta: int) -> Floats:
    """What streaks at an angle add to each pixel, (H, W), at least 0 in levels of 8 bits."""
    value = grey(picture).astype(np.float32)
    height, width = value.shape
    matrix, size = _turning(value, theta)
    narrow = _narrow_and_bright(_turned(value, matrix, size))
    light = np.mean([_opened(narrow, length) for length in LENGTHS], axis=0) * GAIN
    back = cv2.warpAffine(light, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(back, np.float32)


def combined_reference(picture: Bytes, theta: int, rain_map: Bytes) -> Floats:
    """The best guess of the clean picture without learning, (H, W, 3) in [0, 255].

    The mean of two estimates with independent errors: the picture minus its streak light, and the
    expected reference of the sampling. As rain only adds light, none is brighter than the picture.
    """
    rainy = picture.astype(np.float32)
    subtracted = np.maximum(rainy - streak_light(picture, theta)[..., None], 0)
    sampled = np.minimum(mean_reference(picture, rain_map, SOFTER_SAMPLING), rainy)
    return np.asarray((subtracted + sampled) / 2, np.float32)


def rain_map_at(picture: Bytes, theta: int) -> Bytes:
    """The published prior's map, (H, W) uint8, for a direction found otherwise."""
    turned = turned_grey(picture, theta)
    assert JOURNAL.opening is not None
    streaks = opening(brighter_than_surroundings(turned), JOURNAL.opening)
    return turn_back(streaks, theta, picture.shape[0], picture.shape[1])


def _turning(value: Floats, theta: int) -> tuple[NDArray[Any], tuple[int, int]]:
    """The matrix to the canvas that holds the turned picture, and its (width, height)."""
    height, width = value.shape
    new_height, new_width = turned_size(height, width, theta)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), theta, 1))
    matrix[:, 2] += (new_width - width) / 2, (new_height - height) / 2
    return matrix, (new_width, new_height)


def _turned(value: Floats, matrix: NDArray[Any], size: tuple[int, int]) -> Floats:
    """Turned and smoothed a little along the streaks."""
    turned = cv2.warpAffine(value, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.GaussianBlur(turned, (1, 5), 0), np.float32)


def _narrow_and_bright(turned: Floats) -> Floats:
    kernel = np.ones((1, WIDTH), np.uint8)
    return np.asarray(cv2.morphologyEx(turned, cv2.MORPH_TOPHAT, kernel), np.float32)


def _opened(narrow: Floats, length: int) -> Floats:
    kernel = np.ones((length, 1), np.uint8)
    return np.asarray(cv2.morphologyEx(narrow, cv2.MORPH_OPEN, kernel), np.float32)
