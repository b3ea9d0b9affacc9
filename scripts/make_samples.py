"""Makes the three rainy sample pictures of `samples/` from freely licensed photographs.

    python scripts/make_samples.py TEMPLE FLOWER CAT

The sources and their licences are named in samples/README.md.
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from derain.data.synthesis.presets import FINE
from derain.data.synthesis.streaks import streak_layer

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
RAIN = replace(FINE, length=(25, 60), coverage=(0.5, 0.6), brightness=(0.11, 0.14), width=(1.6, 2.2))
FALLS = {"temple": 10, "flower": -15, "cat": 0}  # degrees from vertical

for number, (name, fall) in enumerate(FALLS.items(), 1):
    clean = cv2.imread(sys.argv[number]).astype(np.float32) / 255
    ranges = replace(RAIN, angle=(fall, fall))
    rain = streak_layer(np.random.default_rng(number), *clean.shape[:2], ranges)[..., None]
    rainy = np.round(np.clip(clean + rain, 0, 1) * 255).astype(np.uint8)
    cv2.imwrite(str(SAMPLES / f"{name}.jpg"), rainy, [cv2.IMWRITE_JPEG_QUALITY, 92])
