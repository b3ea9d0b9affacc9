"""Training pairs in the layout of SPA-Data: one clean picture for all rainy frames of a clip."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.atomic import link_or_copy, new_file, replace_file
from derain.errors import DerainError, UsageError, reason
from derain.made_pairs import write_note
from derain.pictures import Picture, write_picture

RAINY, CLEAN, LIST = "real_world", "real_world_gt", "real_world.txt"


def refuse_listed(folder: Path, name: str) -> None:
    """Raises `UsageError` if the folder already lists pairs of a clip of this name.

    Pairs left by an interrupted run are not listed, and are written again.
    """
    if f"{RAINY}/{name}_00001.png " in _listed(folder):
        raise UsageError(f"{folder}: already holds pairs of a clip named {name}; rename the clip.")


def write_pairs(
    folder: str | Path, name: str, frames: Iterable[NDArray[np.uint8]], clean: NDArray[np.uint8]
) -> int:
    """Adds the pairs of one clip to a folder.

    `real_world/NAME_00001.png`, ... are the rainy frames, `real_world_gt/` holds the clean picture under
    the same names (as links to one file where the disk allows it), and `real_world.txt` has a line
    `rainy clean` for every pair, with paths relative to the folder. A note says what made them.

    Args:
        folder: created if it does not exist; earlier pairs of other clips are kept.
        name: the name of the clip, without spaces.
        frames: pictures (H, W, 3) uint8 RGB.
        clean: (H, W, 3) uint8 RGB.

    Returns:
        The number of pairs.

    Raises:
        UsageError: the folder lists pairs of this name already.
        DerainError: its list cannot be read, or the folder cannot be written to.
    """
    folder = Path(folder)
    refuse_listed(folder, name)
    first, lines = folder / CLEAN / f"{name}_00001.png", []
    for number, frame in enumerate(frames, 1):
        file = f"{name}_{number:05d}.png"
        write_picture(folder / RAINY / file, Picture(frame))
        if number == 1:
            write_picture(first, Picture(clean))
        else:
            with new_file(folder / CLEAN / file) as temporary:
                link_or_copy(first, temporary)
        lines.append(f"{RAINY}/{file} {CLEAN}/{file}\n")
    write_note(folder, "derain background")
    replace_file(folder / LIST, (_listed(folder) + "".join(lines)).encode())
    return len(lines)


def _listed(folder: Path) -> str:
    listing = folder / LIST
    try:
        return listing.read_text("utf-8") if listing.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DerainError(f"{listing}: cannot be read ({reason(error)}).") from None
