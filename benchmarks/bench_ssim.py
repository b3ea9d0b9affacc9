"""Speed and memory of the scores against scikit-image and the plain formulation, and what bounds a set.

    python benchmarks/bench_ssim.py                         ratios of CPU time and of memory
    python benchmarks/bench_ssim.py --profile RAINY CLEAN   where the time of scoring 1,400 pairs goes

All in one process on one thread, interleaved; times are CPU seconds, so that other load matters little.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from derain.data.pairing import pair_folders
from derain.evaluation import PROTOCOLS
from derain.evaluation.luma import studio_luma_bytes
from derain.evaluation.scoring import read_levels
from derain.evaluation.similarity import GAUSSIAN, gaussian_ssim

Array = NDArray[Any]


def with_skimage(a: Array, b: Array) -> float:
    """The same index by scikit-image, which takes the mean over the same area."""
    found: float = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return found


def plain(a: Array, b: Array) -> float:
    """As published: five direct 11 x 11 correlations of whole float64 planes."""
    window = np.outer(GAUSSIAN, GAUSSIAN)
    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb, aa, bb, ab = (cv2.filter2D(x, -1, window)[5:-5, 5:-5] for x in (a, b, a * a, b * b, a * b))
    va, vb, vab = aa - ma * ma, bb - mb * mb, ab - ma * mb
    c1, c2 = 6.5025, 58.5225
    return float(((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


FUNCTIONS: dict[str, Callable[[Array, Array], float]] = {
    "derain": gaussian_ssim,
    "scikit-image": with_skimage,
    "plain formulation": plain,
}


def pair(height: int, width: int) -> tuple[Array, Array]:
    """Two luma planes, of a smooth picture and of a noisy version of it."""
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    clean = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(clean + random.normal(0, 4, clean.shape), 0, 255).astype(np.uint8)
    return studio_luma_bytes(noisy), studio_luma_bytes(clean)


def compare(height: int, width: int, rounds: int) -> None:
    a, b = pair(height, width)
    peaks = {name: peak(function, a, b) for name, function in FUNCTIONS.items()}
    values = [function(a, b) for function in FUNCTIONS.values()]
    assert max(values) - min(values) < 1e-9, values
    times: dict[str, list[float]] = {name: [] for name in FUNCTIONS}
    for _ in range(rounds):
        for name, function in FUNCTIONS.items():
            began = time.process_time()
            function(a, b)
            times[name].append(time.process_time() - began)
    print(f"SSIM of matlab_y_uint8 on {width}x{height}: median CPU time of {rounds}, peak memory it adds")
    ours = statistics.median(times["derain"])
    for name in FUNCTIONS:
        median = statistics.median(times[name])
        print(f"  {name:<18}{1e3 * median:9.1f} ms {median / ours:7.1f} x {peaks[name]:8.1f} MiB")


def peak(function: Callable[[Array, Array], float], a: Array, b: Array) -> float:
    """MiB that the process grows by while the function runs, sampled; the least memory first."""
    process, stop = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.001):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        function(a, b)
    stop.set()
    watcher.join()
    return (highest - before) / 2**20


def profile(rainy: Path, clean: Path, count: int) -> None:
    """CPU seconds of reading and of each protocol over `count` pairs, the folder repeated."""
    spent = dict.fromkeys(("reading", "matlab_y_uint8", "matlab_y_double"), 0.0)
    for files in islice(cycle(pair_folders(rainy, clean)), count):
        began = time.process_time()
        a, b = read_levels(files.restored)[0], read_levels(files.clean)[0]
        spent["reading"] += time.process_time() - began
        for name in list(spent)[1:]:
            began = time.process_time()
            PROTOCOLS[name](a, b)
            spent[name] += time.process_time() - began
    print(f"scoring {count} pairs, CPU seconds")
    for name, seconds in spent.items():
        print(f"  {name:<18}{seconds:8.2f} s {seconds / spent['reading']:7.2f} of reading")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", nargs=2, type=Path, metavar=("RAINY", "CLEAN"))
    parser.add_argument("--count", type=int, default=1400)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.profile:
        profile(*options.profile, options.count)
        return
    compare(321, 481, rounds=21)
    compare(2160, 3840, rounds=3)


if __name__ == "__main__":
    main()
