"""Quality of Rain2Avoid on pairs of rainy and clean pictures, picture by picture, into a JSON file.

    python benchmarks/quality_rain2avoid.py RAINY CLEAN figures.json --what reference
    python benchmarks/quality_rain2avoid.py RAINY CLEAN figures.json --what quick
    python benchmarks/quality_rain2avoid.py RAINY CLEAN figures.json --what from --weights spanet
    python benchmarks/quality_rain2avoid.py RAINY CLEAN figures.json --what published --only 45.png

Figures are PSNR in dB of 8-bit results: `y` of the BT.601 luma in floating point (the protocol
matlab_y_double), `rgb` of all channels. Pictures that the file holds already are skipped, so a run
that was stopped goes on. Ends with the means.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derain.atomic import replace_file
from derain.methods.rain2avoid.ldgp import rain_prior
from derain.methods.rain2avoid.sampling import Similarity, mean_reference, sample_references
from derain.methods.rain2avoid.streaks import combined_reference, find_rain, rain_map_at, streak_light
from derain.methods.self_supervision import FitOptions, SelfSupervision
from derain.pictures import find_pictures, read_picture, to_rgb8, to_tensor
from derain.restore.adapting import Start, adapt_one, apply, learning_precision, preset, starting_point

LUMA = np.array([65.481, 128.553, 24.966]) / 255


def psnr(result: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Both (H, W, 3) in [0, 255]; the result is rounded to 8 bits first."""
    difference = np.clip(np.rint(result), 0, 255) - clean.astype(np.float64)
    y, rgb = np.mean((difference @ LUMA) ** 2), np.mean(difference**2)
    return {
        name: float(10 * np.log10(255**2 / max(error, 1e-12))) for name, error in (("y", y), ("rgb", rgb))
    }


def references(rainy: np.ndarray) -> dict[str, np.ndarray]:
    """Every reference that was tried, by name."""
    rain_map, rain = rain_prior(rainy).map, find_rain(rainy)
    own_map = rain_map_at(rainy, rain.theta)
    softer = mean_reference(rainy, rain_map, Similarity(eta=1))
    return {
        "rainy": rainy,
        "published fused": sample_references(rainy, rain_map).fused(),
        "expected, eta 0.5": mean_reference(rainy, rain_map),
        "expected, eta 1": softer,
        "expected, eta 2": mean_reference(rainy, rain_map, Similarity(eta=2)),
        "expected, eta 1, never brighter": np.minimum(softer, rainy),
        "the same at the own direction": np.minimum(mean_reference(rainy, own_map, Similarity(eta=1)), rainy),
        "less the streak light": rainy - streak_light(rainy, rain.theta)[..., None],
        "combined": combined_reference(rainy, rain.theta, own_map),
    }


def bytes_of(picture: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) in [0, 255]."""
    return picture[0].permute(1, 2, 0).numpy() * 255


def learnt(
    rainy: Tensor, way: SelfSupervision, start: Start, precision: torch.dtype
) -> dict[str, np.ndarray]:
    """What learning makes of a picture, and what it started from."""
    network, trained = start.network(), start.weights is not None
    results = {}
    if trained:
        results["weights alone"] = bytes_of(apply(network, rainy, least_side=way.least_side))
    adapted = adapt_one(rainy, network, way, FitOptions(trained=trained, precision=precision))
    results["reference"] = bytes_of(adapted.target.mean)
    if adapted.fit is not None:
        results["network alone"] = bytes_of(apply(adapted.fit.network, rainy, least_side=way.least_side))
    return {**results, "result": bytes_of(adapted.image)}


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rainy", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--what", choices=["reference", "quick", "published", "from"], default="reference")
    parser.add_argument("--weights", default="spanet", help="for --what from: bundled name or file")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures: dict[str, Any] = json.loads(arguments.figures.read_text()) if arguments.figures.exists() else {}
    for found in find_pictures([arguments.rainy]):
        name = found.relative.name
        done = figures.setdefault(arguments.what, {})
        if name in done or (arguments.only and name not in arguments.only):
            continue
        picture = read_picture(found.source)
        clean = to_rgb8(read_picture(arguments.clean / name))
        began, cpu = time.monotonic(), time.process_time()
        if arguments.what == "reference":
            results = references(to_rgb8(picture))
        else:
            way = preset("published" if arguments.what == "published" else "quick")
            start = starting_point(way, None, arguments.weights if arguments.what == "from" else None)
            precision = learning_precision(arguments.precision, start, way, torch.device("cpu"))
            results = learnt(to_tensor(picture), way, start, precision)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        done[name] = {key: psnr(result, clean) for key, result in results.items()}
        done[name]["seconds"] = {"wall": seconds, "cpu": cpu_seconds}
        replace_file(arguments.figures, json.dumps(figures, indent=1).encode())
        print(
            name,
            {key: [round(v, 2) for v in value.values()] for key, value in done[name].items()},
            flush=True,
        )
    rows = figures.get(arguments.what, {}).values()
    for key in next(iter(rows), {}):
        means = {
            part: np.mean([row[key][part] for row in rows if key in row]) for part in next(iter(rows))[key]
        }
        print(f"{key:34s}", "  ".join(f"{part} {value:8.3f}" for part, value in means.items()))


if __name__ == "__main__":
    main()
