"""Pictures in folders: found, paired and read as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.errors import DerainError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


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
        raise DerainError(f"{folder}: no pictures in it (looked for {', '.join(sorted(EXTENSIONS))}).")
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
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if picture is None:
        raise DerainError(f"{path}: not a picture, or damaged; remove or replace it.")
    return np.ascontiguousarray(picture[..., ::-1])
