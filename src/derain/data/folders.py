"""Finds the pictures in a folder, and reads them as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.errors import UsageError
from derain.made_pairs import read_note
from derain.paths import exists, is_folder
from derain.pictures import find_pictures, read_picture, to_rgb8


def refuse_no_folder(path: Path) -> None:
    """Raises `UsageError` unless the path is a folder."""
    if not is_folder(path):
        raise UsageError(f"{path}: {'is a file; give its folder' if exists(path) else 'no such folder'}.")


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures of a folder and its subfolders, sorted; hidden ones are left out.

    Raises:
        UsageError: it is not a folder, holds no picture, or holds pairs that this project made, whose rainy
            pictures would count as clean ones.
        DerainError: a folder cannot be listed.
    """
    refuse_no_folder(Path(folder))
    found = find_pictures([folder])
    for place in sorted({parent for picture in found for parent in picture.relative.parents}):
        if note := read_note(Path(folder) / place):
            raise UsageError(
                f"{Path(folder) / place}: holds rainy pictures beside their clean ones ({note}); move it "
                "elsewhere, or give only one of its folders."
            )
    return [picture.source for picture in found]


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """A picture upright as (H, W, 3) RGB uint8. Raises `DerainError` naming a file that is not a picture."""
    return np.asarray(to_rgb8(read_picture(path)), np.uint8)
