"""The fast form of every network against its plain one: seconds, CPU seconds and peak memory.

The fast form is measured in float32 and, where the network bears it, in bfloat16; the plain form in float32.
All run in turns in one process, so that a busy machine slows all; what counts is the ratio of CPU seconds.
Peak memory is that of a process of its own for each form (interpreter, library and weights included). The
rate of a large float32 matrix product tells machines apart.

    python benchmarks/bench_networks.py                          all networks that have a fast form
    python benchmarks/bench_networks.py drsformer --threads 2 --size 256 --passes 3
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from derain.bench import matrix_flops
from derain.errors import unknown_name
from derain.methods import create_network, network_names
from derain.methods.network import RainNetwork
from derain.peak_memory import resident_peak

FORMS = ("fast", "bfloat16", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network")
    parser.add_argument("--size", type=int, default=256, help="pixels a side (256)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=3, help="timed passes of each form")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    if options.memory_of:
        print(peak_memory(build(options.networks[0]), options.memory_of, options.size))
        return
    for name in options.networks:
        if name not in names():
            parser.error(str(unknown_name("network", name, names())))
    print(f"PyTorch {torch.__version__}, {options.threads} threads, 1x3x{options.size}x{options.size}")
    print(f"matrix product 2048x2048: {matrix_flops(torch.device('cpu')) / 1e9:.0f} GFLOP/s\n")
    print(f"{'network':<18} {'form':<8} {'seconds':>15} {'CPU seconds':>15} {'ratio':>6} {'peak MiB':>9}")
    for name in options.networks or names():
        report(name, options.size, options.threads, options.passes)


def report(name: str, size: int, threads: int, passes: int) -> None:
    """Prints a line of figures for each form, and its ratio to the plain one (median over the turns)."""
    network = build(name)
    forms = [form for form in FORMS if form not in network.spec.refused_precisions]
    for form in forms:
        run(network, form, size)
    turns = [{form: seconds(lambda f=form: run(network, f, size)) for form in forms} for _ in range(passes)]
    for form in forms:
        wall, cpu = zip(*(turn[form] for turn in turns), strict=True)
        memory = memory_of_process(name, form, size, threads)
        ratio = statistics.median(turn[form][1] / turn["plain"][1] for turn in turns)
        print(
            f"{name:<18} {form:<8} {span(wall):>15} {span(cpu):>15} {ratio:>6.3f} {memory:>9.0f}", flush=True
        )


def build(name: str) -> RainNetwork:
    torch.manual_seed(0)
    network = create_network(name).eval()
    return network.to(memory_format=torch.channels_last)


def names() -> list[str]:
    """Networks with a fast form of their own."""
    with torch.device("meta"):
        classes = {name: type(create_network(name)) for name in network_names()}
    return [name for name, kind in classes.items() if kind.fast is not RainNetwork.fast]


def run(network: RainNetwork, form: str, size: int) -> None:
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    method, mixed = network.plain if form == "plain" else network.fast, form == "bfloat16"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        method(picture.contiguous(memory_format=torch.channels_last))


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (all threads, kernel included)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def memory_of_process(name: str, form: str, size: int, threads: int) -> float:
    command = [sys.executable, __file__, name, "--memory-of", form, "--size", size, "--threads", threads]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def peak_memory(network: RainNetwork, form: str, size: int) -> float:
    """MiB that this process had in memory at most, after two passes."""
    run(network, form, size)
    run(network, form, size)
    return resident_peak() / 2**20


def span(values: tuple[float, ...]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
