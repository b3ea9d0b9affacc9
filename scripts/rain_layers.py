"""Layers of real rain: what a restored picture lacks of its rainy original, white on black.

A recipe's source takes a folder of them as `layers` and lays them over clean pictures. Look through
them first and delete those that show the scene: edges of roofs and bars are easily taken for rain.

    python scripts/rain_layers.py RAINY RESTORED LAYERS
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.folders import read_rgb
from derain.data.pairing import pair_folders

FAINTEST = 2  # levels; less than that is noise and JPEG
BRIGHT = 200  # level that the brightest streaks of a layer are raised to
MOST_GAIN = 6.0


def rain_layer(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The rain that `restored` lacks.

    Args:
        rainy: (H, W, 3) uint8.
        restored: of the same size.

    Returns:
        (H, W) uint8. Streaks brighten all three colors, so the least of the three differences counts;
        the layer is raised, sixfold at most, until one pixel in 200 is brighter than `BRIGHT`.
    """
    gone = np.clip((rainy.astype(np.int16) - restored).min(2) - FAINTEST, 0, None).astype(np.float32)
    return raised(gone, float(np.quantile(gone, 0.995)))


def raised(rain: NDArray[np.float32], typical: float) -> NDArray[np.uint8]:
    """Rain (H, W) in levels, raised until the level `typical` is `BRIGHT`, but sixfold at most."""
    gain = min(MOST_GAIN, BRIGHT / max(1.0, typical))
    return np.clip(rain * gain, 0, 255).astype(np.uint8)


def main(rainy: Path, restored: Path, layers: Path) -> None:
    for pair in pair_folders(rainy, restored):
        before, after = read_rgb(pair.picture), read_rgb(pair.partner)
        if before.shape != after.shape:
            print(f"{pair.name}: left out, its result has another size", file=sys.stderr)
            continue
        target = layers / Path(pair.name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), rain_layer(before, after))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
