"""Small pictures for the page to look at: what browsers cannot show, they get as JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from derain.pictures import Picture, to_rgb8, write_picture

SIDE = 2000  # pixels at most
QUALITY = 92


def write_preview(path: Path, picture: Picture) -> None:
    """Writes `picture` as 8-bit RGB, its longer side at most `SIDE` pixels, with its colour profile."""
    image = Image.fromarray(to_rgb8(picture))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    icc = None if picture.pixels.shape[2] == 1 else picture.icc
    write_picture(path, Picture(np.asarray(image), icc=icc), QUALITY)
