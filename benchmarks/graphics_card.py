"""Seconds and memory of every network on an NVIDIA card, in float32 and half precision.

Pictures are restored as `derain.load` does it, from 8-bit pixels in memory to 8-bit pixels, tiled where
the network or the memory needs it. Seconds are the median of three passes after one that is not counted; of a
large picture, of one pass, and only where a 512x512 one promises less than the limit. PSNR compares with
float32; weights are random, and where a precision is too narrow for them, that is said.

    python benchmarks/graphics_card.py                       512x512, then 4000x3000
    python benchmarks/graphics_card.py everyday drsformer --most-seconds 60
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from derain.errors import DerainError
from derain.evaluation.similarity import psnr
from derain.methods import create_network, network_names
from derain.methods.network import RainNetwork
from derain.precisions import PRECISIONS
from derain.restore import load

SMALL, LARGE = (512, 512), (3000, 4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network")
    parser.add_argument("--most-seconds", type=float, default=20, help="for a large picture (20)")
    options = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}\n")
    print(f"{'network':<18} {'precision':<9} {'size':>10} {'seconds':>8} {'GPU MiB':>8} {'PSNR':>6}")
    rates = {name: report(name, SMALL, passes=3) for name in options.networks or network_names()}
    promised = {
        name: seconds * LARGE[0] * LARGE[1] / (SMALL[0] * SMALL[1]) for name, seconds in rates.items()
    }
    for name, seconds in sorted(promised.items(), key=lambda item: item[1]):
        if seconds < options.most_seconds:
            report(name, LARGE, passes=1)


def report(name: str, size: tuple[int, int], passes: int) -> float:
    """Prints a line for each precision; returns the seconds in float32."""
    torch.manual_seed(0)
    network = create_network(name).eval()
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    exact, first = None, 0.0
    for precision in PRECISIONS:
        if precision in network.spec.refused_precisions:
            continue
        try:
            seconds, memory, result = measure(network, precision, picture, passes)
        except DerainError as error:
            print(f"{name:<18} {precision:<9} {size[1]:>5}x{size[0]:<4} {error}", flush=True)
            continue
        exact, first = (result, seconds) if exact is None else (exact, first)
        print(
            f"{name:<18} {precision:<9} {size[1]:>5}x{size[0]:<4} {seconds:>8.3f} {memory:>8.0f} "
            f"{psnr(result, exact):>6.1f}",
            flush=True,
        )
    return first


def measure(
    network: RainNetwork, precision: str, picture: NDArray[np.uint8], passes: int
) -> tuple[float, float, NDArray[np.uint8]]:
    """Median seconds, peak MiB of the card's memory, and the result."""
    restore = load(network, device="cuda", precision=precision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    if passes > 1:
        restore(picture)
    times = []
    for _ in range(passes):
        began = time.perf_counter()
        result = restore(picture)
        times.append(time.perf_counter() - began)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**20, result


if __name__ == "__main__":
    main()
