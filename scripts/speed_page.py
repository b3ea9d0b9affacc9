"""Writes docs/speed.md: measures all networks on this machine, one after the other, in one thread.

python scripts/speed_page.py
python scripts/speed_page.py --size 128 --photograph 2000x1500 --output speed.md    smaller pictures
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from derain.bench import BITS, Choice, Measurement, Task, as_chosen, choices, measure, parse_sizes
from derain.checkpoints.bundled import DEFAULT, bundled_names
from derain.methods import network_names
from derain.restore import load

PAGE = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
HEAD = """# Speed

Measured in one run of `scripts/speed_page.py`, in one thread of one machine: {machine}. A large matrix
product ran there at {rate} GFLOP/s in float32. Seconds are the processor's own, so that other programs on the
machine do not count. **Of peak** is the network's multiply-adds per second relative to a matrix product in
the same precision; fast forms, which need fewer, may be above 100 %. **MiB** is the peak memory above that of
the process with the network loaded.

`derain bench MODEL --compare` measures the same on your machine, and says what is fastest there.
"""
WAYS = """## `{model}` in every precision and runtime

A picture of {small} pixels, and a photograph of {large}, which the network sees in a
[reduced copy](models.md#large-pictures); **ratio** is to PyTorch in float32. `derain run` uses PyTorch, in
bfloat16 for pictures of 8 bits where the processor has it. An [exported file](export.md) can be given to it
as any other model.
"""
PARTS = """## A photograph from file to file

A JPEG of {size} pixels through `{model}`: decoding, making floats, the network with reducing and
enlarging, rounding and encoding. In a folder the next picture is read and the last one is written while the
network is at work.
"""
NETWORKS = """## All networks

A picture of {size} pixels in float32; without bundled weights, fresh ones, which take as long.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="pixels a side of the pictures (256)")
    parser.add_argument("--photograph", default="4000x3000", help="width and height (4000x3000)")
    parser.add_argument("--passes", type=int, default=1, help="timed pictures, whose median counts (1)")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    ((height, width),) = parse_sizes(options.photograph)
    side, passes = options.size, options.passes
    default = Task(DEFAULT, 2 * side, 2 * side, "cpu", "auto", 1, passes)
    with tempfile.TemporaryDirectory() as folder:
        tasks = {str(way): as_chosen(default, way, Path(folder)) for way in choices(default)}
        ways = {
            way: (_measured(task), _measured(replace(task, height=height, width=width)))
            for way, task in tasks.items()
        }
    as_run = Choice(load(DEFAULT, device="cpu").precision_for(BITS))
    _, photograph = ways[str(as_run)]
    names = [*bundled_names(), *(name for name in network_names() if name not in bundled_names())]
    networks = [_measured(Task(name, side, side, "cpu", "float32", 1, passes)) for name in names]
    options.output.write_text(page(ways, photograph, networks), "utf-8")


def _measured(task: Task) -> Measurement:
    done = measure(task)
    print(f"{task.model} {task.width}x{task.height} {done.precision}: {done.cpu_seconds:.3g} s", flush=True)
    return done


def page(
    ways: Mapping[str, tuple[Measurement, Measurement]],
    photograph: Measurement,
    networks: Sequence[Measurement],
) -> str:
    """The whole page as Markdown; `ways` are measured on a small and on a large picture."""
    first, large = next(iter(ways.values()))
    rate = f"{first.matrix_flops / 1e9:,.0f}"
    machine = f"{_processor()}, {platform.system()}, PyTorch {torch.__version__}"
    parts = {
        "read": photograph.read_seconds,
        "pad": photograph.pad_seconds,
        "network": photograph.seconds,
        "write": photograph.write_seconds,
    }
    of_ways = (
        (
            way,
            f"{small.cpu_seconds:.3g}",
            f"{small.cpu_seconds / first.cpu_seconds:.2f}",
            f"{small.share:.0%}",
            f"{whole.cpu_seconds:.3g}",
            f"{whole.cpu_seconds / large.cpu_seconds:.2f}",
            _mib(whole),
        )
        for way, (small, whole) in ways.items()
    )
    shares = ((part, f"{took / photograph.all_seconds:.1%}") for part, took in parts.items())
    of_networks = (
        (
            f"`{m.model}`",
            f"{m.cpu_seconds:.3g}",
            f"{m.megapixels / m.cpu_seconds:.3g}",
            _mib(m),
            f"{m.share:.0%}",
        )
        for m in networks
    )
    return "\n".join(
        [
            HEAD.format(machine=machine, rate=rate),
            WAYS.format(
                model=first.model,
                small=f"{first.width}x{first.height}",
                large=f"{large.width}x{large.height}",
            ),
            _table(("in", "seconds", "ratio", "of peak", "photograph", "ratio", "MiB"), of_ways),
            PARTS.format(model=photograph.model, size=f"{photograph.width}x{photograph.height}"),
            _table(("part", "share"), shares),
            NETWORKS.format(size=f"{networks[0].width}x{networks[0].height}"),
            _table(("network", "seconds", "megapixels a second", "MiB", "of peak"), of_networks),
        ]
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _mib(m: Measurement) -> str:
    return "" if m.peak_bytes is None else f"{m.peak_bytes / 2**20:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("--:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


if __name__ == "__main__":
    main()
