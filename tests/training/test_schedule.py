"""Rates against the numbers and formulas of the published systems."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from derain.training.schedule import Constant, Cosine, Cyclic, Steps, rate_at


def test_constant() -> None:
    assert [rate_at(Constant(), 0.1, step) for step in (0, 5, 10**6)] == [0.1] * 3


def test_spanet_falls_at_step_30000() -> None:
    schedule = Steps(name="steps", milestones=[30000])
    assert rate_at(schedule, 5e-4, 29999) == 5e-4
    assert rate_at(schedule, 5e-4, 30000) == pytest.approx(5e-5)


def test_drsformer_holds_and_falls(shared: Path) -> None:
    schedule = Cosine(name="cosine", start=92000, length=208000, floor=1e-6)
    published = json.loads((shared / "oracles" / "drsformer" / "tiny_train.json").read_text())
    for iteration, rate in published["learning_rate_at_iteration"]:
        assert rate_at(schedule, 3e-4, iteration - 1) == pytest.approx(rate, rel=1e-9)


def test_nerd_rain_starts_at_zero_and_steps_by_epochs() -> None:
    epochs, length = 600, 1800
    schedule = Cosine(name="cosine", every=length, warmup=3, start=4, length=epochs - 3, floor=1e-6)
    for epoch in (1, 2, 3, 4, 5, 6, 300, 600):
        k = epoch - 1
        wanted = (
            1e-4 * k / 3 if k <= 3 else 1e-6 + 99e-6 * (1 + math.cos(math.pi * (k - 4) / (epochs - 3))) / 2
        )
        for step in ((epoch - 1) * length, epoch * length - 1):
            assert rate_at(schedule, 1e-4, step) == pytest.approx(wanted, rel=1e-12)


def test_udr_s2former_goes_up_and_down() -> None:
    schedule = Cyclic(name="cyclic", every=10, up=400, down=400)
    rates = [rate_at(schedule, 7e-4, epoch * 10 + 9) for epoch in (0, 200, 400, 600, 800)]
    assert rates == pytest.approx([7e-4, 7.7e-4, 8.4e-4, 7.7e-4, 7e-4])
