"""Compares the rain of a preset with that of a folder of pairs: figures of both, and a sheet.

    python scripts/compare_rain.py PAIRS/rainy PAIRS/clean --preset light --sheet sheet.png

The layer of a pair is the largest channel of rainy - clean, in grey levels. The preset rains on the
same clean pictures. Use pairs that are additive, and never those of a test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.data.folders import read_rgb
from derain.data.pairing import pair_folders
from derain.data.synthesis import make_pair, preset

Layer = NDArray[np.float64]


def figures(layer: Layer) -> dict[str, float]:
    """Brightness, coverage, gradients, and the angle and length of streaks by autocorrelation."""
    down, right = np.abs(np.diff(layer, axis=0)), np.abs(np.diff(layer, axis=1))
    slope, length = direction(layer)
    values = {f"brightness p{p:g}": np.percentile(layer, p) for p in (50, 75, 90, 95, 99, 99.9)}
    values |= {"covered (> 8)": (layer > 8).mean() * 100, "PSNR": -10 * np.log10((layer**2).mean() / 255**2)}
    values |= {f"gradient across p{p}": np.percentile(right, p) for p in (90, 99)}
    values |= {f"gradient along p{p}": np.percentile(down, p) for p in (90, 99)}
    return values | {"angle, degrees": np.rad2deg(np.arctan(slope)), "length, px": length}


def direction(layer: Layer) -> tuple[float, float]:
    """Slope of the streaks, and twice the distance along them at which the correlation is a half."""
    f = layer - layer.mean()
    height, width = f.shape
    spectrum = np.abs(np.fft.fft2(f, s=(2 * height, 2 * width))) ** 2
    c = np.fft.ifft2(spectrum).real / spectrum.mean()

    def at(row: int, column: float) -> float:
        left = int(np.floor(column))
        part = column - left
        return float((1 - part) * c[row, left % (2 * width)] + part * c[row, (left + 1) % (2 * width)])

    slope = max(np.arange(-1.2, 1.2, 0.02), key=lambda s: at(12, 12 * s))
    half = next((row for row in range(1, height) if at(row, row * slope) < 0.5 * c[0, 0]), height)
    return float(slope), 2 * half * float(np.hypot(1, slope))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rainy")
    parser.add_argument("clean")
    parser.add_argument("--preset", default="light")
    parser.add_argument("--count", type=int, default=20, help="rainy versions made of each picture")
    parser.add_argument("--sheet", help="picture of both kinds of layers to write")
    options = parser.parse_args()
    found = pair_folders(Path(options.rainy), Path(options.clean))
    pairs = [(read_rgb(pair.picture), read_rgb(pair.partner)) for pair in found]
    given = [np.clip(r.astype(float) - c, 0, None).max(2) for r, c in pairs]
    made = [
        (lambda rainy, dry: (rainy.astype(float) - dry).max(2))(
            *make_pair(np.random.default_rng([0, k, i]), c, preset(options.preset))
        )
        for i, (_, c) in enumerate(pairs)
        for k in range(options.count)
    ]
    measured = [[figures(layer) for layer in layers] for layers in (given, made)]
    print(f"{'':22}{'pairs':>9}{'preset: 10 %':>15}{'median':>9}{'90 %':>9}")
    for name in measured[0][0]:
        mean = np.mean([m[name] for m in measured[0]])
        low, middle, high = np.percentile([m[name] for m in measured[1]], [10, 50, 90])
        print(f"{name:22}{mean:9.1f}{low:15.1f}{middle:9.1f}{high:9.1f}")
    if options.sheet:
        rows = [
            np.hstack([x[:240, :240] for x in layers[:: max(len(layers) // 4, 1)][:4]])
            for layers in (given, made)
        ]
        width = max(row.shape[1] for row in rows)
        sheet = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows])
        cv2.imwrite(options.sheet, np.clip(sheet, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
