from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from background.test_clean_frame import rainy_clip
from derain.background import clean_frame
from derain.background.clip import open_clip
from derain.background.report import facts, refuse_movement, warnings
from derain.errors import DerainError


def test_a_still_camera_gives_no_warning() -> None:
    result = clean_frame(rainy_clip(40, 96, 128, coverage=0.15)[0])
    assert result.stability.drift < 0.02
    assert result.stability.shift < 0.35
    assert warnings(result) == []


@pytest.mark.parametrize("drift", [0.1, 0.2])
def test_a_drifting_exposure_is_measured(drift: float) -> None:
    clip, _ = rainy_clip(60, 96, 128, coverage=0.15)
    gains = np.linspace(1 - drift / 2, 1 + drift / 2, 60)[:, None, None, None]
    result = clean_frame((clip * gains).clip(0, 255).astype(np.uint8))
    assert 0.5 * drift < result.stability.drift < 1.3 * drift
    assert any("drifts" in warning for warning in warnings(result))


def test_a_clip_that_begins_black() -> None:
    clip, _ = rainy_clip(30, 96, 128, coverage=0.15)
    clip[:5] = 0
    result = clean_frame(clip)
    assert any("drifts" in warning for warning in warnings(result))
    assert np.isfinite(facts(result)["brightness_drift"])


def test_a_moved_camera_is_measured() -> None:
    clip, _ = rainy_clip(60, 96, 128, coverage=0.15)
    moved = np.concatenate([clip[:30], np.roll(clip[30:], 3, axis=2)])
    result = clean_frame(moved)
    assert result.stability.shift == pytest.approx(3, abs=0.5)
    assert any("moves" in warning for warning in warnings(result))


@pytest.mark.parametrize(
    ("columns", "is_still"),
    [([0] * 30, True), ([0] * 24 + [6] * 6, True), (range(30), False), (range(0, 240, 8), False)],
)
def test_a_camera_that_moves_most_of_the_time_is_refused(columns: Sequence[int], is_still: bool) -> None:
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 200, (12, 30, 3)).astype(np.uint8), (360, 120))
    views = np.stack([scene[:, column : column + 120] for column in columns])
    result = clean_frame(np.where(rng.random((30, 120, 120, 1)) < 0.15, 230, views).astype(np.uint8))
    if is_still:
        refuse_movement("clip.mp4", result)
    else:
        with pytest.raises(DerainError, match=r"clip\.mp4: there is no background to find, as the camera"):
            refuse_movement("clip.mp4", result)


def test_rain_is_no_movement_of_the_camera(shared: Path) -> None:
    clip = open_clip(shared / "data" / "static_clips" / "street.mp4", 12)
    refuse_movement("street.mp4", clean_frame(clip.frames()))


def test_noise_is_no_movement() -> None:
    noise = np.random.default_rng(0).normal(120, 3, (30, 160, 160, 3))
    refuse_movement("clip.mp4", clean_frame(noise.astype(np.uint8)))


def test_the_report_holds_what_was_found() -> None:
    result = clean_frame(rainy_clip(12, 24, 32)[0])
    found = facts(result)
    assert found["frames"] == 12
    assert found["votes"][found["percentile"]] == max(found["votes"])
    assert found["runner_up"] != found["percentile"]
    assert "only 12 frames" in found["warnings"][0]
