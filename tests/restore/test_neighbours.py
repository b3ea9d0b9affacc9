"""Frames of a clip corrected by their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import derain
from derain.data.folders import read_rgb
from derain.data.pairing import pair_folders
from derain.errors import DerainError
from derain.evaluation.protocols import matlab_y_uint8
from derain.restore import neighbours
from derain.restore.neighbours import MAX_FRAMES_AHEAD, RADIUS, Following, Seen, corrected

Levels = NDArray[np.uint8]
FRAMES = 7


def scene(seed: int = 0, height: int = 120, width: int = 220) -> Levels:
    """Soft shapes of many sizes, and darker than rain."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 70, (height // size, width // size, 3)), (width, height))
        for size in (3, 8, 20)
    ]
    return np.asarray(np.clip(sum(layers), 0, 200), np.uint8)


def panned(whole: Levels, step: int = 3, width: int = 160, count: int = FRAMES) -> list[Levels]:
    return [np.ascontiguousarray(whole[:, step * t : step * t + width]) for t in range(count)]


def with_streaks(frame: Levels, seed: int) -> Levels:
    wet = frame.copy()
    rng = np.random.default_rng(seed)
    for x, y in zip(rng.integers(5, 150, 8), rng.integers(5, 90, 8), strict=True):
        wet[y : y + 20, x : x + 2] = np.minimum(wet[y : y + 20, x : x + 2].astype(int) + 50, 255)
    return wet


def error(a: Levels, b: Levels) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_rain_that_the_network_left_is_replaced_by_what_the_neighbours_show() -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    result = list(corrected(Seen(frame, frame) for frame in wet))
    for t in range(RADIUS, FRAMES - RADIUS):
        assert error(result[t], truth[t]) < 0.5 * error(wet[t], truth[t])


def test_parts_of_the_scene_that_the_network_took_for_rain_are_given_back() -> None:
    whole = scene()
    railing = whole.copy()
    for x in range(30, 200, 12):
        cv2.line(railing, (x, 20), (x, 100), (230, 230, 230), 2, cv2.LINE_AA)
    truth, without = panned(railing), panned(whole)
    result = list(corrected(Seen(a, b) for a, b in zip(truth, without, strict=True)))
    for t in range(RADIUS, FRAMES - RADIUS):
        assert error(result[t], truth[t]) < 0.2 * error(without[t], truth[t])


def test_rain_that_the_network_took_off_stays_off() -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    result = list(corrected(Seen(a, b) for a, b in zip(wet, truth, strict=True)))
    for t in range(FRAMES):
        assert error(result[t], truth[t]) < 0.1 * error(wet[t], truth[t])


def test_a_bright_thing_that_flies_past_is_kept() -> None:
    frames = panned(scene(), step=0)
    for t, frame in enumerate(frames):
        cv2.circle(frame, (20 + 20 * t, 60), 12, (250, 250, 250), -1)
    result = list(corrected(Seen(frame, frame) for frame in frames))
    for frame, found in zip(frames, result, strict=True):
        assert error(found, frame) < 0.3


def test_large_and_deep_frames_are_corrected_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    plain = list(corrected(Seen(frame, frame) for frame in wet))
    deep = list(corrected(Seen(x, x) for x in (np.uint16(257) * frame for frame in wet)))
    for a, b in zip(plain, deep, strict=True):
        assert b.dtype == np.uint16
        assert np.abs(b / 257 - a).max() <= 1
    monkeypatch.setattr(neighbours, "PIXELS", 120 * 160 // 3)
    reduced = list(corrected(Seen(frame, frame) for frame in wet))
    for t in range(RADIUS, FRAMES - RADIUS):
        assert error(reduced[t], truth[t]) < 0.6 * error(wet[t], truth[t])


@pytest.mark.parametrize("times", [2, 3, 4])
def test_repeats_of_a_frame_are_not_its_neighbours(times: int) -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    once = list(corrected(Seen(rainy, clean) for rainy, clean in zip(wet, truth, strict=True)))
    noise = np.random.default_rng(0)

    def repeated() -> Iterator[Seen]:
        for rainy, clean in zip(wet, truth, strict=True):
            for _ in range(times):
                pixel = noise.integers(0, 2, rainy.shape).astype(np.uint8)  # as from an encoder
                yield Seen(np.minimum(rainy, 250) + pixel, clean)

    result = list(corrected(repeated(), workers=2))
    assert len(result) == times * FRAMES
    for number, frame in enumerate(result):
        t = number // times
        assert error(frame, truth[t]) < 1.2 * error(once[t], truth[t]) + 0.05 * error(wet[t], truth[t])


def test_a_frozen_clip_stays_as_the_network_restored_it() -> None:
    truth = scene()
    wet = with_streaks(truth, 0)
    for frame in corrected(Seen(wet, truth) for _ in range(40)):
        np.testing.assert_array_equal(frame, truth)


@pytest.mark.parametrize("workers", [1, 4])
def test_frames_before_an_error_come_out_before_it(workers: int) -> None:
    frames = [Seen(frame, frame) for frame in panned(scene())]

    def broken() -> Iterator[Seen]:
        yield from frames[:5]
        raise DerainError("a.mp4: damaged.")

    made = []
    with pytest.raises(DerainError, match="damaged"):  # noqa: PT012
        for frame in corrected(broken(), workers):
            made.append(frame)
    assert len(made) == 5


@given(
    count=st.integers(0, 8),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_frames_come_back_in_order_and_between_what_was_seen(
    count: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames = [Seen(*rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)) for _ in range(count)]
    taken = 0

    def given_one_by_one() -> Iterator[Seen]:
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    pairs = zip(frames, corrected(given_one_by_one()), strict=True)
    for number, (frame, result) in enumerate(pairs, 1):
        assert min(number + RADIUS, count) <= taken <= min(number + MAX_FRAMES_AHEAD + 1, count)
        assert result.shape == frame.restored.shape
        assert result.dtype == np.uint8
        assert (result <= np.maximum(frame.rainy, frame.restored)).all()
        if count <= RADIUS:
            np.testing.assert_array_equal(result, frame.restored)


def test_frames_of_a_clip_with_its_truth_gain_more_than_three_decibels(shared: Path) -> None:
    folder = shared / "data" / "clip_with_truth"
    pairs = pair_folders(folder / "rainy", folder / "clean")[:FRAMES]
    rainy, truth = (
        [read_rgb(file)[100:340, 150:490] for file in files]
        for files in ([pair.picture for pair in pairs], [pair.partner for pair in pairs])
    )
    restore = derain.load()
    result = corrected(Seen(frame, restore(frame)) for frame in rainy)
    for frame, found, clean in zip(rainy, result, truth, strict=True):
        assert matlab_y_uint8(found, clean)[0] > matlab_y_uint8(frame, clean)[0] + 3


def followed(frames: list[Seen]) -> list[Levels]:
    following = Following()
    return [following.corrected(frame) for frame in frames]


def test_a_camera_is_corrected_by_the_frames_before() -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    result = followed([Seen(frame, frame) for frame in wet])
    for t in range(RADIUS):
        np.testing.assert_array_equal(result[t], wet[t])  # a single neighbour tells nothing
    for t in range(RADIUS, FRAMES):
        assert error(result[t], truth[t]) < 0.6 * error(wet[t], truth[t])


def test_frames_before_are_those_of_the_clip() -> None:
    """The last frame of a clip has no later ones, so both ways see the same neighbours."""
    wet = [with_streaks(frame, t) for t, frame in enumerate(panned(scene()))]
    frames = [Seen(frame, frame) for frame in wet]
    np.testing.assert_array_equal(followed(frames)[-1], list(corrected(iter(frames)))[-1])


def test_repeats_of_a_camera_do_not_bring_its_rain_back() -> None:
    truth = panned(scene())
    wet = [with_streaks(frame, t) for t, frame in enumerate(truth)]
    once = followed([Seen(a, b) for a, b in zip(wet, truth, strict=True)])
    thrice = followed([Seen(a, b) for a, b in zip(wet, truth, strict=True) for _ in range(3)])
    for t in range(FRAMES):
        for repeat in thrice[3 * t : 3 * t + 3]:
            np.testing.assert_array_equal(repeat, once[t])


def test_a_camera_may_change_its_depth() -> None:
    frames = panned(scene())
    deep = [np.asarray(frame, np.uint16) * 257 for frame in frames]
    result = followed([Seen(frame, frame) for frame in (*frames[:3], *deep[3:])])
    for t in range(3, FRAMES):
        np.testing.assert_array_equal(result[t].dtype, np.uint16)
        assert error(result[t], deep[t]) < 257


def test_a_camera_may_change_the_size_of_its_frames() -> None:
    large, small = panned(scene()), panned(scene(seed=1), width=120)
    wet = [with_streaks(frame, t) for t, frame in enumerate(large)] + small
    result = followed([Seen(frame, frame) for frame in wet])
    assert [frame.shape for frame in result] == [frame.shape for frame in wet]
    np.testing.assert_array_equal(result[FRAMES], small[0])


def test_frames_that_are_too_wide_to_be_moved_stay_as_they_are() -> None:
    frames = [np.full((4, 60_000, 3), 90, np.uint8) for _ in range(FRAMES)]
    for t, frame in enumerate(frames):
        frame[:, 50 * t : 50 * t + 20_000 : 7] = 120
    seen = [Seen(frame, frame) for frame in frames]
    for result in (list(corrected(iter(seen))), followed(seen)):
        for one, frame in zip(result, frames, strict=True):
            np.testing.assert_array_equal(one, frame)
