"""Pictures in folders: found, paired and read as 8-bit RGB."""

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


def pairs_in(rainy: str | Path, clean: str | Path) -> list[tuple[Path, Path]]:
    """Pairs of files whose names agree up to the extension.

    Raises:
        DerainError: a folder is missing or empty, or a picture has no partner.
    """
    partners = {p.stem: p for p in pictures_in(clean)}
    pairs = []
    for file in pictures_in(rainy):
        if file.stem not in partners:
            raise DerainError(f"{file}: no clean picture of the same name in {clean}.")
        pairs.append((file, partners[file.stem]))
    return pairs


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """A picture upright as (H, W, 3) RGB uint8. Raises `DerainError` naming a file that is none."""
    return np.asarray(to_rgb8(read_picture(path)), np.uint8)
