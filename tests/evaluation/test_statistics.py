"""Intervals: as wide as they should be, and around the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from derain.evaluation import statistics
from derain.evaluation.statistics import bootstrap_interval


def test_width_is_that_of_the_normal_theory() -> None:
    random = np.random.default_rng(1)
    widths = []
    for _ in range(20):
        low, high = bootstrap_interval(random.normal(30, 3, 100))
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 3 / math.sqrt(100), rel=0.06)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_covers_the_truth_as_often_as_it_says(draw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 sets of 50 pictures, within what chance allows; percentiles of so few run about 1 % short."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        values = random.normal(1, 1, 50) if draw == "normal" else random.uniform(0, 2, 50)
        low, high = bootstrap_interval(values)
        covered += low <= 1 <= high
    assert 0.89 <= covered / 300 <= 0.98


def test_pictures_of_one_scene_are_no_news() -> None:
    values = np.random.default_rng(3).normal(30, 3, 40)
    low, high = bootstrap_interval(values)
    twice, scenes = np.repeat(values, 2), np.repeat(np.arange(40), 2)
    assert bootstrap_interval(twice, scenes) == pytest.approx((low, high), abs=1e-9)
    naive = bootstrap_interval(twice)
    assert naive[1] - naive[0] < 0.8 * (high - low)


def test_says_nothing_where_nothing_can_be_said() -> None:
    assert bootstrap_interval([1, 2, 3, 4]) is None
    assert bootstrap_interval([1, 2, 3, 4, 5], scenes=[0, 0, 1, 2, 3]) is None
    assert bootstrap_interval([1, 2, 3, 4, math.inf]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([3.0] * 9) == (3, 3)
