"""Shares of a mixture are exact, evenly spread, and items do not depend on what was read before."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.data.mixtures import CYCLE, interleave

SHARES = st.lists(st.floats(0.02, 1), min_size=1, max_size=6)


@given(SHARES)
def test_every_source_has_its_share_of_a_cycle_and_of_any_batch(shares: list[float]) -> None:
    order = interleave(shares)
    wanted = np.array(shares) / sum(shares)
    assert order.counts.sum() == CYCLE
    assert np.abs(order.counts - wanted * CYCLE).max() < 1
    for first, size in ((0, 8), (3, 8), (CYCLE - 5, 16), (70, 100)):
        seen = Counter(order(i)[0] for i in range(first, first + size))
        for source, share in enumerate(order.counts / CYCLE):
            assert abs(seen[source] - share * size) <= 3


@given(SHARES, st.integers(0, 10**9))
def test_numbers_within_a_source_follow_each_other(shares: list[float], cycle: int) -> None:
    order = interleave(shares)
    items = [order(cycle * CYCLE + place) for place in range(CYCLE)]
    for source, count in enumerate(order.counts):
        numbers = [number for found, number in items if found == source]
        assert numbers == list(range(cycle * count, (cycle + 1) * count))


def test_sources_take_turns() -> None:
    assert [interleave([5, 3, 2])(i)[0] for i in range(10)] == [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]


def test_a_share_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="below a thousandth"):
        interleave([1, 0.0001])
