"""Training pairs from photographs of real rain and what two networks made of them.

    python scripts/real_pairs.py RAINY TEACHER OWN PAIRS

Rain brightens all three colours, so what a network darkens in all three counts as rain; the rest of what
it does is blur, noise or a mistake, and the photograph stays as it is there. Of both networks the darker
one counts. Look through the pairs and delete those whose truth has lost the scene.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.folders import read_rgb
from derain.data.pairing import pair_folders

FAINTEST, CERTAIN = 2, 6  # levels: darkening below the first is noise, from the second on it counts wholly

Picture = NDArray[np.uint8]


def likely_truth(rainy: Picture, teacher: Picture, own: Picture) -> Picture:
    """(H, W, 3) uint8, from three pictures of that shape."""
    return np.minimum(_without_rain(rainy, teacher), _without_rain(rainy, own))


def _without_rain(rainy: Picture, restored: Picture) -> Picture:
    gone = rainy.astype(np.float32) - restored
    rain = np.clip((gone.min(2, keepdims=True) - FAINTEST) / (CERTAIN - FAINTEST), 0, 1)
    return np.clip(rainy - rain * gone, 0, 255).round().astype(np.uint8)


def main(rainy: Path, teacher: Path, own: Path, pairs: Path) -> None:
    by_teacher = {pair.name: pair.partner for pair in pair_folders(rainy, teacher)}
    for folder in ("rainy", "clean"):
        (pairs / folder).mkdir(parents=True, exist_ok=True)
    for pair in pair_folders(rainy, own):
        pictures = read_rgb(pair.picture), read_rgb(by_teacher[pair.name]), read_rgb(pair.partner)
        target = Path(pair.name).with_suffix(".png").name
        cv2.imwrite(str(pairs / "rainy" / target), pictures[0][..., ::-1])
        cv2.imwrite(str(pairs / "clean" / target), likely_truth(*pictures)[..., ::-1])


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]))
