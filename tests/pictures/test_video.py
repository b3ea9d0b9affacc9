from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import content, moving_scene, write_clip
from derain.errors import DerainError, UsageError
from derain.pictures.video import VideoReader
from derain.pictures.video_encoding import VideoEncoder, choose_encoding
from derain.pictures.video_facts import video_facts
from derain.pictures.video_writing import decode_times
from derain.restore import VideoOptions
from derain.restore.video import restore_video

GAPS = st.lists(st.integers(1, 90), min_size=2, max_size=40)


@given(GAPS, st.integers(-50, 50), st.randoms(use_true_random=False))
def test_decoding_times_rise_and_come_before_showing(gaps: list[int], first: int, random: object) -> None:
    shown = [first + time for time in accumulate(gaps)]
    # Any order in which each frame is coded at most three places early.
    coding = sorted(range(len(shown)), key=lambda k: k + 3 * random.random())  # type: ignore[attr-defined]
    times = np.array([shown[k] for k in coding])
    decoded = decode_times(times)
    assert (np.diff(decoded) > 0).all()
    assert (decoded <= times).all()


def test_the_facts_of_a_clip(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "a.mp4", list(moving_scene(6, 32, 48)), rate=Fraction(30000, 1001), rotation=90
    )
    facts = video_facts(clip)
    assert (facts.width, facts.height, facts.turns, facts.bits) == (48, 32, 1, 8)
    assert (facts.rate, facts.packets, facts.expected_frames) == (Fraction(30000, 1001), 6, 6)
    assert facts.duration == pytest.approx(6 * 1001 / 30000, abs=0.001)
    frames = list(VideoReader(facts))
    assert [frame.pixels.shape for frame in frames] == [(48, 32, 3)] * 6
    assert [frame.pts * facts.time_base for frame in frames] == [k * Fraction(1001, 30000) for k in range(6)]
    assert len(list(VideoReader(facts, skip=4))) == 2


def test_places_without_a_frame_in_avi_do_not_count_for_its_rate(tmp_path: Path) -> None:
    """`ffmpeg -c copy` leaves every other place empty where frames were reordered."""
    clip = write_clip(
        tmp_path / "a.avi",
        list(moving_scene(24, 48, 64)),
        rate=Fraction(8),
        time_base=Fraction(1, 16),
        times=range(0, 48, 2),
    )
    facts, eighths = video_facts(clip), [k / 8 for k in range(24)]
    assert (facts.rate, facts.expected_frames) == (8, 24)
    assert [float(frame.pts * facts.time_base) for frame in VideoReader(facts)] == eighths
    for suffix in (".mkv", ".avi"):
        copy = tmp_path / f"b{suffix}"
        restore_video(clip, copy, lambda rainy: rainy, VideoOptions(frame_by_frame=True))
        assert (content(copy).rate, content(copy).times) == (8, eighths)


@pytest.mark.parametrize("colour", [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_colours_are_read_by_the_matrix_and_range_of_the_file(
    tmp_path: Path, colour: tuple[int, int]
) -> None:
    patch = np.empty((32, 48, 3), np.uint8)
    patch[:] = [200, 60, 30]
    clip = write_clip(tmp_path / "a.mp4", [patch] * 2, colour=colour, options={"crf": "1"})
    (pixels, _) = (frame.pixels for frame in VideoReader(video_facts(clip)))
    np.testing.assert_allclose(pixels, np.broadcast_to(patch, pixels.shape), atol=3)


def test_frames_survive_the_way_to_rgb_and_back(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", list(moving_scene(4, 32, 48)))
    options = VideoOptions(codec="ffv1", frame_by_frame=True)
    restore_video(source, tmp_path / "b.mkv", lambda rainy: rainy, options)
    before, after = content(source), content(tmp_path / "b.mkv")
    assert after.pixel_format == "yuv420p"
    difference = np.abs(np.stack(before.frames).astype(int) - np.stack(after.frames))
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("width", [16, 48, 100])
def test_narrow_frames_are_encoded_alike_every_time(tmp_path: Path, codec: str, width: int) -> None:
    facts = video_facts(write_clip(tmp_path / "a.mp4", list(moving_scene(5, 64, width))))
    frames = list(VideoReader(facts))
    rng, encoded = np.random.default_rng(0), set()
    for _ in range(8):
        # Memory that differs from time to time is what an encoder must not read.
        left_behind = [rng.bytes(int(size)) for size in rng.integers(10, 300_000, 50)]
        encoder = VideoEncoder(facts, choose_encoding(facts, tmp_path / "b.mp4", codec, None))
        packets = [packet for frame in frames for packet in encoder.encode(frame)] + encoder.finish()
        encoded.add(b"".join(packet.data for packet in packets))
        del left_behind
    assert len(encoded) == 1


@pytest.mark.parametrize(
    ("target", "codec", "crf", "message"),
    [
        ("a.txt", None, None, "videos are written as"),
        ("a.mp4", "h266", None, "Did you mean"),
        ("a.webm", "h264", None, "use vp9"),
        ("a.mkv", "ffv1", 20, "no CRF"),
        ("a.mp4", None, 99, "outside 0 to 51"),
    ],
)
def test_encodings_that_make_no_sense(
    tmp_path: Path, target: str, codec: str | None, crf: int | None, message: str
) -> None:
    facts = video_facts(write_clip(tmp_path / "s.mp4", list(moving_scene(2, 32, 48))))
    with pytest.raises(UsageError, match=message):
        choose_encoding(facts, tmp_path / target, codec, crf)


def test_a_video_whose_size_changes_is_refused(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "1.mkv", list(moving_scene(2, 32, 48)), codec="mpeg4")
    facts = video_facts(first)
    other = write_clip(tmp_path / "2.mkv", list(moving_scene(2, 48, 48)), codec="mpeg4")
    first.write_bytes(other.read_bytes())
    with pytest.raises(DerainError, match="frame 1 is 48x48, the first is 48x32"):
        list(VideoReader(facts))
