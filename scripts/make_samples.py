"""Makes the three rainy sample pictures of `samples/` from freely licensed photographs.

    python scripts/make_samples.py TEMPLE FLOWER CAT

The sources and their licences are named in samples/README.md.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from derain.data.synthesis.streaks import StreakLook, streak_layer

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
LOOKS = {
    "temple": StreakLook((8, 12), (1, 2), (25, 45), (1.2, 2.0), (0.08, 0.12), (0.08, 0.11), (4, 4)),
    "flower": StreakLook((-16, -14), (2, 3), (15, 35), (1.0, 1.8), (0.08, 0.12), (0.07, 0.10), (4, 4)),
    "cat": StreakLook((-4, 4), (1, 2), (20, 60), (1.2, 2.2), (0.08, 0.12), (0.08, 0.11), (4, 4)),
}

for number, (name, look) in enumerate(LOOKS.items(), 1):
    clean = cv2.imread(sys.argv[number]).astype(np.float32) / 255
    rain = streak_layer(np.random.default_rng(number), *clean.shape[:2], look)[..., None]
    rainy = np.round(np.clip(clean + rain, 0, 1) * 255).astype(np.uint8)
    cv2.imwrite(str(SAMPLES / f"{name}.jpg"), rainy, [cv2.IMWRITE_JPEG_QUALITY, 92])
