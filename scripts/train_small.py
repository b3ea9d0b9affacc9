"""Trains every method at reduced width for a few hundred steps on heavy rain: do they all learn?

    python scripts/train_small.py CLEAN_FOLDER RUNS_FOLDER [--steps 400] [--plot FILE]

Each run goes on where it stopped. Prints the PSNR of the held-out pictures, rainy and restored, and plots it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from derain.methods import all_methods
from derain.pictures.charts import Line, chart_sheet
from derain.training import train
from derain.training.log import read_log
from derain.training.recipe import checked

RATES = {"spanet": 2e-3, "drsformer": 1e-3, "nerd_rain": 1e-3, "udr_s2former": 1e-3, "rain2avoid_unet": 3e-3}
LOSSES = {"udr_s2former": {"vgg": None}}  # the perceptual term needs a file that cannot be shipped


def recipe_of(network: str, options: dict[str, object], clean: str, steps: int) -> dict[str, object]:
    """One recipe for all, but for the rate."""
    return {
        "network": network,
        "options": options,
        "loss": LOSSES.get(network, {}),
        "data": {"clean": clean, "rain": "heavy"},
        "validation": {"hold_out": 19, "every": steps // 8, "count": 8, "patch": 128},
        "steps": steps,
        "stages": [{"patch": 64, "batch": 8}],
        "optimizer": {"name": "adam", "rate": RATES[network], "clip": 1.0},
        "schedule": {"name": "cosine", "warmup": 20, "start": 20, "length": steps - 20, "floor": 1e-6},
        "workers": 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clean")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    lines: list[Line] = []
    for method in all_methods():
        architecture = method.architectures[0]
        run = options.runs / architecture.name
        content = recipe_of(architecture.name, dict(architecture.tiny), options.clean, options.steps)
        train(checked(content, architecture.name), run)
        values = [e for e in read_log(run) if e["kind"] == "validation"]
        print(f"{architecture.name}: rainy {values[0]['rainy_psnr']:.2f} dB, restored", end=" ")
        print(", ".join(f"{e['psnr']:.2f}" for e in values), flush=True)
        rainy = (0.0, values[0]["rainy_psnr"])
        lines.append((architecture.name, [rainy, *((e["step"], e["psnr"]) for e in values)]))
    if options.plot:
        chart_sheet([("PSNR of held-out pictures with heavy rain, dB, by step", lines)]).save(options.plot)


if __name__ == "__main__":
    main()
