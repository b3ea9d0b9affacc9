"""What clips hold besides their frames is kept, converted or named; never lost without a word."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from clips import content, moving_scene, write_clip
from derain.errors import DerainError
from derain.pictures.mp4_boxes import mark_spherical
from derain.pictures.video import Frame, VideoReader
from derain.pictures.video_facts import VideoFacts, video_facts
from derain.restore import VideoOptions
from derain.restore.video import restore_video

HDR = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"


def scene(count: int = 6, height: int = 64, width: int = 96) -> list[NDArray[np.uint8]]:
    return list(moving_scene(count, height, width))


def copied(source: Path, target: Path, **options: Any) -> tuple[VideoFacts, str]:
    """The facts of a copy, and what was said of it."""
    asked = VideoOptions(frame_by_frame=True, **options)
    result = restore_video(source, target, lambda rainy: rainy, asked)
    assert result.shortfall == ""
    return video_facts(target), "; ".join(result.left_out)


def transparent_clip(
    path: Path, codec: str, pixel_format: str, options: dict[str, str] | None = None
) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 96, 64, pixel_format
        if codec == "libvpx-vp9":
            video.metadata["alpha_mode"] = "1"
        for number, pixels in enumerate(scene()):
            alpha = np.where(np.arange(96) < 40 + number, 255, 60)[None, :, None].repeat(64, 0)
            frame = av.VideoFrame.from_ndarray(np.dstack([pixels, alpha.astype(np.uint8)]), format="rgba")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(video.encode(frame.reformat(format=pixel_format)))
        file.mux(video.encode(None))
    return path


def opacity(path: Path) -> list[float]:
    """The mean opacity of each frame, 1 for opaque ones."""
    frames: Sequence[Frame] = list(VideoReader(video_facts(path)))
    return [1.0 if f.alpha is None else float(f.alpha.mean()) / np.iinfo(f.alpha.dtype).max for f in frames]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.mov", "prores_ks", "yuva444p10le"), ("a.mkv", "ffv1", "yuva420p"), ("a.mov", "qtrle", "argb")],
)
@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm", ".gif", ".mp4", ".avi"])
def test_transparency_is_kept_where_it_can_be_and_said_elsewhere(
    tmp_path: Path, name: str, codec: str, pixel_format: str, suffix: str
) -> None:
    options = {"profile": "4444"} if codec == "prores_ks" else {}
    source = transparent_clip(tmp_path / name, codec, pixel_format, options)
    _, said = copied(source, tmp_path / f"b{suffix}")
    if suffix in (".mp4", ".avi"):
        assert "its transparency" in said
        assert opacity(tmp_path / f"b{suffix}") == [1.0] * 6
    elif suffix == ".gif":  # on or off
        assert opacity(tmp_path / "b.gif") == pytest.approx([(40 + k) / 96 for k in range(6)], abs=0.02)
    else:
        assert "transparency" not in said
        assert opacity(tmp_path / f"b{suffix}") == pytest.approx(opacity(source), abs=0.02)


def test_transparency_beside_the_frames_of_webm(tmp_path: Path) -> None:
    source = transparent_clip(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", {"b": "0", "crf": "20"})
    facts, said = copied(source, tmp_path / "b.webm")
    assert (facts.alpha, said) == (True, "")
    assert opacity(tmp_path / "b.webm") == pytest.approx(opacity(source), abs=0.02)
    assert min(opacity(source)) < 0.7


@pytest.mark.parametrize("loops", [-1, 0, 3])
def test_the_play_count_of_a_gif(tmp_path: Path, loops: int) -> None:
    with av.open(str(tmp_path / "a.gif"), "w", container_options={"loop": str(loops)}) as file:
        video = file.add_stream("gif", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "rgb8"
        for number, pixels in enumerate(scene()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    facts, said = copied(tmp_path / "a.gif", tmp_path / "b.gif")
    assert (facts.loops, said) == (loops, "")
    _, said = copied(tmp_path / "a.gif", tmp_path / "b.mp4")
    assert ("repetition" in said) == (loops != -1)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif"])
@pytest.mark.parametrize("times", [(0, 1, 2, 3, 4, 80), (0, 30, 60, 61, 62, 63)])
def test_a_clip_lasts_as_long_as_before(tmp_path: Path, suffix: str, times: tuple[int, ...]) -> None:
    """Holds inside and at the end."""
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as file:
        video = file.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for number, pixels in enumerate(scene()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[number], Fraction(1, 25)
            (packet,) = video.encode(frame)
            packet.duration = (*times, times[-1] + 20)[number + 1] - times[number]
            file.mux(packet)
    before, (after, _) = video_facts(source), copied(source, tmp_path / f"b{suffix}")
    assert before.duration == pytest.approx((times[-1] + 20) / 25, abs=0.02)
    assert after.duration == pytest.approx(before.duration, abs=0.02)
    shown = [float(frame.pts * after.time_base) for frame in VideoReader(after)]
    assert shown == pytest.approx([time / 25 for time in times], abs=0.02)


def timed_clip(path: Path, times: Sequence[int], rate: int) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream("ffv1", rate=rate)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for time, pixels in zip(times, scene(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif"])
@pytest.mark.parametrize(("times", "rate"), [((0, 0, 1, 1, 2), 25), (range(30), 1000)])
def test_frames_at_the_same_time_all_stay(
    tmp_path: Path, suffix: str, times: Sequence[int], rate: int
) -> None:
    """Matroska keeps milliseconds, GIF hundredths of a second."""
    facts, said = copied(timed_clip(tmp_path / "a.mkv", times, rate), tmp_path / f"b{suffix}")
    shown = [frame.pts for frame in VideoReader(facts)]
    assert len(shown) == len(times)
    assert shown == sorted(set(shown))
    assert ("its speed" in said) == (suffix == ".gif")


def test_a_wait_that_a_gif_cannot_hold_is_said(tmp_path: Path) -> None:
    _, said = copied(timed_clip(tmp_path / "a.mkv", (0, 1, 20_000, 20_001), 25), tmp_path / "b.gif")
    assert "waits of more than 655.35 s between frames" in said


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_files_that_were_joined_follow_one_another(tmp_path: Path, suffix: str) -> None:
    """Transport streams are joined byte by byte; the times of the second begin anew."""
    one = write_clip(tmp_path / "a.ts", scene(30), audio="aac")
    (tmp_path / "b.ts").write_bytes(2 * one.read_bytes())
    facts, said = copied(tmp_path / "b.ts", tmp_path / f"c{suffix}")
    assert said == ""
    assert len(list(VideoReader(facts))) == 60
    assert facts.duration == pytest.approx(2.4, abs=0.1)
    with av.open(str(tmp_path / f"c{suffix}")) as file:
        sound = [float(p.dts * p.time_base) for p in file.demux(audio=0) if p.dts is not None]
    assert sound == sorted(sound)
    assert sound[-1] == pytest.approx(2.4, abs=0.2)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"])
def test_the_same_clip_becomes_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "a.mp4", scene())
    first, second = tmp_path / f"b{suffix}", tmp_path / f"c{suffix}"
    for target in (first, second):
        copied(source, target)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", [".gif", ".avi", ".mkv"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_stand_upright_where_no_rotation_can_be_stored(
    tmp_path: Path, suffix: str, rotation: int, mirrored: bool
) -> None:
    source = write_clip(tmp_path / "a.mp4", scene(2), rotation=rotation, mirrored=mirrored)
    upright = [frame.pixels for frame in VideoReader(video_facts(source))]
    for frame, stored in zip(upright, content(source).frames, strict=True):
        # FFmpeg's display matrices are turned first, then mirrored.
        turned = np.rot90(stored, rotation // 90)
        right = turned[:, ::-1] if mirrored else turned
        assert np.abs(frame.astype(int) - right).mean() < 2
    facts, _ = copied(source, tmp_path / f"b{suffix}")
    if suffix != ".mkv":  # which stores how to turn
        assert (facts.turns, facts.mirrored) == (0, False)
        assert (facts.height, facts.width) == upright[0].shape[:2]
    for frame, right in zip(VideoReader(facts), upright, strict=True):
        assert np.abs(frame.pixels.astype(int) - right).mean() < 12


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", None), (".avi", "ffv1"), (".mp4", None), (".mkv", "ffv1")]
)
def test_full_range_keeps_its_levels(tmp_path: Path, suffix: str, codec: str | None) -> None:
    ramp = np.repeat(np.array([0, 64, 128, 192, 255], np.uint8), 20)[None, :, None].repeat(64, 0).repeat(3, 2)
    source = write_clip(tmp_path / "a.avi", [ramp] * 3, codec="mjpeg", pixel_format="yuvj420p", colour=(5, 2))
    copied(source, tmp_path / f"b{suffix}", codec=codec)
    read = [
        frame.to_ndarray(format="gray") for frame in av.open(str(tmp_path / f"b{suffix}")).decode(video=0)
    ]
    with av.open(str(source)) as file:
        right = next(file.decode(video=0)).to_ndarray(format="gray")
    assert np.abs(read[0].astype(int) - right)[:, 5::20].max() <= 3


def test_interlaced_frames_become_whole_pictures(tmp_path: Path) -> None:
    fields = scene(12)
    woven = []
    for top, bottom in zip(fields[::2], fields[1::2], strict=True):
        frame = top.copy()
        frame[1::2] = np.roll(bottom, 9, axis=1)[1::2]  # it moves fast, so that rows comb
        woven.append(frame)
    source = write_clip(tmp_path / "a.mp4", woven, options={"x264-params": "interlaced=1:crf=5"})
    assert video_facts(source).interlaced
    facts, said = copied(source, tmp_path / "b.mp4")
    assert "interlaced" in said
    assert not facts.interlaced

    def combing(path: Path) -> float:
        rows = np.stack(content(path).frames)[..., 1].astype(float)
        return float(np.abs(rows[:, 1:-1] - (rows[:, :-2] + rows[:, 2:]) / 2).mean())

    assert combing(tmp_path / "b.mp4") < 0.35 * combing(source)
    assert content(tmp_path / "b.mp4").times == content(source).times


def test_interlaced_frames_are_refused_where_fields_are_to_be_kept(tmp_path: Path) -> None:
    source = write_clip(
        tmp_path / "a.mp4", list(moving_scene(4, 64, 96)), options={"x264-params": "tff=1:interlaced=1"}
    )
    asked = VideoOptions(frame_by_frame=True, keep_fields=True)
    with pytest.raises(DerainError, match=r"a\.mp4: is interlaced.* leave out keep_fields"):
        restore_video(source, tmp_path / "b.mp4", lambda rainy: rainy, asked)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    plain = write_clip(tmp_path / "c.mp4", list(moving_scene(2, 64, 96)))
    restore_video(plain, tmp_path / "d.mp4", lambda rainy: rainy, asked)


def test_hdr10_is_kept_by_h265_h264_and_matroska_and_said_elsewhere(tmp_path: Path) -> None:
    params = f"log-level=none:repeat-headers=1:hdr10=1:colorprim=9:transfer=16:colormatrix=9:{HDR}"
    source = write_clip(
        tmp_path / "a.mp4",
        scene(),
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": params},
    )
    facts = video_facts(source)
    assert facts.light_levels == (1000, 400)
    assert facts.mastering is not None
    for name, codec in (("b.mp4", None), ("b.mkv", "h264")):
        copy, said = copied(source, tmp_path / name, codec=codec)
        assert (copy.mastering, copy.light_levels, said) == (facts.mastering, facts.light_levels, "")
    for name, codec in (("b.mkv", "ffv1"), ("b.webm", "vp9"), ("c.mkv", "vp9")):
        copy, said = copied(source, tmp_path / name, codec=codec)
        assert (copy.mastering, copy.light_levels) == (facts.mastering, facts.light_levels)
        assert (copy.colour, copy.rate) == (facts.colour, facts.rate)
        assert "mastering" not in said
    _, said = copied(source, tmp_path / "b.mp4", codec="vp9")
    assert "mastering display" in said


def test_a_360_degree_video_stays_one(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", scene(), audio="aac")
    mark_spherical(source)
    assert video_facts(source).spherical
    for suffix in (".mp4", ".mov"):
        facts, said = copied(source, tmp_path / f"b{suffix}")
        assert (facts.spherical, said) == (True, "")
        assert content(tmp_path / f"b{suffix}").packets == content(source).packets
    for name, codec in (("b.mkv", None), ("c.mkv", "h265"), ("d.mkv", "ffv1"), ("e.mkv", "vp9")):
        facts, said = copied(source, tmp_path / name, codec=codec)
        assert (facts.spherical, facts.rate, said) == (True, video_facts(source).rate, "")
    _, said = copied(source, tmp_path / "b.avi")
    assert "360-degree" in said


def test_further_videos_are_copied_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as file:
        for _ in range(2):
            video = file.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for number, pixels in enumerate(scene()):
            for video in file.streams.video:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                file.mux(video.encode(frame))
        for video in file.streams.video:
            file.mux(video.encode(None))
    _, said = copied(source, tmp_path / "b.mkv")
    assert said == "only its first video was restored; the others were copied"
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert len(file.streams.video) == 2
    _, said = copied(source, tmp_path / "b.webm")
    assert said == "left out: video stream 1 (h264)"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_a_360_degree_video_on_its_side_stays_one(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "a.mp4", scene(), rotation=90)
    mark_spherical(source)
    facts, said = copied(source, tmp_path / f"b{suffix}")
    assert facts.spherical != ("360-degree" in said)
    assert facts.spherical == (suffix != ".avi")
    for path in (source, tmp_path / f"b{suffix}"):  # on its side in the first, shown upright from both
        assert next(iter(VideoReader(video_facts(path)))).pixels.shape == (96, 64, 3)


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", None), (".mkv", "ffv1"), (".mp4", "h264"), (".webm", None)]
)
def test_depth_is_kept_or_said(tmp_path: Path, bits: int, suffix: str, codec: str | None) -> None:
    source = write_clip(tmp_path / "a.mkv", scene(), codec="ffv1", pixel_format=f"yuv444p{bits}le")
    facts, said = copied(source, tmp_path / f"b{suffix}", codec=codec)
    assert (facts.bits >= bits) != ("bits per sample" in said)


def test_covers_chapters_and_time_code(tmp_path: Path) -> None:
    cover = write_clip(tmp_path / "cover.avi", scene(1), codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(cover)) as file:
        jpeg = next(bytes(packet) for packet in file.demux(video=0) if packet.size)
    plain = write_clip(tmp_path / "plain.mp4", scene())
    source = tmp_path / "a.mkv"
    chapter = {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "Rain"}}
    with av.open(str(plain)) as whole, av.open(str(source), "w") as file:
        copy = file.add_stream_from_template(whole.streams.video[0])
        copy.metadata["timecode"] = "01:02:03:04"
        file.add_attachment("cover.jpg", "image/jpeg", jpeg)
        file.set_chapters([chapter])
        for packet in whole.demux():
            if packet.dts is not None:
                packet.stream = copy
                file.mux(packet)
    for suffix in (".mkv", ".mp4", ".mov"):
        _, said = copied(source, tmp_path / f"b{suffix}")
        assert said == ("left out: its cover picture" if suffix == ".mov" else "")
        with av.open(str(tmp_path / f"b{suffix}")) as file:
            video, *pictures = file.streams.video
            sizes = [packet.size for picture in pictures for packet in file.demux(picture) if packet.size]
            assert sizes == ([] if suffix == ".mov" else [len(jpeg)])
            assert [chapter["metadata"]["title"] for chapter in file.chapters()] == ["Rain"]
            assert "01:02:03:04" in {key.lower(): value for key, value in video.metadata.items()}["timecode"]
    _, said = copied(source, tmp_path / "b.avi")
    assert "its cover picture" in said
    assert "its chapters" in said


def test_a_rate_that_no_video_has_is_refused(tmp_path: Path) -> None:
    """Time bases of such rates round to zero, which ends the process inside FFmpeg."""
    path = write_clip(tmp_path / "a.avi", scene(), codec="mjpeg", pixel_format="yuvj420p")
    broken = bytearray(path.read_bytes())
    place = broken.index(b"strh") + 8 + 20
    struct.pack_into("<II", broken, place, 1, 11_206_666)  # scale, rate
    path.write_bytes(broken)
    with pytest.raises(DerainError, match="11,206,666 frames per second"):
        video_facts(path)


# Seconds and what is said of the files that broke this program or others like it.
CASES = {
    ("alpha_prores.mov", ".mov"): (0.4, "left out: 12 bits per sample (prores keeps 10)"),
    ("alpha_vp9.webm", ".webm"): (0.4, ""),
    ("transparent.gif", ".gif"): (0.47, ""),
    ("hold_end.mp4", ".mp4"): (3.36, ""),
    ("slow.mp4", ".mp4"): (12.04, ""),
    ("hdr10.mp4", ".mp4"): (0.4, ""),
    ("interlaced.mp4", ".mp4"): (0.8, "was interlaced, deinterlaced to one picture per frame (bwdif)"),
    ("rot90.mp4", ".gif"): (0.4, "left out: audio stream 1 (aac), all but 256 colours per frame"),
    ("rot90.mp4", ".avi"): (0.4, ""),
    ("cover.mkv", ".mkv"): (0.4, ""),
    ("cover.mp4", ".mp4"): (0.4, ""),
    ("spherical.mp4", ".mp4"): (0.4, ""),
    ("tmcd.mov", ".mov"): (0.4, ""),
    ("loop3.gif", ".gif"): (0.4, ""),
    ("deep12.mkv", ".mkv"): (0.4, ""),
    ("ramp_mjpeg.avi", ".avi"): (0.2, ""),
    ("cam.mts", ".mkv"): (0.4, ""),
    ("dvd.mpg", ".mkv"): (0.4, ""),
}


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_clips_that_broke_programs(shared: Path, tmp_path: Path, name: str, suffix: str) -> None:
    source = shared / "cases" / "formats" / name
    if not source.is_file():
        pytest.skip("the folder of files that broke the program is not beside the project")
    seconds, words = CASES[name, suffix]
    before = video_facts(source)
    after, said = copied(source, tmp_path / f"b{suffix}")
    assert said == words
    assert after.duration == pytest.approx(seconds, abs=0.02)
    for attribute in ("alpha", "loops", "mastering", "light_levels", "spherical"):
        if not (attribute == "loops" and suffix == ".gif" and before.loops is None):
            assert getattr(after, attribute) == getattr(before, attribute), attribute
    assert not after.interlaced
    frames = zip(VideoReader(before), VideoReader(after), strict=True)
    limit = 0.03 if suffix != ".gif" else 0.06
    for first, second in frames:
        largest = [np.iinfo(frame.pixels.dtype).max for frame in (first, second)]
        assert np.abs(first.pixels / largest[0] - second.pixels / largest[1]).mean() < limit


def test_the_clip_that_ended_the_process(shared: Path) -> None:
    source = shared / "cases" / "videos" / "video-timebase.avi"
    if not source.is_file():
        pytest.skip("the folder of files that broke the program is not beside the project")
    with pytest.raises(DerainError, match="frames per second, which is not plausible"):
        video_facts(source)
