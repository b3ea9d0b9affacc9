"""Figures of a file of weights for its card: real rain, pairs, drops, dry photographs, brightness.

    python scripts/card_figures.py src/derain/weights/everyday.safetensors ../shared/data

In float32, about five CPU minutes for the everyday network. The dry photographs are every 19th of
`clean_pictures`, which the recipe `everyday/photographs` holds out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain import Derainer, load
from derain.data.folders import pictures_in, read_rgb
from derain.data.pairing import pair_folders
from derain.evaluation.luma import full_range_luma
from derain.evaluation.protocols import Score, matlab_y_uint8, raindrop_y
from derain.evaluation.real_rain import real_rain

Pixels = NDArray[np.uint8]
Protocol = Callable[[Pixels, Pixels], Score]

HELD_OUT = 19
CORRUGATED = {"290", "292"}  # rain as faint as the ribs of the iron behind it


def main(weights: Path, data: Path) -> None:
    restore = load(weights, device="cpu", precision="float32")
    real_crops(restore, data / "spa_masks")
    pairs(restore, "Rain100L", data / "rain100l", matlab_y_uint8)
    turned(restore, data / "rain100l", count=20)
    for factor in (2, 3, 4):
        enlarged(restore, data / "rain100l", factor)
    pairs(restore, "DDN", data / "ddn", matlab_y_uint8)
    pairs(restore, "clip", data / "clip_with_truth", matlab_y_uint8, every=12)
    pairs(restore, "drops", data / "raindrop_pairs", raindrop_y)
    dry = pictures_in(data / "clean_pictures")[::HELD_OUT]
    unchanged(restore, "dry", dry[:8])
    unchanged(restore, "dry, cities", [file for file in dry if file.name.startswith("urban")][:4])
    brightness(restore, pictures_in(data / "real_rain")[:20])


def real_crops(restore: Derainer, folder: Path) -> None:
    scores = {}
    for pair in pair_folders(folder / "rainy", folder / "mask"):
        rainy = read_rgb(pair.picture)
        scores[pair.name.split(".")[0]] = real_rain(restore(rainy), rainy, read_rgb(pair.partner)[..., 0])
    for name, score in scores.items():
        print(f"  crop {name}: removed {score.removed:.2f}, harm {score.harm:.2f}")
    removed, harm, detail, luma = np.array(list(scores.values())).T
    without = [score.removed for name, score in scores.items() if name not in CORRUGATED]
    print(
        f"real rain: removed {removed.mean():.3f}, median {np.median(removed):.3f}, without corrugated "
        f"iron {np.mean(without):.3f}; harm {harm.mean():.2f}, detail {detail.mean():.3f}, "
        f"luma of dry pixels {luma.mean():+.2f}"
    )


def pairs(restore: Derainer, name: str, folder: Path, protocol: Protocol, every: int = 1) -> None:
    before, after = [], []
    for pair in pair_folders(folder / "rainy", folder / "clean")[::every]:
        rainy, clean = read_rgb(pair.picture), read_rgb(pair.partner)
        before.append(protocol(rainy, clean))
        after.append(protocol(restore(rainy), clean))
    print(f"{name} ({len(after)}): {_mean(before)} rainy, {_mean(after)}")


def turned(restore: Derainer, folder: Path, count: int) -> None:
    """As they are, and turned by 90 degrees, so that the rain falls sideways."""
    upright, sideways = [], []
    for pair in pair_folders(folder / "rainy", folder / "clean")[:count]:
        rainy, clean = read_rgb(pair.picture), read_rgb(pair.partner)
        upright.append(matlab_y_uint8(restore(rainy), clean))
        result = restore(np.ascontiguousarray(np.rot90(rainy)))
        sideways.append(matlab_y_uint8(np.ascontiguousarray(np.rot90(result, -1)), clean))
    print(f"turned ({count}): {_mean(upright)} upright, {_mean(sideways)} sideways")


def enlarged(restore: Derainer, folder: Path, factor: int) -> None:
    """Every fifth pair as a camera with more pixels would see it, as by default and at full size."""
    full, scores = restore.with_settings(full_size=True), list[tuple[Score, ...]]()
    for pair in pair_folders(folder / "rainy", folder / "clean")[::5]:
        rainy, clean = (
            np.asarray(cv2.resize(read_rgb(file), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
            for file in (pair.picture, pair.partner)
        )
        scores.append(tuple(matlab_y_uint8(seen, clean) for seen in (rainy, restore(rainy), full(rainy))))
    before, default, at_full_size = (_mean(list(part)) for part in zip(*scores, strict=True))
    print(f"enlarged {factor} times: {before} rainy, {default}, {at_full_size} at full size")


def unchanged(restore: Derainer, name: str, files: Iterable[Path]) -> None:
    values, luma = [], []
    for file in files:
        picture = read_rgb(file)
        restored = restore(picture)
        change = restored.astype(np.float64) - picture
        values.append(10 * np.log10(255**2 / max(1e-9, float((change**2).mean()))))
        luma.append(float((full_range_luma(restored) - full_range_luma(picture)).mean()))
    found = ", ".join(f"{value:.1f}" for value in values)
    print(f"{name}: {np.mean(values):.1f} dB ({found}), luma {np.mean(luma):+.2f}")


def brightness(restore: Derainer, files: Iterable[Path]) -> None:
    changes = []
    for file in files:
        rainy = read_rgb(file)
        if max(rainy.shape) > 1500:
            rainy = np.ascontiguousarray(rainy[:1000, :1000])
        changes.append(100 * (float(restore(rainy).mean()) / float(rainy.mean()) - 1))
    mean, worst = np.mean(changes), min(changes)
    print(f"brightness of {len(changes)} rainy photographs: {mean:+.1f} %, worst {worst:+.1f} %")


def _mean(scores: list[Score]) -> str:
    psnr, ssim = np.array(scores).mean(0)
    return f"{psnr:.2f} dB / {ssim:.4f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
