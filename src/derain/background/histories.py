"""Sorting and counting the histories of many pixels at once.

A tile holds T planes, one per frame; a column across the planes is the history of one sample. Every
step below works on whole planes, so that it uses vector instructions, and tiles are small enough for
their planes to stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Ranks = NDArray[np.uint8] | NDArray[np.uint16]

MAX_FRAMES = 65_535


def sort_histories(planes: list[Plane]) -> list[Plane]:
    """Sorts every history in ascending order, in place.

    Batcher's odd-even merge sort (1968): a fixed sequence of compare-exchange steps, T log^2(T) / 4
    of them, each of which takes a minimum and a maximum of two whole planes.

    Args:
        planes: T arrays of one shape, T >= 1; their content is overwritten.

    Returns:
        The T planes of the smallest values, the second smallest, ..., the largest.
    """
    planes, spare = list(planes), np.empty_like(planes[0])
    for low, high in _exchanges(len(planes)):
        first, second = planes[low], planes[high]
        np.minimum(first, second, out=spare)
        np.maximum(first, second, out=second)
        planes[low], spare = spare, first
    return planes


def _exchanges(count: int) -> Iterator[tuple[int, int]]:
    """The (low, high) positions that odd-even merge sort compares, in order, for any count."""
    run = 1
    while run < count:
        step = run
        while step:
            for start in range(step % run, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * run) == (low + step) // (2 * run):
                        yield low, low + step
            step //= 2
        run *= 2


@dataclass(frozen=True)
class Modes:
    """The most frequent value of every history, the smallest one on ties.

    Attributes:
        value: the mode, uint8.
        first, last: the ranks, from 0, that it occupies in the sorted history.
    """

    value: Plane
    first: Ranks
    last: Ranks


def modes(ordered: list[Plane]) -> Modes:
    """The modes of sorted histories (at most `MAX_FRAMES` planes of one length each)."""
    # Ranks only grow along the scan, so a masked assignment is a product with the condition and a maximum.
    kind = np.uint8 if len(ordered) <= 256 else np.uint16
    start, last, longest, run, rank = np.zeros((5, ordered[0].size), kind)
    condition = np.empty(ordered[0].size, bool)
    for position in range(1, len(ordered)):
        here = kind(position)
        np.not_equal(ordered[position], ordered[position - 1], out=condition)
        np.maximum(start, np.multiply(condition, here, out=rank), out=start)
        np.subtract(here, start, out=run)  # length of the run of equal values so far, minus one
        np.greater(run, longest, out=condition)
        np.maximum(longest, run, out=longest)
        np.maximum(last, np.multiply(condition, here, out=rank), out=last)
    value = np.empty_like(ordered[0])
    for position in np.unique(last):
        np.copyto(value, ordered[position], where=last == position)
    return Modes(value, last - longest, last)
