"""Networks against their plain formulations: seconds, CPU seconds and peak memory.

Both forms have the same weights and run in turns in one process, so that a busy machine slows both;
what counts is the ratio. Peak memory is that of a process of its own for each form (interpreter,
library and weights included). The rate of a large float32 matrix product tells machines apart.

    python benchmarks/bench_networks.py                          all networks that have a plain twin
    python benchmarks/bench_networks.py drsformer --threads 2 --size 256 --passes 3

A plain twin is a module with the network's own state dict, called with the variant's arguments; it
lies beside the tests as the truth that the fast form must equal.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from derain.bench import matrix_flops
from derain.errors import unknown_name
from derain.methods import create_network, network_names
from derain.peak_memory import resident_peak

TESTS = Path(__file__).resolve().parents[1] / "tests"

# {network as users name it: where its plain twin is, below tests/}
TWINS = {
    "drsformer": "methods.drsformer_plain:PlainDRSformer",
    "drsformer-light": "methods.drsformer_plain:PlainDRSformer",
    "nerd_rain": "methods.nerd_rain_plain:PlainNeRDRain",
    "nerd_rain-s": "methods.nerd_rain_plain:PlainNeRDRain",
    "udr_s2former": "methods.udr_s2former_plain:PlainUDRS2Former",
}
FORMS = ("fast", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network", help=f"some of: {', '.join(TWINS)}")
    parser.add_argument("--size", type=int, default=256, help="pixels a side (256)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=3, help="timed passes of each form")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.networks:
        if name not in TWINS:
            parser.error(str(unknown_name("network", name, TWINS)))
    torch.set_num_threads(options.threads)

    if options.memory_of:
        print(peak_memory(build(options.networks[0], options.memory_of), options.size))
        return
    print(
        f"PyTorch {torch.__version__}, {options.threads} threads, 1x3x{options.size}x{options.size} float32"
    )
    print(f"matrix product 2048x2048: {matrix_flops(torch.device('cpu')) / 1e9:.0f} GFLOP/s\n")
    print(f"{'network':<18} {'form':<6} {'seconds':>15} {'CPU seconds':>15} {'peak MiB':>9}")
    for name in options.networks or TWINS:
        report(name, options.size, options.threads, options.passes)


def report(name: str, size: int, threads: int, passes: int) -> None:
    """Prints two lines of figures and one with the ratios (medians over the turns)."""
    networks = {form: build(name, form) for form in FORMS}
    networks["plain"].load_state_dict(networks["fast"].state_dict())
    for network in networks.values():
        run(network, 64)
    turns = [{form: seconds(lambda n=n: run(n, size)) for form, n in networks.items()} for _ in range(passes)]
    for form in FORMS:
        wall, cpu = zip(*(turn[form] for turn in turns), strict=True)
        memory = memory_of_process(name, form, size, threads)
        print(f"{name:<18} {form:<6} {span(wall):>15} {span(cpu):>15} {memory:>9.0f}")
    wall_ratio, cpu_ratio = (
        statistics.median(turn["fast"][which] / turn["plain"][which] for turn in turns) for which in (0, 1)
    )
    print(f"{'':<18} {'ratio':<6} {wall_ratio:>15.3f} {cpu_ratio:>15.3f}\n", flush=True)


def build(name: str, form: str) -> nn.Module:
    torch.manual_seed(0)
    if form == "fast":
        return create_network(name).eval()
    sys.path.insert(0, str(TESTS))
    module, twin = TWINS[name].split(":")
    architecture, variant = network_names()[name]
    plain = getattr(importlib.import_module(module), twin)(**architecture.variants[variant])
    assert isinstance(plain, nn.Module)
    return plain.eval()


def run(network: nn.Module, size: int) -> None:
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(picture)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (all threads, kernel included)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def memory_of_process(name: str, form: str, size: int, threads: int) -> float:
    command = [sys.executable, __file__, name, "--memory-of", form, "--size", size, "--threads", threads]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def peak_memory(network: nn.Module, size: int) -> float:
    """MiB that this process had in memory at most, after two passes."""
    run(network, size)
    run(network, size)
    return resident_peak() / 2**20


def span(values: tuple[float, ...]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
