"""Scores of picture files: read once, scored under several protocols, on all cores.

Threads are enough: decoding and arithmetic happen outside Python's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derain.data.pairing import pair_folders, pictures_below
from derain.errors import DerainError, UsageError
from derain.evaluation.pairs import Array, as_rgb
from derain.evaluation.registry import Protocol, protocol
from derain.evaluation.scores import PictureScore, SetScore
from derain.pictures import read_picture


@dataclass(frozen=True)
class Item:
    """A file to score, called `name` in the result, and the clean one it is compared with, if any."""

    name: str
    restored: Path
    clean: Path | None


@dataclass(frozen=True)
class Scored:
    """Scores of files, one `SetScore` a protocol, and what the user should know about the files."""

    sets: tuple[SetScore, ...]
    notes: tuple[str, ...]


def plan(restored: Path, clean: Path | None, protocols: Sequence[str]) -> tuple[Item, ...]:
    """What there is to score: one file or a folder, with its clean counterpart or without.

    Raises:
        UsageError: an unknown protocol, none at all, one that needs clean pictures where there are none,
            a file against a folder, or a path without pictures.
        DerainError: a picture has no partner, see `derain.data.pairing`.
    """
    needing = [name for name in protocols if protocol(name).needs_truth]
    if not protocols:
        raise UsageError("no protocol is named; `derain score --list` shows them.")
    if clean is None:
        if needing:
            raise UsageError(f"{needing[0]} compares with clean pictures; give their folder as well.")
        if restored.is_dir():
            return tuple(Item(name, path, None) for name, path in pictures_below(restored).items())
        return (Item(restored.name, restored, None),)
    if not needing:
        raise UsageError(f"{', '.join(protocols)} need no clean pictures; leave {clean} out.")
    for path in (restored, clean):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder.")
    if restored.is_dir() != clean.is_dir():
        raise UsageError(f"{restored} and {clean}: one is a folder and the other a file; give two of a kind.")
    if restored.is_dir():
        return tuple(Item(pair.name, pair.restored, pair.clean) for pair in pair_folders(restored, clean))
    return (Item(restored.name, restored, clean),)


def score_files(
    items: Sequence[Item],
    protocols: Sequence[str],
    crop_to_common: bool = False,
    on_picture: Callable[[], None] = lambda: None,
) -> Scored:
    """Scores files; each is read once for all protocols.

    Args:
        items: see `plan`.
        protocols: names.
        crop_to_common: cut the centres of pictures of different sizes to the size they share, as
            UDR-S2Former's test does, in place of refusing them.
        on_picture: called after each picture, from the calling thread.

    Raises:
        DerainError: a file cannot be read or is not of 8 bits, or a pair cannot be compared; names it.
    """
    chosen = [protocol(name) for name in dict.fromkeys(protocols)]
    assert items
    values: list[list[dict[str, float]]] = []
    notes: list[str] = []
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for scores, more in pool.map(lambda item: _score(item, chosen, crop_to_common), items):
                values.append(scores)
                notes += more
                on_picture()
        finally:
            pool.shutdown(cancel_futures=True)
    names = [item.name for item in items]
    sets = (
        SetScore(p.name, tuple(PictureScore(name, v[i]) for name, v in zip(names, values, strict=True)))
        for i, p in enumerate(chosen)
    )
    return Scored(tuple(sets), tuple(notes))


def _score(
    item: Item, chosen: Sequence[Protocol], crop_to_common: bool
) -> tuple[list[dict[str, float]], list[str]]:
    restored, notes = read_levels(item.restored)
    clean = None
    if item.clean is not None:
        clean, more = read_levels(item.clean)
        notes += more
        if restored.ndim != clean.ndim:
            grey = item.restored if restored.ndim == 2 else item.clean
            notes.append(f"{grey}: is grey and its partner is not; taken as three equal channels.")
            restored, clean = as_rgb(restored), as_rgb(clean)
        if crop_to_common and restored.shape != clean.shape:
            restored, clean = _common_centre(restored, clean)
    try:
        return [p(restored, clean) for p in chosen], notes
    except DerainError as error:
        files = f"{item.restored}" if clean is None else f"{item.restored} and {item.clean}"
        raise type(error)(f"{files}: {error}") from None


def read_levels(path: Path) -> tuple[Array, list[str]]:
    """(H, W, 3) or (H, W) uint8 of a file, and notes on what was left out.

    Raises:
        DerainError: unreadable, or of 16 bits.
    """
    picture = read_picture(path)
    if picture.pixels.dtype != np.uint8:
        raise DerainError(f"{path}: has 16 bits per channel; the protocols are defined for 8, so convert it.")
    notes = [f"{path}: its alpha is left out of the score."] if picture.alpha is not None else []
    return (picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels), notes


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _common_centre(a: Array, b: Array) -> tuple[Array, Array]:
    """The centres of both, of the largest size that fits in each."""
    height, width = (min(sides) for sides in zip(a.shape[:2], b.shape[:2], strict=True))
    cut = []
    for picture in (a, b):
        top, left = round((picture.shape[0] - height) / 2), round((picture.shape[1] - width) / 2)
        cut.append(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    return cut[0], cut[1]
