"""Several streams of training items, mixed in given shares.

The order in which the sources take turns is fixed: it repeats every `CYCLE` items, in which every source has
exactly its share, spread as evenly as possible. So item i does not depend on earlier ones, and every batch
has the sources in proportion, to within a few items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from derain.data.patches import Item

CYCLE = 1000  # items; shares are rounded to a thousandth


@dataclass(frozen=True)
class Interleaving:
    """Which source provides which item.

    Attributes:
        counts: the number of items from each source in a cycle.
        source: (CYCLE,) the source of each item in a cycle.
        rank: (CYCLE,) how many items from the same source come before it in the cycle.
    """

    counts: NDArray[np.int64]
    source: NDArray[np.int64]
    rank: NDArray[np.int64]

    def __call__(self, index: int) -> tuple[int, int]:
        """The source of item `index`, and the number of the item within that source."""
        cycle, place = divmod(index, CYCLE)
        source = int(self.source[place])
        return source, cycle * int(self.counts[source]) + int(self.rank[place])


def interleave(shares: Sequence[float]) -> Interleaving:
    """The order in which sources of these shares take turns; only the ratios of the shares count.

    Raises:
        ValueError: a share is below a thousandth of their sum.
    """
    exact = np.array(shares, np.float64) / sum(shares) * CYCLE
    if exact.min() < 1:
        raise ValueError("a share is below a thousandth of all")
    counts = np.floor(exact).astype(np.int64)
    largest_rests = np.argsort(counts - exact, kind="stable")
    counts[largest_rests[: CYCLE - counts.sum()]] += 1
    source = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort((rank + 0.5) / counts[source], kind="stable")
    return Interleaving(counts, source[order], rank[order])


class Mixture(Dataset[Item]):
    """Items from several endless streams in fixed shares; each has the number of its stream as `source`."""

    def __init__(self, streams: Sequence[Dataset[Item]], shares: Sequence[float]) -> None:
        self.streams, self.order = list(streams), interleave(shares)

    def __getitem__(self, index: int) -> Item:
        source, number = self.order(index)
        return {**self.streams[source][number], "source": source}
