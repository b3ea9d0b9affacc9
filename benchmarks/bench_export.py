"""Exported networks against PyTorch: largest difference, seconds and CPU seconds, and their ratios.

Each network is exported as ONNX and as OpenVINO; all three run the same picture in turns in one
process, on the CPU with the same number of threads, so that a busy machine slows all alike. The
weights are fresh, which cost the same as trained ones. The largest difference is that of the check
that `derain export` makes, over four batches of several sizes; the relative one is that on the timed
picture over the largest value of PyTorch's result (fresh weights make some results small).

    python benchmarks/bench_export.py                                  one variant of every network
    python benchmarks/bench_export.py spanet nerd_rain-s --size 256 --passes 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.checkpoints.exported import EXTENSIONS
from derain.checkpoints.exported.running import open_exported
from derain.errors import DerainError, unknown_name
from derain.export.files import export
from derain.extras import extra
from derain.methods import create_network, network_names

# The smaller variant where there are two; `network_names` has all.
NETWORKS = (
    "spanet",
    "drsformer-light",
    "udr_s2former",
    "nerd_rain-s",
    "rain2avoid_unet",
    "rain2avoid_resnet",
    "rain2avoid_dncnn",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", metavar="network", help=f"some of: {', '.join(network_names())}"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels a side (128)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=5, help="timed passes of each runtime")
    options = parser.parse_args()
    for name in options.networks:
        if name not in network_names():
            parser.error(str(unknown_name("network", name, network_names())))
    torch.set_num_threads(options.threads)
    onnxruntime, openvino = extra("onnxruntime", "onnx"), extra("openvino", "openvino")
    print(
        f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, "
        f"OpenVINO {openvino.__version__.partition('-')[0]}; {options.threads} threads, "
        f"1x3x{options.size}x{options.size} float32\n"
    )
    print("| network | runtime | largest difference | relative | seconds | ratio | CPU seconds | ratio |")
    print("| --- | --- | --: | --: | --: | --: | --: | --: |")
    for name in options.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            report(name, Path(folder), options.size, options.passes)


def report(name: str, folder: Path, size: int, passes: int) -> None:
    """Prints a line for PyTorch and one for each target: medians, and medians of the turns' ratios."""
    torch.manual_seed(0)
    save_checkpoint(folder / "fresh.safetensors", create_network(name).state_dict(), {})
    model = open_checkpoint(folder / "fresh.safetensors")
    networks: dict[str, nn.Module] = {"pytorch": model.network}
    differences: dict[str, str] = {"pytorch": ""}
    for target, extension in EXTENSIONS.items():
        try:
            done = export(model, target, folder / f"{name}{extension}")
        except DerainError as error:
            differences[target] = f"fails: {error}"
            continue
        networks[target] = open_exported(done.path).network
        differences[target] = f"{done.difference:.1e}"
    rainy = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    results = {target: run(network, rainy) for target, network in networks.items()}
    turns = [
        {target: seconds(lambda n=network: run(n, rainy)) for target, network in networks.items()}
        for _ in range(passes)
    ]
    for target, difference in differences.items():
        cells = [name, target, difference]
        if target in networks:
            cells.append(
                "" if target == "pytorch" else f"{relative(results[target], results['pytorch']):.1e}"
            )
            for which in (0, 1):
                cells.append(f"{statistics.median(turn[target][which] for turn in turns):.3f}")
                ratios = [turn[target][which] / turn["pytorch"][which] for turn in turns]
                cells.append(f"{statistics.median(ratios):.2f}")
        print("| " + " | ".join(cells) + " |", flush=True)


def run(network: nn.Module, rainy: Tensor) -> Tensor:
    with torch.no_grad():
        result = network(rainy)
    assert isinstance(result, Tensor)
    return result


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (all threads, kernel included)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
