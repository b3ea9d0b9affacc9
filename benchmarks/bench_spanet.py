"""SPANet at 512x512 on CPU: what the sweeps cost, and what bfloat16 gains; ratios in one process.

    python benchmarks/bench_spanet.py [PICTURE...]

With pictures, also prints how well bfloat16 agrees with float32 on them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import derain
from derain.methods.spanet import fast
from derain.pictures import read_picture, to_tensor

ROUNDS = 5


def identity(x: Tensor, *_: object) -> Tensor:
    """Stands for sweeps that cost nothing beyond making their result."""
    return torch.cat([x, x], 3)


def seconds(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleaved(forms: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall seconds of each form, taken in turns after one warm-up."""
    for run in forms.values():
        run()
    times = [{name: seconds(run) for name, run in forms.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(t[name] for t in times) for name in forms}


def main() -> None:
    """Prints the table."""
    derainer = derain.load("spanet", tile=0)
    network = derainer.network
    rainy = torch.rand(1, 3, 512, 512).contiguous(memory_format=torch.channels_last)

    def whole() -> None:
        with torch.no_grad():
            network(rainy)

    def without_sweeps() -> None:
        with torch.no_grad(), mock.patch.object(fast, "sweep_both", identity):
            network(rainy)

    def half() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            network(rainy)

    took = interleaved({"float32": whole, "without sweeps": without_sweeps, "bfloat16": half})
    for name, value in took.items():
        print(f"{name:>15}: {value:.3f} s")
    share = 1 - took["without sweeps"] / took["float32"]
    print(f"the sweeps cost {share:.1%} of the whole, on {torch.get_num_threads()} threads")
    print(f"bfloat16 is {took['float32'] / took['bfloat16']:.2f} times as fast as float32")

    faster = derainer.with_settings(precision="bf16")
    for path in map(Path, sys.argv[1:]):
        picture = to_tensor(read_picture(path))
        error = (derainer.restore(picture).image - faster.restore(picture).image).double()
        print(f"{path.name}: bfloat16 agrees to {-10 * error.square().mean().log10():.1f} dB")


if __name__ == "__main__":
    main()
