"""Puts photographs through a package for darktable as its tiles do, and says how well the tiles fit.

    python scripts/darktable_photographs.py derain-everyday.dtmodel PHOTO... [--megapixels 12]

Each photograph is enlarged to so many megapixels if it has fewer, made linear, cut into the package's
tiles with an overlap of 64 pixels, restored in sRGB through ONNX Runtime, and joined. For any two
neighbours the means of what they share are compared; exits with 1 from half a level of 8 bits on.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.export.darktable import check_package
from derain.extras import extra
from derain.pictures import read_picture, to_rgb8

OVERLAP = 64
EDGE = 8  # what lies next to the cut is nearly faded out
LIMIT = 0.5 / 255
Array = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--megapixels", type=float, default=12.0)
    given = parser.parse_args()
    config = check_package(given.package)
    print(f"{given.package}: {config['name']}, version {config['version']}, passes the checks")
    tile = config["attributes"]["input_sizes"][0]
    with zipfile.ZipFile(given.package) as archive:
        graph = archive.read(f"{config['id']}/model.onnx")
    session = extra("onnxruntime", "onnx").InferenceSession(graph, providers=["CPUExecutionProvider"])
    largest = 0.0
    for photo in given.photos:
        pixels = to_rgb8(read_picture(photo))
        scale = max(1.0, (given.megapixels * 1e6 / (pixels.shape[0] * pixels.shape[1])) ** 0.5)
        size = (int(np.ceil(pixels.shape[1] * scale)), int(np.ceil(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        jump, change = through(session, pixels, tile)
        print(
            f"{photo}: enlarged {scale:.2f} times to {size[0]}x{size[1]}; neighbouring tiles "
            f"differ by at most {255 * jump:.4f} levels; the whole changes by {255 * change:.2f} on average",
            flush=True,
        )
        largest = max(largest, jump)
    raise SystemExit(largest >= LIMIT)


def through(session: Any, pixels: NDArray[np.uint8], tile: int) -> tuple[float, float]:
    """The largest difference of neighbouring tiles' means where they overlap, and the mean change."""
    linear = to_linear(pixels.astype(np.float32) / 255)
    height, width = linear.shape[:2]
    padded = np.pad(linear, ((0, tile), (0, tile), (0, 0)), mode="reflect")
    step = tile - OVERLAP
    ramp = (np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 1).clip(max=OVERLAP).astype(np.float32)
    weight = (ramp[:, None] * ramp)[..., None]
    total, weights = np.zeros_like(padded), np.zeros((*padded.shape[:2], 1), np.float32)
    jump, above = 0.0, dict[int, Array]()
    for y in range(0, height, step):
        left = None
        for x in range(0, width, step):
            place = np.s_[y : y + tile, x : x + tile]
            encoded = to_srgb(padded[place]).transpose(2, 0, 1)[None]
            done: Array = session.run(["output"], {"input": np.ascontiguousarray(encoded, np.float32)})[0][0]
            total[place] += weight * to_linear(done.transpose(1, 2, 0))
            weights[place] += weight
            if left is not None:
                shared = left[:, :, EDGE - OVERLAP : -EDGE].mean() - done[:, :, EDGE : OVERLAP - EDGE].mean()
                jump = max(jump, abs(float(shared)))
            if x in above:
                shared = above[x][:, EDGE:-EDGE].mean() - done[:, EDGE : OVERLAP - EDGE].mean()
                jump = max(jump, abs(float(shared)))
            above[x] = done[:, -OVERLAP:].copy()
            left = done
    joined = to_srgb(total[:height, :width] / weights[:height, :width])
    return jump, float(np.abs(joined - pixels.astype(np.float32) / 255).mean())


def to_srgb(linear: Array) -> Array:
    curve = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def to_linear(encoded: Array) -> Array:
    curve = ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curve).astype(np.float32)


if __name__ == "__main__":
    main()
