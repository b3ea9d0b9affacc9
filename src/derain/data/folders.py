"""Pictures in a folder: found, and read as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.errors import DerainError
from derain.pictures import EXTENSIONS, read_picture, to_rgb8


def pictures_in(folder: str | Path) -> list[Path]:
    """The picture files of a folder, in the order of their names.

    Raises:
        DerainError: no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DerainError(f"{folder}: no such folder.")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != ".")
    if not files:
        raise DerainError(f"{folder}: no pictures in it (looked for {' '.join(EXTENSIONS)}).")
    return files


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """A picture upright as (H, W, 3) RGB uint8. Raises `DerainError` naming a file that is none."""
    return np.asarray(to_rgb8(read_picture(path)), np.uint8)
