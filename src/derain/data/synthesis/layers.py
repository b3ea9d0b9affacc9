"""Lays layers of streaks that were rendered or filmed elsewhere over pictures."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.synthesis.camera import to_levels
from derain.data.synthesis.mixing import Mixing, mix
from derain.data.synthesis.pixels import FloatArray
from derain.data.synthesis.scene import SceneRanges, expose, set_scene

SCENE = SceneRanges()


@dataclass(frozen=True)
class LayerRanges:
    """The ranges from which each pair is drawn, uniformly.

    Attributes:
        scale: factor by which the layer is enlarged.
        lean: angle by which the layer is rotated, in degrees.
        strength: factor on its brightness.
        mixings: ways in which it may be combined with the picture.
        scene: how the picture is first made darker, striped and noisy; None leaves it unchanged.
    """

    scale: tuple[float, float] = (0.6, 1.8)
    lean: tuple[float, float] = (-15.0, 15.0)
    strength: tuple[float, float] = (0.15, 1.0)
    mixings: tuple[Mixing, ...] = ("additive", "screen", "linear")
    scene: SceneRanges | None = SCENE


FILMED = LayerRanges()
# As most public sets are made: rendered streaks are added to the unchanged picture.
ADDED = LayerRanges(
    scale=(0.8, 1.6), lean=(-20.0, 20.0), strength=(0.35, 1.2), mixings=("additive",), scene=None
)


def lay_over(
    rng: np.random.Generator, clean: NDArray[np.uint8], layer: NDArray[np.uint8], ranges: LayerRanges = FILMED
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A pair made of a clean picture and a piece of a layer, mirrored, turned and scaled at random.

    Args:
        rng: the source of all randomness; the same state gives the same pair.
        clean: (H, W, 3) RGB uint8.
        layer: (h, w) or (h, w, 3) uint8, streaks on black, of any size.
        ranges: the ranges from which the pair is drawn.

    Returns:
        The rainy picture and the clean one that belongs to it, (H, W, 3) RGB uint8.
    """
    dry = clean.astype(np.float32) / np.float32(255)
    if ranges.scene:
        dry = set_scene(rng, dry, ranges.scene)
    streaks = _piece(rng, layer, clean.shape[0], clean.shape[1], ranges)
    streaks *= np.float32(rng.uniform(*ranges.strength))
    rainy = mix(dry, streaks, ranges.mixings[rng.integers(len(ranges.mixings))])
    if ranges.scene:
        rainy, dry = expose(rng, (rainy, dry), ranges.scene)
    return to_levels(rainy), to_levels(dry)


def _piece(
    rng: np.random.Generator, layer: NDArray[np.uint8], height: int, width: int, ranges: LayerRanges
) -> FloatArray:
    """A random piece of a layer, (height, width) in [0, 1]; the layer is mirrored beyond its edges."""
    scale, lean = rng.uniform(*ranges.scale), np.deg2rad(rng.uniform(*ranges.lean))
    across = np.array([np.cos(lean), np.sin(lean)]) / scale * (1 if rng.random() < 0.5 else -1)
    down = np.array([-np.sin(lean), np.cos(lean)]) / scale
    # The piece stays within the layer if it fits there.
    whole = np.array([layer.shape[1], layer.shape[0]], np.float64)
    half = np.minimum((np.abs(across) * width + np.abs(down) * height) / 2, whole / 2)
    middle = rng.uniform(half, whole - half)
    # Maps coordinates in the piece to coordinates in the layer.
    start = middle - across * width / 2 - down * height / 2
    place = np.stack([across, down, start], 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    piece = cv2.warpAffine(layer, place, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if piece.ndim == 3:
        piece = functools.reduce(cv2.max, cv2.split(piece))  # NumPy is slow over an axis of three
    return piece.astype(np.float32) / np.float32(255)
