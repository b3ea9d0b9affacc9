"""A page for comparing results of the same crop by eye, without knowing which network made which.

The page is one file that needs no server. The browser keeps the choices, so that one can continue later.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from derain.data.pairing import best_pairing, pictures_below
from derain.errors import DerainError, UsageError
from derain.evaluation.levels import Array
from derain.evaluation.sheet import difference
from derain.pictures import Picture, encode_picture, read_picture, to_rgb8


@dataclass(frozen=True)
class Trial:
    """One choice: a picture, and the results on the left and on the right, by their indices."""

    picture: str
    left: int
    right: int


@dataclass(frozen=True)
class ComparisonPage:
    """A page, and the reasons why some pictures are missing from it."""

    html: str
    failed: tuple[str, ...]


def make_trials(pictures: Sequence[str], results: int, count: int, seed: int) -> tuple[Trial, ...]:
    """Choices in random order; all pairs of results meet equally often, to within one, on random sides.

    Args:
        pictures: the names of the pictures.
        results: how many results there are to compare, at least two.
        count: the largest number of choices; no two results meet twice on one picture.
        seed: the seed of the order.
    """
    random = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(results), 2))
    random.shuffle(pairs)
    orders = {pair: random.permutation(len(pictures)) for pair in pairs}
    # The first picture of every pair, then the second of every pair, ...
    meetings = [(pair, pictures[orders[pair][i]]) for i in range(len(pictures)) for pair in pairs][:count]
    random.shuffle(meetings)
    return tuple(
        Trial(picture, *(pair if random.random() < 0.5 else pair[::-1])) for pair, picture in meetings
    )


def comparison_page(
    results: Mapping[str, Path],
    rainy: Path | None = None,
    *,
    blind: bool = True,
    count: int = 60,
    side: int = 320,
    seed: int = 0,
) -> ComparisonPage:
    """The page for two or more folders of results, paired by name.

    A picture that cannot be read, or whose results differ in size, is left out and reported.

    Args:
        results: {name: folder}.
        rainy: folder of the rainy pictures, to be shown between the two.
        blind: show names only once all choices are made.
        count: the largest number of choices.
        side: side of the crops in pixels; they are taken where the two results differ most.
        seed: the seed of the order.

    Raises:
        UsageError: there are fewer than two folders or no picture that is in all of them, or `count` or
            `side` is too small.
        DerainError: every picture is left out.
    """
    if len(results) < 2:
        raise UsageError("there is nothing to compare; give two or more folders of results.")
    if count < 1 or side < 16:
        raise UsageError(f"{count} choices of crops of {side} pixels: at least 1 and 16 are needed.")
    shared = _shared([*results.values()])
    before = {} if rainy is None else _partners(shared[0], rainy)
    names = [name for name in shared[0] if rainy is None or name in before]
    if not names:
        folders = [*results.values(), *([] if rainy is None else [rainy])]
        raise UsageError(f"no picture is in all of {', '.join(map(str, folders))}.")
    failed: dict[str, DerainError] = {}
    images = functools.cache(lambda *paths: [_embedded(crop) for crop in _crops(paths, side)])
    while True:
        good = [name for name in names if name not in failed]
        if not good:
            raise next(iter(failed.values()))
        content, wrong = _content(make_trials(good, len(results), count, seed), shared, before, images)
        failed |= wrong
        if not wrong:
            break
    data = {"names": list(results), "blind": blind, "trials": content}
    text = json.dumps(data).replace("<", "\\u003c")  # so that no name can end the script
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    template = Template((files("derain.evaluation") / "blind.html").read_text(encoding="utf-8"))
    return ComparisonPage(template.substitute(data=text, identity=identity), tuple(map(str, failed.values())))


def _content(
    trials: Sequence[Trial],
    shared: Sequence[Mapping[str, Path]],
    before: Mapping[str, Path],
    images: Callable[..., list[str]],
) -> tuple[list[dict[str, Any]], dict[str, DerainError]]:
    """What the page shows for each trial, and the errors of pictures that cannot be shown.

    `images` makes crops of the given files, embedded as text.
    """
    content, wrong = [], dict[str, DerainError]()
    for trial in trials:
        if trial.picture in wrong:
            continue
        paths = [shared[place][trial.picture] for place in (trial.left, trial.right)]
        paths += [before[trial.picture]] if before else []
        entry = {"picture": trial.picture, "left": trial.left, "right": trial.right}
        try:
            content.append({**entry, "images": images(*paths)})
        except DerainError as error:
            wrong[trial.picture] = error
    return content, wrong


def _shared(folders: Sequence[Path]) -> list[dict[str, Path]]:
    """{name in the first folder: file} for each folder, for the pictures that are in all of them."""
    first = pictures_below(folders[0])
    found = [first, *(_partners(first, folder) for folder in folders[1:])]
    names = [name for name in first if all(name in partners for partners in found)]
    return [{name: partners[name] for name in names} for partners in found]


def _partners(first: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    return {pair.name: pair.partner for pair in best_pairing(first, pictures_below(folder)).pairs}


def _crops(paths: Sequence[Path], side: int) -> list[Array]:
    """Crops of all pictures, from the square in which the first two differ most."""
    pictures = [to_rgb8(read_picture(path)) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            (h, w), (y, x) = pictures[0].shape[:2], picture.shape[:2]
            raise DerainError(f"{paths[0]} is {w}x{h} and {path} {x}x{y}; they must be equal.")
    height, width = (min(side, length) for length in pictures[0].shape[:2])
    changes = difference(pictures[0], pictures[1]).astype(np.float64)
    means = cv2.boxFilter(changes, -1, (width, height), anchor=(0, 0))
    places = means[: changes.shape[0] - height + 1, : changes.shape[1] - width + 1]
    top, left = np.unravel_index(int(places.argmax()), places.shape)
    return [picture[top : top + height, left : left + width] for picture in pictures]


def _embedded(pixels: Array) -> str:
    data = encode_picture(Picture(np.ascontiguousarray(pixels)), ".png")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
