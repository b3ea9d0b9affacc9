"""Restores photographs in tiles, as darktable does, and says how evenly bright the tiles are.

    python scripts/darktable_photographs.py MODEL PHOTO... [--megapixels 12]

Packs the model's weights twice, for tiles and for any size. Each photograph is enlarged to so many
megapixels if it has fewer, made linear, cut into tiles with an overlap of 64 pixels, restored in sRGB
through ONNX Runtime, and blended. A tile's brightness is compared with that of the same place in the
photograph restored in one piece, and with its neighbours; exits with 1 where two neighbours differ by
half a level of 8 bits or more. Takes minutes and 4 GB.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.checkpoints import Model, open_checkpoint
from derain.export.darktable import TILE, export_package
from derain.extras import extra
from derain.pictures import read_picture, to_rgb8

OVERLAP = 64
EDGE = 8  # what lies next to the cut is nearly faded out
LIMIT = 0.5  # levels of 8 bits
Array = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--megapixels", type=float, default=12.0)
    given = parser.parse_args()
    model = open_checkpoint(given.model)
    with tempfile.TemporaryDirectory() as folder:
        tiled = packed(model, Path(folder) / "tiles.dtmodel", any_size=False)
        whole = packed(model, Path(folder) / "any-size.dtmodel", any_size=True)
    worst = 0.0
    for photo in given.photos:
        pixels = enlarged(to_rgb8(read_picture(photo)), given.megapixels).astype(np.float32) / 255
        joined, strips = in_tiles(tiled, pixels)
        off = cells(joined - run(whole, pixels), TILE - OVERLAP)
        apart = max(float(np.abs(np.diff(off, axis=axis)).max(initial=0)) for axis in (0, 1))
        changed = float(np.abs(joined - pixels).mean())
        print(
            f"{photo}: {pixels.shape[1]}x{pixels.shape[0]}, changed by {255 * changed:.2f} on average\n"
            f"  neighbouring tiles differ by at most {255 * apart:.2f}, a tile from the whole by "
            f"{255 * np.abs(off).max():.2f}\n"
            f"  before blending, in the strip that two tiles share, they differ by {255 * strips:.2f}",
            flush=True,
        )
        worst = max(worst, 255 * apart)
    raise SystemExit(worst >= LIMIT)


def packed(model: Model, package: Path, *, any_size: bool) -> Any:
    """A session of the packed graph."""
    config = export_package(model, package, None if any_size else TILE).config
    with zipfile.ZipFile(package) as archive:
        graph = archive.read(f"{config['id']}/model.onnx")
    return extra("onnxruntime", "onnx").InferenceSession(graph, providers=["CPUExecutionProvider"])


def enlarged(pixels: NDArray[np.uint8], megapixels: float) -> NDArray[np.uint8]:
    scale = max(1.0, (megapixels * 1e6 / (pixels.shape[0] * pixels.shape[1])) ** 0.5)
    size = (int(np.ceil(pixels.shape[1] * scale)), int(np.ceil(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def run(session: Any, encoded: Array) -> Array:
    """(H, W, 3) in sRGB through the graph."""
    planes = np.ascontiguousarray(encoded.transpose(2, 0, 1)[None], np.float32)
    done: Array = session.run(["output"], {"input": planes})[0][0].transpose(1, 2, 0)
    return done


def in_tiles(session: Any, pixels: Array) -> tuple[Array, float]:
    """The blended result in sRGB, and by how much two neighbours differ at most in the strip they share."""
    linear = to_linear(pixels)
    height, width = linear.shape[:2]
    padded = np.pad(linear, ((0, TILE), (0, TILE), (0, 0)), mode="reflect")
    step = TILE - OVERLAP
    ramp = (np.minimum(np.arange(TILE), np.arange(TILE)[::-1]) + 1).clip(max=OVERLAP).astype(np.float32)
    weight = (ramp[:, None] * ramp)[..., None]
    total, weights = np.zeros_like(padded), np.zeros((*padded.shape[:2], 1), np.float32)
    apart, above = 0.0, dict[int, Array]()
    end, start = np.s_[EDGE - OVERLAP : -EDGE], np.s_[EDGE : OVERLAP - EDGE]
    for y in range(0, height, step):
        left = None
        for x in range(0, width, step):
            place = np.s_[y : y + TILE, x : x + TILE]
            done = run(session, to_srgb(padded[place]))
            total[place] += weight * to_linear(done)
            weights[place] += weight
            if left is not None:
                apart = max(apart, abs(float(left[:, end].mean() - done[:, start].mean())))
            if x in above:
                apart = max(apart, abs(float(above[x][end].mean() - done[start].mean())))
            above[x] = left = done
    return to_srgb(total[:height, :width] / weights[:height, :width]), apart


def cells(difference: Array, side: int) -> NDArray[np.float64]:
    """Means of squares of about that side."""
    rows = np.array_split(difference, round(difference.shape[0] / side))
    columns = round(difference.shape[1] / side)
    return np.array([[cell.mean() for cell in np.array_split(row, columns, axis=1)] for row in rows])


def to_srgb(linear: Array) -> Array:
    curve = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def to_linear(encoded: Array) -> Array:
    curve = ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curve).astype(np.float32)


if __name__ == "__main__":
    main()
