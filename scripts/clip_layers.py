"""Layers of real rain from a clip of a nearly still camera: streaks on black, for `layers` of a recipe.

    python scripts/clip_layers.py ../shared/data/static_clips/street.mp4 LAYERS --box 600 190 1920 1080
    python scripts/clip_layers.py ../shared/data/static_clips/yard.mp4 LAYERS --box 0 20 368 300

A frame's rain is what is brighter than the median of its neighbours, which are first aligned with it. Of
that, marks are kept that are longer along the fall than across, which leaves, noise and edges mostly are
not. Choose a box without text and without what moves, and look through the layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rain_layers import raised

Frame = NDArray[np.uint8]
Plane = NDArray[np.float32]

NEIGHBOURS = 5  # frames before, and as many after
UNSTEADY = 0.5  # of the range of the neighbours is not taken for rain
FAINTEST = 3  # levels
SMALLEST = 14  # pixels of a mark
SLENDER = 1.6  # of a mark: length along the fall by width
FILLED = 0.35  # of the rectangle around a mark


def upright(frame: av.VideoFrame) -> Frame:
    """(H, W, 3) RGB, turned as the clip says."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def aligned(frame: Frame, onto: Frame) -> Frame:
    """`frame` warped by a homography so that it lies over `onto`; both (H, W, 3)."""
    there, here = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (onto, frame))
    corners = cv2.goodFeaturesToTrack(there, 1500, 0.01, 8)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(there, here, corners, None, winSize=(21, 21))
    kept = found[:, 0] == 1
    matrix, _ = cv2.findHomography(moved[kept], corners[kept], cv2.RANSAC, 1.0)
    size = onto.shape[1::-1]
    return np.asarray(cv2.warpPerspective(frame, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def rain_of(frame: Frame, neighbours: list[Frame]) -> tuple[Plane, Plane]:
    """What is brighter than the median of the aligned neighbours, in levels, (H, W); and the same less
    what is unsteady in them, for finding marks."""
    stack = np.stack([aligned(neighbour, frame) for neighbour in neighbours])
    low, median, high = np.quantile(stack, (0.2, 0.5, 0.8), axis=0).astype(np.float32)
    brighter = (frame - median).min(2)
    return np.clip(brighter - 1, 0, None), np.clip(
        brighter - FAINTEST - UNSTEADY * (high - low).max(2), 0, None
    )


def marks(rain: Plane) -> NDArray[np.bool_]:
    """Where connected marks lie that are upright and slender, (H, W)."""
    lit = (cv2.GaussianBlur(rain, (0, 0), 0.7) > 8).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=8)
    width, height, area = (
        stats[:, cv2.CC_STAT_WIDTH],
        stats[:, cv2.CC_STAT_HEIGHT],
        stats[:, cv2.CC_STAT_AREA],
    )
    kept = (area >= SMALLEST) & (height >= SLENDER * width) & (area > FILLED * width * height)
    kept[0] = False  # the ground
    return cv2.dilate(kept[labels].astype(np.uint8), np.ones((5, 3), np.uint8)) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("layers", type=Path)
    parser.add_argument("--every", type=int, default=8, help="a layer of every n-th frame")
    parser.add_argument("--box", type=int, nargs=4, metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"))
    given = parser.parse_args()
    with av.open(str(given.clip)) as container:
        frames = [upright(frame) for frame in container.decode(video=0)]
    given.layers.mkdir(parents=True, exist_ok=True)
    for number in range(NEIGHBOURS, len(frames) - NEIGHBOURS, given.every):
        around = frames[number - NEIGHBOURS : number] + frames[number + 1 : number + 1 + NEIGHBOURS]
        soft, certain = rain_of(frames[number], around)
        layer = soft * marks(certain)
        if given.box:
            left, top, right, bottom = given.box
            layer = layer[top:bottom, left:right]
        if not layer.any():
            continue
        target = given.layers / f"{given.clip.stem}_{number}.png"
        cv2.imwrite(str(target), raised(layer, float(np.quantile(layer[layer > 0], 0.9))))


if __name__ == "__main__":
    main()
