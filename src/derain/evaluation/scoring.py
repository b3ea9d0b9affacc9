"""Scores picture files: each is read once and scored under several protocols, on all cores.

Threads suffice, as decoding and arithmetic release Python's global interpreter lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from derain.cores import cores
from derain.data.pairing import pair_folders, pictures_below
from derain.errors import DerainError, UsageError, errors_of
from derain.evaluation.levels import Array, as_rgb
from derain.evaluation.registry import Protocol, protocol
from derain.evaluation.scores import PictureScore, SetScore
from derain.pictures import read_picture

PLURALS = {"clean": "clean pictures", "rainy": "rainy pictures", "mask": "rain masks"}


@dataclass(frozen=True)
class Item:
    """A file to score, called `name` in the result, and what it is compared with.

    `partners` are files by their role, a key of `derain.evaluation.registry.NOUNS`.
    """

    name: str
    restored: Path
    partners: Mapping[str, Path]


@dataclass(frozen=True)
class Scored:
    """Scores of files, one `SetScore` per protocol, and what the user should know about the files."""

    sets: tuple[SetScore, ...]
    notes: tuple[str, ...]


def plan_scoring(
    restored: Path,
    clean: Path | None,
    protocols: Sequence[str],
    *,
    rainy: Path | None = None,
    masks: Path | None = None,
) -> tuple[Item, ...]:
    """What there is to score: one file or a folder, with or without its counterparts.

    Args:
        restored: a picture or a folder of them; `clean`, `rainy` and `masks` are of the same kind.
        protocols: their names; they decide which of the others are needed.

    Raises:
        UsageError: a protocol is unknown or compares with pictures that are not given, there is no protocol,
            no protocol compares with pictures that are given, or a file is to be compared with a folder, or
            a path holds no pictures.
        DerainError: a picture has no partner; see `derain.data.pairing`.
    """
    if not protocols:
        raise UsageError("no protocol is named; name one or more.")
    given = {"clean": clean, "rainy": rainy, "mask": masks}
    for name in protocols:
        for need in protocol(name).needs:
            if need in given and given[need] is None:
                raise UsageError(f"{name} compares with {PLURALS[need]}; give them as well.")
        if protocol(name).needs_frames and not restored.is_dir():
            raise UsageError(f"{restored}: {name} compares frames; give a video or a folder of frames.")
    others = {kind: path for kind, path in given.items() if path is not None}
    for kind, path in others.items():
        if not any(kind in protocol(name).needs for name in protocols):
            raise UsageError(f"{', '.join(protocols)} need no {PLURALS[kind]}; leave out {path}.")
        for place in (restored, path):
            if not place.exists():
                raise UsageError(f"{place}: no such file or folder.")
        if restored.is_dir() != path.is_dir():
            raise UsageError(
                f"{restored} and {path}: one is a folder and the other a file; give two files or two folders."
            )
    if not restored.is_dir():
        return (Item(restored.name, restored, others),)
    partners: dict[str, dict[str, Path]] = {name: {} for name in pictures_below(restored)}
    for kind, path in others.items():
        for pair in pair_folders(restored, path):
            partners[pair.name][kind] = pair.partner
    items = [Item(name, path, partners[name]) for name, path in pictures_below(restored).items()]
    if any(protocol(name).needs_frames for name in protocols):
        items = [items[0], *(_after(*two) for two in itertools.pairwise(items))]
    return tuple(items)


def plan_of(places: Mapping[str, Path | None], protocols: Sequence[str]) -> tuple[Item, ...]:
    """`plan_scoring` for paths "restored", "clean", "rainy" and "masks", as from `with_frames`."""
    restored = places["restored"]
    assert restored is not None
    return plan_scoring(restored, places["clean"], protocols, rainy=places["rainy"], masks=places["masks"])


def _after(before: Item, item: Item) -> Item:
    """A frame and the previous one of its clip, which is in the same folder."""
    if before.restored.parent != item.restored.parent:
        return item
    earlier = {f"previous_{kind}": path for kind, path in before.partners.items() if "_" not in kind}
    return replace(item, partners={**item.partners, "previous": before.restored, **earlier})


def score_files(
    items: Sequence[Item],
    protocols: Sequence[str],
    crop_to_common: bool = False,
    on_picture: Callable[[], None] = lambda: None,
) -> Scored:
    """Scores files; each is read once for all protocols, and one that fails does not stop the others.

    Args:
        items: see `plan_scoring`.
        protocols: names.
        crop_to_common: crop pictures of different sizes to their common centre, as UDR-S2Former's test
            does, instead of refusing them.
        on_picture: called after each picture, from the calling thread.

    Raises:
        DerainError: under one of the protocols no picture could be scored: its file cannot be read or is
            not of 8 bits, or the pair cannot be compared; names the first.
    """
    chosen = [protocol(name) for name in dict.fromkeys(protocols)]
    assert items
    values: list[list[_Value]] = []
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
    sets = []
    for i, p in enumerate(chosen):
        found = [(name, v[i]) for name, v in zip(names, values, strict=True)]
        pictures = tuple(PictureScore(name, value) for name, value in found if isinstance(value, dict))
        failed = [value for _, value in found if isinstance(value, DerainError)]
        if not pictures and failed:
            raise failed[0]
        if not pictures:
            raise UsageError(f"{p.name} compares frames of a clip, and there is only one picture.")
        sets.append(SetScore(p.name, pictures, tuple(map(str, failed))))
    return Scored(tuple(sets), tuple(dict.fromkeys(notes)))


# A protocol's scores of a file; None where it needs the previous frame and there is none.
_Value = dict[str, float] | DerainError | None


def _score(item: Item, chosen: Sequence[Protocol], crop_to_common: bool) -> tuple[list[_Value], list[str]]:
    """The scores by each protocol, and what the user should know about the files."""
    try:
        with errors_of(item.restored, *item.partners.values()):
            restored, partners, notes = _read(item, crop_to_common)
    except DerainError as error:
        return [error] * len(chosen), []
    values: list[_Value] = []
    for p in chosen:
        try:
            # The messages of protocols say what is wrong, but not which pictures it is wrong with.
            with errors_of(" and ".join(map(str, (item.restored, *item.partners.values())))):
                values.append(_figures(p, restored, partners))
        except DerainError as error:
            values.append(error)
    return values, notes


def _read(item: Item, crop_to_common: bool) -> tuple[Array, dict[str, Array], list[str]]:
    """The picture, what it is compared with, and what the user should know about the files."""
    restored, notes = read_levels(item.restored)
    partners: dict[str, Array] = {}
    for kind, path in item.partners.items():
        partner, more = read_levels(path)
        notes += more
        if kind != "mask" and restored.ndim != partner.ndim:
            grey = item.restored if restored.ndim == 2 else path
            notes.append(f"{grey}: is grey, its partner is not; taken as three equal channels.")
            restored, partner = as_rgb(restored), as_rgb(partner)
        partners[kind] = partner
    if crop_to_common and len({x.shape[:2] for x in (restored, *partners.values())}) > 1:
        restored, *cut = _common_centre(restored, *partners.values())
        partners = dict(zip(partners, cut, strict=True))
    return restored, partners, notes


def _figures(chosen: Protocol, restored: Array, partners: Mapping[str, Array]) -> dict[str, float] | None:
    if chosen.needs_frames and "previous" not in partners:
        return None
    others: dict[str, Any] = dict(partners)
    return chosen(restored, others.pop("clean", None), **others)


def read_levels(path: Path) -> tuple[Array, list[str]]:
    """(H, W, 3) or (H, W) uint8 of a file, and notes on what was left out.

    Raises:
        DerainError: it cannot be read, or has 16 bits per channel.
    """
    picture = read_picture(path)
    if picture.pixels.dtype != np.uint8:
        raise DerainError(f"{path}: has 16 bits per channel; the protocols are defined for 8, so convert it.")
    notes = [f"{path}: its alpha is left out of the score."] if picture.alpha is not None else []
    return (picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels), notes


def _common_centre(*pictures: Array) -> list[Array]:
    """The centres of all pictures, of the largest size that fits in each."""
    height, width = (min(sides) for sides in zip(*(x.shape[:2] for x in pictures), strict=True))
    cut = []
    for picture in pictures:
        top, left = round((picture.shape[0] - height) / 2), round((picture.shape[1] - width) / 2)
        cut.append(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    return cut
