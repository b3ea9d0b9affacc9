"""Live frames: the newest first, a file at its own pace, a source that comes back, an hour without growth."""

from __future__ import annotations

import contextlib
import gc
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from clips import content, moving_scene, write_clip
from derain.errors import DerainError
from derain.methods import all_architectures
from derain.pictures.streams import FrameWriter, open_file
from derain.pictures.video import Frame
from derain.restore import Derainer
from derain.restore.live import Live, LiveSource, LiveStream, source_of


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = list(moving_scene(12, 48, 64))
    return write_clip(tmp_path_factory.mktemp("clip") / "rain.mp4", frames, rate=Fraction(25))


class Clock:
    """Time that passes only while somebody waits; a waiting reader lets the loop take the newest frame."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()
        self._taken = threading.Semaphore(0)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self._taken.acquire()
        self.now += seconds
        self.waits.append(seconds)

    def taken(self) -> None:
        self._taken.release()


def through(rainy: Tensor, bits: int) -> Tensor:
    assert bits == 8
    return rainy


def test_a_file_comes_at_its_own_pace(clip: Path) -> None:
    clock = Clock()
    live = Live(source_of(str(clip)), through, clock=clock, wait=clock.wait)
    times = []
    for shown in live:
        times.append(shown.frame.pts)
        clock.taken()
    assert times == [40 * number for number in range(12)]
    assert clock.waits == pytest.approx([0.04] * 11)
    figures = live.figures()
    assert (figures.frames, figures.dropped, figures.reconnects) == (12, 0, 0)


def test_what_finishes_a_frame_gets_the_rainy_and_the_corrected_one(clip: Path) -> None:
    def darker(rainy: Tensor, _: int) -> Tensor:
        return rainy * 0.5

    def half_way(rainy: Tensor, image: Tensor) -> Tensor:
        seen.append(float(image.mean() / rainy.mean()))
        return (rainy + image) / 2

    seen = list[float]()
    clock = Clock()
    live = Live(
        source_of(str(clip)), darker, frame_by_frame=True, finish=half_way, clock=clock, wait=clock.wait
    )
    for shown in live:
        assert shown.frame.pixels.mean() / 255 == pytest.approx(0.75 * float(shown.rainy.mean()), abs=0.01)
        clock.taken()
    assert seen == pytest.approx([0.5] * 12, abs=0.01)


def test_frames_that_come_meanwhile_are_dropped_and_counted(clip: Path) -> None:
    passed = threading.Event()

    class Stream:
        """The clip's frames, of which all but the first come while the first is in work."""

        def __init__(self, stream: LiveStream) -> None:
            self.facts, self.rgb, self.damaged, self._stream = stream.facts, stream.rgb, False, stream

        def decoded(self) -> Iterator[object]:
            yield from self._stream.decoded()
            passed.set()

    @contextlib.contextmanager
    def opened() -> Iterator[LiveStream]:
        with open_file(clip) as stream:
            yield Stream(stream)

    live = Live(LiveSource("camera", opened, ends=True), through)
    count = 0
    for _ in live:
        assert passed.wait(60)
        count += 1
    figures = live.figures()
    assert figures.frames == count
    assert figures.frames + figures.dropped == 12
    assert 1 <= count <= 2 + 1
    assert live.figures().frames == 0  # each report is told once


def test_a_source_that_goes_is_tried_again_and_one_that_never_was_is_an_error(clip: Path) -> None:
    told, waits, opened = list[str](), list[float](), 0

    @contextlib.contextmanager
    def open_it() -> Iterator[LiveStream]:
        nonlocal opened
        opened += 1
        if opened in (2, 3):
            raise DerainError("garden: no route to host.")
        with open_file(clip) as stream:
            yield stream

    live = Live(LiveSource("garden", open_it), through, on_message=told.append, wait=waits.append)
    for _ in live:
        if opened >= 4:
            break
    assert waits[:3] == [1, 2, 4]
    assert told[:4] == [
        "garden: no more frames; trying again in 1 s.",
        "garden: no route to host; trying again in 2 s.",
        "garden: no route to host; trying again in 4 s.",
        "garden: back again.",
    ]
    assert live.figures().reconnects >= 1
    opened = 1
    with pytest.raises(DerainError, match="no route to host"):
        next(iter(Live(LiveSource("garden", open_it), through, wait=waits.append)))


def test_what_was_turned_is_written_upright(tmp_path: Path) -> None:
    turned = write_clip(tmp_path / "turned.mp4", list(moving_scene(3, 48, 64)), rotation=90)
    with open_file(turned) as stream, FrameWriter(tmp_path / "dry.mkv", "mkv", stream.facts) as writer:
        shown = [frame.pixels for frame in stream]
        for number, pixels in enumerate(shown):
            writer.write(Frame(pixels, 1000 * number, 0))
    assert shown[0].shape == (64, 48, 3)
    written = content(tmp_path / "dry.mkv")
    assert (written.rotation, written.frames[0].shape) == (0, (64, 48, 3))
    for before, after in zip(shown, written.frames, strict=True):
        assert abs(after.astype(int) - before).mean() < 4


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_was_recorded_can_be_played_while_it_grows(tmp_path: Path, clip: Path, suffix: str) -> None:
    growing, found = tmp_path / f"grows{suffix}", tmp_path / f"found{suffix}"
    with open_file(clip) as stream, FrameWriter(growing, suffix, stream.facts) as writer:
        first = next(iter(stream))
        second = round(1 / stream.facts.time_base)
        for number in range(33):  # 8 per second; x264 puts 250 frames between key frames
            writer.write(replace(first, pts=number * second // 8))
        shutil.copy(growing, found)  # what a power cut would leave
    assert len(content(found).frames) >= 33 - 9
    assert len(content(growing).frames) == 33


@pytest.mark.parametrize("address", ["concat:a|b", "file:///etc/passwd", "gopher://a/b", "data://text"])
def test_only_what_the_user_names_is_opened(address: str) -> None:
    with pytest.raises(DerainError):
        next(iter(Live(source_of(address), through)))


def test_a_playlist_leads_nowhere(tmp_path: Path, clip: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(DerainError, match="not a readable video"):
        next(iter(Live(source_of(str(playlist)), through)))


def test_passwords_are_not_shown() -> None:
    assert source_of("rtsp://guard:secret@camera:554/a?key=secret").name == "rtsp://camera:554/a"


@pytest.mark.heavy
def test_an_hour_of_a_camera_that_comes_and_goes_takes_no_more_memory(
    tmp_path: Path,
) -> None:
    """25 frames per second in time that passes as fast as they are restored; it goes every ten seconds."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    architecture = next(a for a in all_architectures() if a.name == "everyday")
    restore = Derainer(architecture.build(**architecture.tiny))
    scene = write_clip(tmp_path / "ten.mp4", list(moving_scene(250, 48, 64)), rate=Fraction(25))
    clock = Clock()

    def wait(seconds: float) -> None:
        clock.wait(seconds)
        clock.waits.clear()  # 80,000 of them would count as growth

    source = LiveSource("camera", lambda: open_file(scene), paced=True)
    live = Live(source, lambda rainy, bits: restore.restore(rainy).image, clock=clock, wait=wait)
    process, sizes = psutil.Process(), list[int]()
    total = dropped = reconnects = 0
    for shown in live:
        if shown.frame.pts >= 3_600_000:
            break
        clock.taken()
        if shown.frame.pts // 60_000 >= len(sizes):  # once a minute
            figures = live.figures()
            total, dropped = total + figures.frames, dropped + figures.dropped
            reconnects += figures.reconnects
            gc.collect()
            sizes.append(process.memory_info().rss)
    assert len(sizes) == 60
    assert total + dropped > 80_000
    assert reconnects > 300
    growth = (max(sizes[-10:]) - max(sizes[5:15])) / 2**20
    print(f"{total} frames, {dropped} dropped, {reconnects} reconnects, growth {growth:.2f} MB")
    assert growth < 2
