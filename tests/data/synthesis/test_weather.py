"""Angle, density and brightness of made rain, measured on what was made."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from derain.data.synthesis import PRESETS
from derain.data.synthesis.clips import rain_clip
from derain.data.synthesis.streaks import streak_layer
from derain.data.synthesis.weather import ORDINARY, Weather
from derain.errors import UsageError


def layer(weather: Weather, preset: str = "light", seed: int = 3) -> np.ndarray:
    rain = weather.applied_to(PRESETS[preset])[0]
    return streak_layer(np.random.default_rng(seed), 160, 200, rain.streaks[0])


def lean(pictures: Iterable[np.ndarray], rows: int = 8) -> int:
    """Columns to the right by which the rain of pictures moves over so many rows, by correlation."""
    values = dict.fromkeys(range(-24, 25), 0.0)
    for picture in pictures:
        above, below = picture[:-rows, 30:-30], picture[rows:]
        for shift in values:
            moved = below[:, 30 + shift : below.shape[1] - 30 + shift]
            values[shift] += np.corrcoef(above.ravel(), moved.ravel())[0, 1]
    return max(values, key=lambda shift: values[shift])


@pytest.mark.parametrize("angle", [-50.0, -20.0, 0.0, 35.0])
def test_rain_falls_at_the_angle(angle: float) -> None:
    expected, weather = 8 * np.tan(np.deg2rad(angle)), Weather(angle=(angle, angle))
    assert abs(lean([layer(weather)]) - expected) < 2
    frames = rain_clip(np.zeros((160, 200, 3), np.float32), 4, 3, weather)
    assert abs(lean(frame[..., 0] for frame in frames) - expected) < 2


def test_twice_the_density_and_twice_the_brightness_are_twice_the_light() -> None:

    def light(weather: Weather) -> float:
        return float(np.mean([layer(weather, "heavy", seed).mean() for seed in range(12)]))

    plain = light(ORDINARY)
    assert light(Weather(density=(2, 2))) == pytest.approx(2 * plain, rel=0.15)
    assert light(Weather(brightness=(2, 2))) == pytest.approx(2 * plain, rel=0.01)
    dark = np.zeros((160, 200, 3), np.float32)
    few, many, bright = (
        next(rain_clip(dark, 1, 5, w))
        for w in (ORDINARY, Weather(density=(3, 3)), Weather(brightness=(2, 2)))
    )
    assert 1.3 < many.mean() / few.mean() < 3  # drops hide each other
    assert np.corrcoef(bright.ravel(), few.ravel())[0, 1] > 0.9  # the same drops
    assert 1.5 < bright.mean() / few.mean() < 2.1


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_takes_it_and_nothing_changes_unasked(name: str) -> None:
    assert ORDINARY.applied_to(PRESETS[name]) == PRESETS[name]
    if name in ("drops", "dry"):  # nothing falls there
        for change in ({"angle": (5, 6)}, {"brightness": (1, 9)}):
            with pytest.raises(UsageError, match="has no effect here"):
                Weather(**change).applied_to(PRESETS[name])
        return
    changed = Weather(angle=(5, 6), density=(0.5, 2), brightness=(1, 9)).applied_to(PRESETS[name])
    for rain, before in zip(changed, PRESETS[name], strict=True):
        assert all(ranges.angle == (5, 6) for ranges in (*rain.streaks, *rain.near))
        for ranges, usual in zip(rain.near, before.near, strict=True):
            assert ranges.opacity[1] <= max(1, usual.opacity[1])


def test_more_drops_but_not_more_of_no_rain() -> None:
    drops = Weather(density=(2, 2)).applied_to(PRESETS["drops"])[0].drops
    before = PRESETS["drops"][0].drops
    assert drops is not None
    assert before is not None
    assert drops.density == (2 * before.density[0], 2 * before.density[1])
    with pytest.raises(UsageError, match="density 2: has no effect here, as the preset has no rain"):
        Weather(density=(2, 2)).applied_to(PRESETS["dry"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"angle": (20, 10)}, "angle 20 to 10: give degrees"),
        ({"angle": (0, 90)}, "from -80 to 80"),
        ({"density": (0, 1)}, "density 0 to 1: give numbers above 0"),
        ({"density": (99, 99)}, "up to 10, the smaller first"),
        ({"brightness": (1, float("nan"))}, "brightness 1 to nan"),
    ],
)
def test_impossible_weather(wrong: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Weather(**wrong)
