"""The threshold that weights state: how it is measured, and read from facts of any kind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain.checkpoints.rain_threshold import FACT, calibration, threshold_of
from derain.errors import DerainError


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=20, max_size=60), st.sampled_from([0.05, 0.1, 0.25]))
def test_a_threshold_has_the_false_alarms_that_were_asked_for(dry: list[float], rate: float) -> None:
    fact = calibration(dry, rate)
    assert fact["alarms"] <= rate * len(dry)
    assert fact["alarms"] == sum(signal > fact["threshold"] for signal in dry)
    lower = [signal for signal in dry if signal < fact["threshold"]]
    if lower:  # the next lower threshold would have too many
        assert sum(signal > max(lower) for signal in dry) > rate * len(dry)


def test_too_few_dry_pictures_tell_no_rate() -> None:
    with pytest.raises(DerainError, match="19 dry pictures are too few"):
        calibration([0.1] * 19, 0.05)


def test_facts_that_are_no_threshold() -> None:
    assert threshold_of({}) is None
    assert threshold_of({FACT: "much"}) is None
    assert threshold_of({FACT: {"threshold": "much"}}) is None
    assert threshold_of({FACT: {"threshold": 1}}) == 1.0
