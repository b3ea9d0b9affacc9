"""Measures from which signal on it rains, for a file of weights, and stores it there as a fact.

    python scripts/calibrate_rain.py src/derain/weights/everyday.safetensors \
        --dry ../shared/data/clean_pictures --every 19 \
        --rainy ../shared/data/real_rain --rainy ../shared/data/internet_rain --report rain.json

Run it again whenever the weights change; it takes a minute or two. The dry pictures must be ones that
the weights have not learnt from: the recipe `everyday/photographs` holds out every 19th. Without
`--store`, nothing is written but the report.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from derain.checkpoints.rain_threshold import FACT, calibration
from derain.pictures import find, read_picture, to_tensor
from derain.restore import Derainer, load
from derain.restore.rain import measure_rain
from derain.tensors import read_tensors, save_checkpoint

LARGEST = 1 << 20  # pixels; of larger pictures the middle is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--dry", type=Path, required=True, help="folder of photographs without rain")
    parser.add_argument("--every", type=int, default=1, help="take every n-th of them, the first one too")
    parser.add_argument("--rainy", type=Path, action="append", default=[], help="to count hits on")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], help="dry ones, to count alarms on"
    )
    parser.add_argument("--false-alarms", type=float, default=0.05)
    parser.add_argument("--report", type=Path, help="all signals, as JSON")
    parser.add_argument("--store", action="store_true", help="write the threshold into the weights")
    given = parser.parse_args()
    restore = load(given.weights, device="cpu")
    dry = signals(restore, pictures(given.dry)[:: given.every])
    fact = calibration(list(dry.values()), given.false_alarms)
    print(
        f"threshold {fact['threshold']:.6f}: false alarms on {fact['alarms']} of {fact['dry']} dry pictures"
    )
    report = {"fact": fact, str(given.dry): dry}
    for folder in (*given.rainy, *given.other):
        found = signals(restore, pictures(folder))
        above = sum(signal > fact["threshold"] for signal in found.values())
        print(f"{folder}: {above} of {len(found)} above it")
        report[str(folder)] = found
    if given.report:
        given.report.write_text(json.dumps(report, indent=1))
    if given.store:
        tensors = read_tensors(given.weights)
        save_checkpoint(given.weights, tensors.state, {**tensors.facts, FACT: fact})
        print(f"stored in {given.weights}")


def pictures(folder: Path) -> list[Path]:
    return [entry.source for entry in find([folder])[0] if not entry.is_video]


def signals(restore: Derainer, files: Iterable[Path]) -> dict[str, float]:
    found = {}
    for file in files:
        picture = read_picture(file)
        rainy = to_tensor(picture)
        height, width = rainy.shape[-2:]
        if height * width > LARGEST:
            top, left = max(0, height // 2 - 512), max(0, width // 2 - 512)
            rainy = rainy[..., top : top + 1024, left : left + 1024]
        image = restore.restore(rainy, bits=picture.bits, one_pass=True).image
        found[file.name] = measure_rain(rainy, image).signal
    return found


if __name__ == "__main__":
    main()
