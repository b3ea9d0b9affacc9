"""Speed and memory of the clean-frame method, beside the plain loop over pixels.

python benchmarks/clean_frame.py            CPU seconds per megapixel-frame, both in one process
python benchmarks/clean_frame.py --memory   peak memory on 300 frames of 3840x2160 (8 GB of disk)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from background import plain
from derain.background import clean_frame
from derain.peak_memory import resident_peak


def rain(frames: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """A textured scene with streak-like bright samples and noise, cheap to make."""
    rng = np.random.default_rng(0)
    scene = rng.integers(40, 200, (height, width, 3), dtype=np.uint8)
    noise = rng.integers(0, 4, (height + 64, width, 3), dtype=np.uint8)
    drops = (rng.random((height + 64, width, 1)) < 0.15).astype(np.uint8) * np.uint8(50)
    for _ in range(frames):
        a, b = rng.integers(0, 64, 2)
        yield scene + noise[a : a + height] + drops[b : b + height]


def speed() -> None:
    clip = np.stack(list(rain(100, 360, 640)))
    small = clip[:, :24, :32]
    fast, slow = [], []
    for _ in range(3):
        start = time.process_time()
        clean_frame(clip)
        fast.append((time.process_time() - start) / (clip.size / 3e6))
        start = time.process_time()
        plain.clean_frame(small, "fixed")
        slow.append((time.process_time() - start) / (small.size / 3e6))
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    print(
        json.dumps(
            {
                "cpu_s_per_megapixel_frame": round(min(fast), 4),
                "plain_loop": round(min(slow), 2),
                "ratio": round(float(np.median(ratios)), 1),
            }
        )
    )


def memory() -> None:
    before = resident_peak()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = clean_frame(rain(300, 2160, 3840), scratch=Path(folder))
    peak = resident_peak()
    seconds = (time.process_time() - start) / (300 * 2160 * 3840 / 1e6)
    print(
        json.dumps(
            {
                "peak_bytes": peak,
                "before_bytes": before,
                "percentile": result.percentile,
                "cpu_s_per_megapixel_frame_with_disk_and_making_the_clip": round(seconds, 4),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true")
    memory() if parser.parse_args().memory else speed()
