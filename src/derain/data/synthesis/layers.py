"""Layers of streaks rendered or filmed elsewhere, laid over other pictures."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.synthesis.camera import to_levels
from derain.data.synthesis.mixing import Mixing, mix
from derain.data.synthesis.pixels import FloatArray
from derain.data.synthesis.scene import SceneRanges, expose, set_scene

SCALES = (0.6, 1.8)  # of the layer
LEAN = 15.0  # degrees to either side
STRENGTH = (0.15, 1.0)
MIXINGS: tuple[Mixing, ...] = ("additive", "screen", "linear")
SCENE = SceneRanges()


def lay_over(
    rng: np.random.Generator, clean: NDArray[np.uint8], layer: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A pair made of a clean picture and a piece of a layer, mirrored, turned and scaled at random.

    Args:
        rng: all randomness; the same state gives the same pair.
        clean: (H, W, 3) RGB uint8.
        layer: (h, w) or (h, w, 3) uint8, streaks on black, of any size.

    Returns:
        The rainy picture and the clean one that belongs to it, (H, W, 3) RGB uint8.
    """
    dry = set_scene(rng, clean.astype(np.float32) / np.float32(255), SCENE)
    streaks = _piece(rng, layer, clean.shape[0], clean.shape[1]) * np.float32(rng.uniform(*STRENGTH))
    rainy = mix(dry, streaks, MIXINGS[rng.integers(len(MIXINGS))])
    rainy, dry = expose(rng, (rainy, dry), SCENE)
    return to_levels(rainy), to_levels(dry)


def _piece(rng: np.random.Generator, layer: NDArray[np.uint8], height: int, width: int) -> FloatArray:
    """A random piece of a layer, (height, width) in [0, 1]; beyond its edges it is mirrored."""
    scale, lean = rng.uniform(*SCALES), np.deg2rad(rng.uniform(-LEAN, LEAN))
    middle = rng.uniform(0, 1, 2) * (layer.shape[1], layer.shape[0])
    across = np.array([np.cos(lean), np.sin(lean)]) / scale * (1 if rng.random() < 0.5 else -1)
    down = np.array([-np.sin(lean), np.cos(lean)]) / scale
    # The map takes a place in the piece to the place in the layer that it shows.
    start = middle - across * width / 2 - down * height / 2
    place = np.stack([across, down, start], 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    piece = cv2.warpAffine(layer, place, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if piece.ndim == 3:
        piece = functools.reduce(cv2.max, cv2.split(piece))  # NumPy is slow over an axis of three
    return piece.astype(np.float32) / np.float32(255)
