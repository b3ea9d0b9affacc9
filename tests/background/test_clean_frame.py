import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from background import plain
from derain.background import clean_frame, frame_store
from derain.background.frame_store import FrameStore
from derain.errors import DerainError

FOUR = st.sampled_from([0, 3, 120, 250])
CLIPS = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 5), st.integers(1, 9), st.just(3)),
    elements=st.one_of(FOUR, st.integers(0, 255)),
)


def rainy_clip(
    frames: int, height: int, width: int, level: float = 120, coverage: float = 0.25, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A textured still scene with bright streaks and sensor noise, and the scene."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(0, 60, (height, width)), (0, 0), 1.5)
    scene = np.clip(level + texture[..., None] + np.array([0, 8, -8]), 0, 255).astype(np.uint8)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for frame in clip:
        drops = rng.random((height + 12, width)) < coverage / 12
        rain = np.any([drops[k : k + height] for k in range(12)], axis=0)
        strength = np.where(rain, rng.uniform(0.3, 0.8, (height, width)), 0)[..., None]
        lit = scene + strength * (235.0 - scene) + rng.normal(0, 1.2, scene.shape)
        frame[:] = np.clip(np.round(lit), 0, 255)
    return clip, scene


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


@settings(max_examples=60)
@given(CLIPS, st.sampled_from(["fixed", "official"]), st.integers(1, 40))
def test_equals_the_definition_for_any_clip_and_tile(clip: Any, variant: Any, tile: int) -> None:
    picture, votes = plain.clean_frame(clip, variant)
    result = clean_frame(clip, variant, tile=tile)
    np.testing.assert_array_equal(result.votes, votes)
    np.testing.assert_array_equal(result.picture, picture)


@pytest.mark.parametrize("frames", [255, 256, 257, 400])
def test_counters_do_not_overflow(frames: int) -> None:
    clip = np.random.default_rng(0).integers(0, 4, (frames, 3, 5, 3), dtype=np.uint8)
    picture, votes = plain.clean_frame(clip, "fixed")
    result = clean_frame(clip)
    np.testing.assert_array_equal(result.votes, votes)
    np.testing.assert_array_equal(result.picture, picture)
    np.testing.assert_array_equal(clean_frame(clip * 0).confidence, 100)


def test_one_frame_is_its_own_background() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
    result = clean_frame(frame)
    np.testing.assert_array_equal(result.picture, frame[0])
    assert result.percentile == 0


def test_better_than_median_minimum_and_the_published_method_in_heavy_rain() -> None:
    clip, scene = rainy_clip(90, 64, 96, level=95)
    fixed = psnr(clean_frame(clip).picture, scene)
    assert fixed > psnr(clean_frame(clip, "official").picture, scene) + 3
    assert fixed > psnr(np.median(clip, axis=0), scene) + 3
    assert fixed > psnr(clip.min(0), scene) + 10


def test_confidence_is_the_share_of_frames_that_show_the_result() -> None:
    clip, _ = rainy_clip(40, 24, 32, coverage=0.2)
    result = clean_frame(clip)
    near = (np.abs(clip.astype(int) - result.picture) <= 4).mean(0).min(-1)
    np.testing.assert_array_equal(result.confidence, np.floor(100 * near + 1e-9))
    np.testing.assert_array_equal(
        result.disagreement,
        np.abs(np.median(clip, axis=0).astype(np.uint8).astype(int) - result.picture).max(-1),
    )


def test_something_that_stands_there_for_a_while_is_pointed_out() -> None:
    clip, _ = rainy_clip(60, 64, 96, coverage=0.1)
    assert clean_frame(clip).two_states.mean() < 0.005
    clip[:24, 20:40, 30:50] = [20, 60, 200]
    found = clean_frame(clip).two_states
    assert found[20:40, 30:50].mean() > 0.9
    assert found.mean() < 0.1


def test_a_scratch_file_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, _ = rainy_clip(30, 24, 32)
    in_memory = clean_frame(clip)
    monkeypatch.setattr(frame_store, "IN_MEMORY", 1000)
    on_disk = clean_frame(clip, scratch=tmp_path)
    np.testing.assert_array_equal(on_disk.picture, in_memory.picture)
    np.testing.assert_array_equal(on_disk.votes, in_memory.votes)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_read_once_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_store, "IN_MEMORY", 1 << 20)
    frame = rainy_clip(1, 120, 160)[0][0]

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(300):
            yield np.roll(frame, number % 5, axis=0)

    tracemalloc.start()
    with FrameStore(frames(), tmp_path) as store:
        _, peak = tracemalloc.get_traced_memory()
        assert store.frames == 300
    tracemalloc.stop()
    assert peak < 4 << 20  # of 17 MB


def test_frames_that_cannot_be_used_are_named() -> None:
    with pytest.raises(DerainError, match="no frame"):
        clean_frame([])
    small, large = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 4, 5, 3), np.uint8)
    with pytest.raises(DerainError, match="frame 3 is 5x4, the first is 4x4"):
        clean_frame([*small, *large])


def test_progress_reaches_its_end() -> None:
    steps: list[tuple[int, int]] = []
    clean_frame(rainy_clip(5, 24, 32)[0], tile=100, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (2 * 24 * 32, 2 * 24 * 32)
    assert steps == sorted(steps)


@pytest.mark.heavy
def test_300_frames_of_4k_stay_below_2_gb() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "clean_frame.py"
    done = subprocess.run([sys.executable, script, "--memory"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["peak_bytes"] < 2e9
