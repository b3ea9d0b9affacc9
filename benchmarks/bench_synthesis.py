"""Megapixels of rain per second on one CPU core, per preset, and of streaks alone.

    python benchmarks/bench_synthesis.py

Times are CPU seconds of this process on one thread, so other work on the machine matters little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from derain.data.synthesis import PRESETS, make_pair
from derain.data.synthesis.presets import FINE
from derain.data.synthesis.streaks import streak_layer

SIZE = 256
COUNT = 64


def megapixels_per_second(work: Callable[[np.random.Generator], object]) -> float:
    """Over `COUNT` patches, each from a generator of its own."""
    began = time.process_time()
    for number in range(COUNT):
        work(np.random.default_rng([0, number]))
    return COUNT * SIZE * SIZE / 1e6 / (time.process_time() - began)


def main() -> None:
    cv2.setNumThreads(1)
    clean = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    print(
        f"streaks alone  {megapixels_per_second(lambda rng: streak_layer(rng, SIZE, SIZE, FINE)):6.1f} MP/s"
    )
    for name, kinds in PRESETS.items():
        print(f"{name:13s}  {megapixels_per_second(lambda rng, k=kinds: make_pair(rng, clean, k)):6.1f} MP/s")


if __name__ == "__main__":
    main()
