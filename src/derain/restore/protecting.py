"""Parts of a picture that are left unchanged: the white areas of a mask, with a soft edge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.errors import DerainError, UsageError
from derain.pictures import EXTENSIONS, read_picture, to_tensor

WITHOUT_MASK = "no mask found, so nothing is protected"
FEATHER = 16  # pixels outside the white areas over which protection fades
# A pixel whose channels differ by more is coloured; a mask with a greater share of them is a photograph.
COLOURED, COLOURED_SHARE = 0.05, 0.1


def keep_map(mask: Tensor, name: str = "the mask") -> Tensor:
    """How much of each pixel stays unchanged: the mask with a soft edge around it.

    Args:
        mask: (1, 1 or 3, H, W) in [0, 1]; colours are averaged.
        name: what errors call the mask.

    Returns:
        (1, 1, H, W): 1 where the mask is white, 0 from `FEATHER` pixels outside of it on.

    Raises:
        DerainError: the mask is in colour, and so probably a photograph that was given by mistake.
    """
    values = mask.detach().float().cpu()
    coloured = float(((values.amax(1) - values.amin(1)) > COLOURED).float().mean())
    if coloured > COLOURED_SHARE:
        raise DerainError(
            f"{name}: {100 * coloured:.0f} % of it is in colour, so it is not a mask; a mask is white where "
            "the picture stays unchanged, and black elsewhere."
        )
    plane: NDArray[np.float32] = values.mean(1)[0].numpy()
    # A blur of the dilated mask: it starts at the edge of the white, and ends `FEATHER` pixels away.
    half = FEATHER // 2
    round_element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * half + 1, 2 * half + 1))
    soft = cv2.GaussianBlur(cv2.dilate(plane, round_element), (2 * half + 1, 2 * half + 1), half / 2)
    return torch.from_numpy(np.maximum(plane, soft))[None, None]


def protected(rainy: Tensor, image: Tensor, keep: Tensor) -> Tensor:
    """`image` with the pixels of `rainy` where `keep` is 1, and a blend in between; (B, 3, H, W)."""
    # Not `torch.lerp`: where nothing or everything is kept, values must be exact.
    mixed = keep * rainy + (1 - keep) * image
    return torch.where(keep == 1, rainy, torch.where(keep == 0, image, mixed))


def refuse_other_size(keep: Tensor, size: Sequence[int], path: Path | None = None) -> None:
    """Checks that a keep map has the size of a picture.

    Args:
        keep: (1, 1, H, W).
        size: (height, width) of the picture.
        path: the mask's file, for errors; None for one in memory.

    Raises:
        DerainError: it has another size.
    """
    height, width = keep.shape[-2:]
    if (height, width) != tuple(size):
        place = "" if path is None else f"{path}: "
        raise DerainError(
            f"{place}the mask is {width}x{height} and the picture {size[1]}x{size[0]}; they must be equal."
        )


def read_mask(path: Path) -> Tensor:
    """The keep map of a mask in a file. Raises `DerainError` if it cannot be read or is in colour."""
    try:
        return keep_map(to_tensor(read_picture(path)), str(path))
    except DerainError as error:
        error.message = f"the mask {error.message}"
        raise


class Protection:
    """The masks that a user gave: one for all pictures, or a folder of masks for some of them.

    In a folder, a picture's mask has the same relative path as the picture, with any extension.
    """

    def __init__(self, place: Path) -> None:
        """Raises `UsageError` if the place does not exist."""
        if not place.exists():
            raise UsageError(f"{place}: no such mask or folder of masks.")
        self._place, self._last = place, (Path(), torch.empty(0))

    def keep(self, size: tuple[int, int], name: Path | None = None) -> Tensor | None:
        """The keep map of a picture, or None where it has no mask.

        Args:
            size: (height, width) of the picture.
            name: the picture's path relative to its folder, without extension; used for a folder of masks.

        Raises:
            DerainError: the mask cannot be read, is in colour, or has another size.
        """
        path = self.path(name)
        if path is None:
            return None
        read, keep = self._last
        if read != path:  # all frames of a video share one
            keep = read_mask(path)
            self._last = (path, keep)
        refuse_other_size(keep, size, path)
        return keep

    def path(self, name: Path | None) -> Path | None:
        """The mask of a picture; None where the folder has none."""
        if not self._place.is_dir():
            return self._place
        if name is None:
            raise UsageError(f"{self._place}: is a folder of masks; give one mask here.")
        wanted = self._place / name
        found = (wanted.with_name(wanted.name + suffix) for suffix in EXTENSIONS)
        return next((path for path in found if path.is_file()), None)
