"""What rainy scenes look like apart from the rain: dark, misty, soft, noisy, compressed, striped or lined.

Both pictures of a pair, rainy and clean, go through the same camera with the same noise, so that a
network learns to remove rain and nothing else. Corrugated iron, fences, bars, planks and blinds are
as straight and bright as streaks, but evenly spaced; cables, pipes and poles are longer than any streak.
Such stripes and lines are in both pictures, and so is mist, which stays when rain is removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from derain.data.synthesis.camera import through_jpeg, to_levels
from derain.data.synthesis.pixels import FloatArray, in_color, normal
from derain.data.synthesis.streaks import Range
from derain.data.synthesis.veil import VeilRanges, add_veil

# Widths of lines in pixels. Out of focus, widths in between look like falling water.
THIN, WIDE = (0.8, 3.0), (10.0, 40.0)
STANDING_MIST = VeilRanges(near=(0.0, 0.2), far=(0.0, 0.6))


@dataclass(frozen=True)
class SceneRanges:
    """The ranges from which each scene is drawn.

    Attributes:
        gamma: exponent on the values; above 1 it darkens.
        gain: factor on the values, after the exponent.
        striped: share of scenes with evenly spaced stripes.
        lined: share of scenes with a few lines from edge to edge.
        misty: share of scenes behind mist.
        mist: the ranges of that mist.
        soft: standard deviation of the blur, in pixels: defocus, or a frame enlarged from a smaller one.
        softened: share of scenes that are blurred at all.
        noise: standard deviation at white; both pictures of a pair have the same noise.
        compressed: share of pairs that go through JPEG, both pictures at the same quality.
        quality: quality of the JPEG files, 1 to 100.
    """

    gamma: Range = (0.9, 2.2)
    gain: Range = (0.35, 1.0)
    striped: float = 0.3
    lined: float = 0.1
    misty: float = 0.2
    mist: VeilRanges = STANDING_MIST
    soft: Range = (0.4, 3.0)
    softened: float = 0.6
    noise: Range = (0.0, 0.015)
    compressed: float = 0.6
    quality: tuple[int, int] = (50, 95)


def set_scene(rng: np.random.Generator, picture: FloatArray, ranges: SceneRanges) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] as it would look on a dull day; the same shape and range."""
    if rng.random() < ranges.striped:
        picture = add_stripes(rng, picture)
    if rng.random() < ranges.lined:
        picture = add_lines(rng, picture)
    if rng.random() < ranges.misty:
        picture = add_veil(rng, picture, ranges.mist)
    dark: FloatArray = picture ** np.float32(rng.uniform(*ranges.gamma)) * np.float32(
        rng.uniform(*ranges.gain)
    )
    if rng.random() >= ranges.softened:
        return dark
    sigma = float(np.exp(rng.uniform(*np.log(ranges.soft))))
    return np.asarray(cv2.GaussianBlur(dark, (0, 0), sigma), np.float32)


def add_stripes(rng: np.random.Generator, picture: FloatArray) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] with evenly spaced stripes, most of them nearly upright, on all of it or
    beyond a straight edge; the same shape and range."""
    height, width = picture.shape[:2]
    upright = rng.random() < 0.75
    angle = rng.normal(0, 0.08) if upright else rng.uniform(-np.pi / 2, np.pi / 2)
    period, duty = np.exp(rng.uniform(*np.log((4.0, 40.0)))), rng.uniform(0.1, 0.6)
    down, across = np.mgrid[:height, :width].astype(np.float32)
    rise, run = np.float32(np.sin(angle) / period), np.float32(np.cos(angle) / period)
    place = across * run + down * rise + np.float32(rng.uniform())
    number = np.floor(place).astype(int)
    wave = np.sin(2 * np.pi * place) if rng.random() < 0.5 else (place - np.floor(place) < duty)
    number -= number.min()
    uneven = rng.normal(1, 0.2, number.max() + 1).astype(np.float32)[number]  # no two bars are quite alike
    stripes = cv2.GaussianBlur(wave * uneven, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.5:
        edge = rng.uniform(-np.pi, np.pi)
        cosine, sine = np.float32(np.cos(edge)), np.float32(np.sin(edge))
        beyond = (across - width / 2) * cosine + (down - height / 2) * sine
        stripes = np.where(beyond > rng.uniform(-0.3, 0.3) * width, stripes, np.float32(0))
    strength = np.float32(np.exp(rng.uniform(*np.log((0.05, 0.5)))) * rng.choice([-1, 1]))
    if rng.random() < 0.6:
        striped: FloatArray = picture * in_color(1 + strength * stripes)
    else:
        striped = picture + in_color(strength * stripes, rng.uniform(0.7, 1, 3))
    return np.asarray(np.clip(striped, 0, 1), np.float32)


def add_lines(rng: np.random.Generator, picture: FloatArray) -> FloatArray:
    """`picture` (H, W, 3) in [0, 1] with cables, pipes or poles: a few lines that cross all of it, straight
    or sagging; the same shape and range."""
    height, width = picture.shape[:2]
    down, across = np.mgrid[:height, :width].astype(np.float32)
    across, down = across - np.float32(width / 2), down - np.float32(height / 2)
    for _ in range(rng.integers(1, 5)):
        angle = rng.normal(0, 0.3) if rng.random() < 0.6 else rng.uniform(-np.pi / 2, np.pi / 2)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = (down * cosine - across * sine) / np.float32(height)
        sag = np.float32(rng.normal(0, 0.1) * width if rng.random() < 0.4 else 0)
        place = np.float32(rng.uniform(-0.5, 0.5) * max(height, width)) + sag * along * along
        thickness = np.exp(rng.uniform(*np.log(THIN if rng.random() < 0.8 else WIDE)))
        distance = np.abs(across * cosine + down * sine - place)
        line = np.clip(np.float32((thickness + 1) / 2) - distance, 0, np.float32(min(thickness, 1)))
        line *= np.float32(np.exp(rng.uniform(*np.log((0.35, 1.0)))))  # fainter ones look like rain
        color = rng.uniform(0.3, 1.0) * rng.uniform(0.85, 1.0, 3)
        picture = picture + in_color(line) * (color.astype(np.float32) - picture)
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def expose(
    rng: np.random.Generator, pair: tuple[FloatArray, FloatArray], ranges: SceneRanges
) -> tuple[FloatArray, FloatArray]:
    """Both pictures of a pair with the same noise and the same compression; values in [0, 1]."""
    deviation = np.float32(rng.uniform(*ranges.noise))
    noise = normal(rng, pair[0].shape)
    noise *= np.sqrt(0.1 + 0.9 * pair[1]) * deviation
    first, second = (np.clip(picture + noise, 0, 1) for picture in pair)
    if rng.random() >= ranges.compressed:
        return first, second
    quality = int(rng.integers(ranges.quality[0], ranges.quality[1] + 1))
    return _compressed(first, quality), _compressed(second, quality)


def _compressed(picture: FloatArray, quality: int) -> FloatArray:
    return np.divide(through_jpeg(to_levels(picture), quality), 255, dtype=np.float32)
