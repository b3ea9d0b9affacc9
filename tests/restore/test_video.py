import itertools
import re
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clips import content, moving_scene, write_clip
from derain.errors import DerainError, UsageError
from derain.locks import exclusive_lock
from derain.restore import VideoOptions, video
from derain.restore.prefetch import mapped, prefetch
from derain.restore.video import restore_video


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SEGMENT", 8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.mkv", list(moving_scene(30, 32, 48)), audio="aac")


class Breaking:
    """Darkens; stops after some frames, as a power cut would."""

    def __init__(self, limit: int | None = None) -> None:
        self.seen, self.limit = 0, limit

    def __call__(self, rainy: Tensor) -> Tensor:
        if self.limit is not None and self.seen + len(rainy) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(rainy)
        return rainy * 0.5


def test_a_frame_that_is_not_finite_is_an_error_and_not_a_black_frame(source: Path, tmp_path: Path) -> None:
    def broken(rainy: Tensor) -> Tensor:
        return rainy / 0 * 0

    with pytest.raises(DerainError, match="not finite"):
        restore_video(source, tmp_path / "out.mkv", broken)
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        (VideoOptions(frame_by_frame=True), 0),
        (VideoOptions(frame_by_frame=True, temporal=True), 2),
        (VideoOptions(), 2),
        (VideoOptions(temporal=True), 4),
    ],
)
def test_an_interrupted_run_goes_on_from_its_last_segment(
    source: Path, tmp_path: Path, options: VideoOptions, reach: int
) -> None:
    # A lossless codec: the H.264 encoder does not give the same bytes for the same frames twice.
    lossless = replace(options, codec="ffv1")
    whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    restore_video(source, whole, Breaking(), lossless)
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, target, Breaking(21 + reach), lossless)
    assert not target.exists()
    network = Breaking()
    result = restore_video(source, target, network, replace(lossless, resume=True))
    assert (result.frames, result.resumed) == (30, 16)
    assert network.seen == 14 + reach
    resumed, straight = content(target), content(whole)
    np.testing.assert_array_equal(np.stack(resumed.frames), np.stack(straight.frames))
    assert resumed.times == straight.times
    assert resumed.packets == content(source).packets
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_network_does_not_go_on_with_the_parts(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, target, Breaking(20), identity="spanet")
    with pytest.raises(UsageError, match="a different source, network or options"):
        restore_video(source, target, Breaking(), VideoOptions(resume=True), identity="drsformer")
    result = restore_video(source, target, Breaking(), identity="drsformer")
    assert (result.frames, result.resumed) == (30, 0)


def test_nothing_stays_of_a_run_that_finished_no_segment(source: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "out.mkv", Breaking(3))
    assert set(tmp_path.iterdir()) == before


def test_frames_reach_the_network_upright_and_in_full_depth(tmp_path: Path) -> None:
    scene = list(moving_scene(3, 64, 96))
    turned = write_clip(tmp_path / "t.mp4", scene, rotation=90)
    shapes: list[tuple[int, ...]] = []

    def look(rainy: Tensor) -> Tensor:
        shapes.append(tuple(rainy.shape))
        assert rainy.dtype == torch.float32
        upright = torch.from_numpy(np.rot90(scene[0]).copy()).permute(2, 0, 1) / 255
        if len(shapes) == 1:
            assert (rainy[0] - upright).abs().mean() < 0.02
        return rainy

    restore_video(turned, tmp_path / "o.mp4", look, batch=2)
    assert shapes == [(2, 3, 96, 64), (1, 3, 96, 64)]

    options = {"x265-params": "log-level=none"}
    deep = write_clip(tmp_path / "d.mp4", scene, codec="libx265", pixel_format="yuv420p10le", options=options)
    levels: list[float] = []

    def count(rainy: Tensor) -> Tensor:
        levels.append(len(torch.unique((rainy * 65535).round())))
        return rainy

    restore_video(deep, tmp_path / "o2.mp4", count)
    assert min(levels) > 256


def test_progress_counts_finished_frames(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    restore_video(source, tmp_path / "o.mkv", Breaking(), progress=lambda *step: steps.append(step))
    assert [done for done, _ in steps] == list(range(1, 31))
    assert steps[-1][1] == 30


def test_the_source_is_not_overwritten(source: Path) -> None:
    with pytest.raises(UsageError, match="source itself"):
        restore_video(source, source, Breaking())


def test_two_runs_do_not_write_the_same_video(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.mkv"
    with (
        exclusive_lock(target),
        pytest.raises(DerainError, match=r"o\.mkv: is being written by process \d+ on"),
    ):
        restore_video(source, target, Breaking())
    assert restore_video(source, target, Breaking()).frames == 30
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_error_of_the_network_comes_through(source: Path, tmp_path: Path) -> None:
    def fail(_rainy: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        restore_video(source, tmp_path / "o.mkv", fail)
    assert threading.active_count() < 20


def test_a_failed_run_names_its_finished_parts(source: Path, tmp_path: Path) -> None:
    def fail(rainy: Tensor) -> Tensor:
        if seen := [*tmp_path.glob(".o.mkv.segments/*.npz")]:
            raise DerainError(f"a.mkv: the disk is full after {len(seen)} parts.")
        return rainy

    with pytest.raises(DerainError) as failed:
        restore_video(source, tmp_path / "o.mkv", fail)
    parts = tmp_path / ".o.mkv.segments"
    assert str(failed.value).endswith(f"To go on from the finished parts in {parts}, set resume=True.")
    assert restore_video(source, tmp_path / "o.mkv", Breaking(), VideoOptions(resume=True)).resumed > 0
    assert not parts.exists()


def test_stages_work_ahead_and_stop_when_asked() -> None:
    made: list[int] = []
    closed = threading.Event()

    def numbers() -> Any:
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    items = prefetch(numbers(), depth=2)
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert closed.wait(5)
    assert len(made) < 10
    assert list(prefetch(iter(range(50)))) == list(range(50))


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_length() -> None:
    """1,000 frames of 1280x720; the benchmark prints resident memory every 100 frames."""
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "benchmarks" / "video.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    sizes = [int(size) for size in re.findall(r'"\d+": (\d+)', done.stdout)]
    assert len(sizes) == 10
    assert sum(sizes[5:]) < 1.2 * sum(sizes[:5])


def test_a_stage_that_is_closed_ends_the_stages_before_it() -> None:
    def collecting() -> Iterator[int]:
        numbers = prefetch(itertools.count())
        yield next(numbers)
        yield sum(numbers)  # for ever, unless they end

    last = prefetch(collecting())
    assert next(last) == 0
    last.close()


def test_frames_restored_at_once_are_those_one_by_one(source: Path, tmp_path: Path) -> None:
    lossless, together = VideoOptions(codec="ffv1"), threading.Barrier(3)

    def in_threes(rainy: Tensor) -> Tensor:
        together.wait(30)
        return rainy * 0.5

    restore_video(source, tmp_path / "one.mkv", Breaking(), lossless)
    restore_video(source, tmp_path / "three.mkv", in_threes, lossless, passes=3)
    one, three = (content(tmp_path / f"{name}.mkv").frames for name in ("one", "three"))
    assert np.array_equal(one, three)


def test_frames_before_an_error_are_made_when_several_are_at_work() -> None:
    def numbers() -> Generator[int]:
        yield from range(5)
        raise OSError("cut off")

    made = mapped(lambda number: number**2, numbers(), at_once=3)
    assert [next(made) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(OSError, match="cut off"):
        next(made)


def test_a_frame_that_is_done_does_not_wait_for_as_many_as_are_made_at_once() -> None:
    was_made, given = threading.Semaphore(0), list[int]()

    def numbers() -> Generator[int]:
        for number in range(8):
            given.append(number)
            yield number
            assert was_made.acquire(timeout=30)

    def square(number: int) -> int:
        was_made.release()
        return number**2

    made = mapped(square, numbers(), at_once=8)
    assert next(made) == 0
    assert len(given) < 8
    made.close()
