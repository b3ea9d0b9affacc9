"""How SPANet's published training cuts its samples: one random rectangle, resized to a square."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
SIZE = 256


class Rectangle(NamedTuple):
    """A crop: first row and column, height and width, pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_rectangle(height: int, width: int, draw: random.Random) -> Rectangle:
    """A rectangle of 0.8 to 1 of the picture's area and an aspect ratio of 3/4 to 4/3.

    After ten draws that do not fit, the centred square of the shorter side.
    """
    for _ in range(10):
        area = draw.uniform(0.8, 1) * width * height
        ratio = draw.uniform(3 / 4, 4 / 3)
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if draw.random() < 0.5:
            crop_width, crop_height = crop_height, crop_width
        if crop_width <= width and crop_height <= height:
            top = draw.randint(0, height - crop_height)
            return Rectangle(top, draw.randint(0, width - crop_width), crop_height, crop_width)
    side = min(height, width)
    return Rectangle((height - side) // 2, (width - side) // 2, side, side)


def training_sample(rainy: Bytes, clean: Bytes, draw: random.Random) -> tuple[Bytes, Bytes]:
    """The same crop of a pair (H, W, 3) uint8, resized to (256, 256, 3) by anti-aliased bicubic."""
    top, left, height, width = crop_rectangle(rainy.shape[0], rainy.shape[1], draw)
    box = (left, top, left + width, top + height)
    rainy, clean = (
        np.asarray(Image.fromarray(picture).crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for picture in (rainy, clean)
    )
    return rainy, clean
