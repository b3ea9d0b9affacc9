"""Real encoded clips through `derain run` and `derain background`, compared with their sources."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clips import Content, content, moving_scene, write_clip
from command_line import derain_here
from derain.methods import create_network
from derain.pictures import Picture, read_picture, write_picture
from derain.restore import VideoOptions
from derain.restore.jobs import NOT_WHOLE
from derain.restore.video import restore_video
from derain.tensors import save_checkpoint


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SPANet that gives back what it gets, so that results can be compared with their sources."""
    file = tmp_path_factory.mktemp("weights") / "identity.safetensors"
    state = {name: torch.zeros_like(tensor) for name, tensor in create_network("spanet").state_dict().items()}
    for channel in range(3):
        state["conv_in.0.weight"][channel, channel, 1, 1] = 1
        state["conv_out.0.weight"][channel, channel, 1, 1] = 1
    save_checkpoint(file, state, {"network": "spanet", "config": {}})
    return file


def restore(source: Path, target: Path, **options: Any) -> tuple[Content, Content]:
    """The content of the source and of its copy, with a network that changes nothing."""
    asked = VideoOptions(frame_by_frame=True, **options)
    result = restore_video(source, target, lambda rainy: rainy, asked)
    assert (result.shortfall, result.left_out) == ("", ())
    assert [path for path in target.parent.iterdir() if path.name.startswith(".")] == []
    return content(source), content(target)


def steady(clip: Content) -> bool:
    """Whether the frame rate is constant, up to the rounding of milliseconds."""
    return float(np.ptp(np.diff(clip.times))) < 0.0015


def assert_same_but_pixels(before: Content, after: Content, tick: float = 0.0) -> None:
    assert len(after.frames) == len(before.frames)
    assert after.frames[0].shape == before.frames[0].shape
    np.testing.assert_allclose(after.times, before.times, atol=tick + 1e-9)
    # MP4 stores how long frames take in coding order only, which is not that of showing them.
    leeway = tick + 1e-9 if steady(before) else 0.09
    assert after.duration == pytest.approx(before.duration, abs=leeway)
    assert after.rotation == before.rotation
    assert after.packets == before.packets
    for kind, moments in before.packet_times.items():
        np.testing.assert_allclose(after.packet_times[kind], moments, atol=tick + 1e-9)


SCENE = list(moving_scene(14, 32, 48))
NTSC = Fraction(30000, 1001)
JITTER = np.cumsum(np.random.default_rng(0).integers(20, 90, 14)).tolist()
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sound": ("clip.mp4", {"audio": "aac", "tags": {"title": "Rain"}}),
    "silent": ("clip.mp4", {}),
    "29.97": ("clip.mov", {"audio": "aac", "rate": NTSC}),
    "variable rate": ("clip.mkv", {"times": JITTER, "time_base": Fraction(1, 1000), "audio": "aac"}),
    "variable rate mp4": ("clip.mp4", {"times": JITTER, "time_base": Fraction(1, 1000)}),
    "rotated": ("clip.mp4", {"rotation": -90}),
    "subtitles mkv": ("clip.mkv", {"subtitles": True, "audio": "aac"}),
    "subtitles mp4": ("clip.mp4", {"subtitles": True, "audio": "aac"}),
    "10 bit": ("clip.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
    "full range BT.709": ("clip.mp4", {"colour": (1, 2)}),
    "webm": ("clip.webm", {"codec": "libvpx-vp9", "audio": "libopus"}),
    "avi": ("clip.avi", {"codec": "mpeg4", "audio": "libmp3lame"}),
    "4:4:4": ("clip.mkv", {"pixel_format": "yuv444p"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_but_the_pixels_stays(kind: str, tmp_path: Path) -> None:
    name, settings = KINDS[kind]
    quiet = {"options": {"x265-params": "log-level=none"}} if settings.get("codec") == "libx265" else {}
    scene = list(moving_scene(8, 64, 96)) if quiet else SCENE  # x265 breaks on smaller frames
    source = write_clip(tmp_path / name, scene, **settings, **quiet)
    before, after = restore(source, tmp_path / "out" / name)
    assert_same_but_pixels(before, after)
    assert (after.pixel_format, after.codec) == (before.pixel_format, before.codec)
    assert after.rate == before.rate or not steady(before)
    assert after.colour == before.colour
    assert after.tags.get("title") == before.tags.get("title")
    assert after.languages == before.languages
    if not before.pixel_format.endswith("10le"):
        difference = [
            np.abs(a.astype(int) - b).mean() for a, b in zip(after.frames, before.frames, strict=True)
        ]
        assert max(difference) < 4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("odd.mkv", {"pixel_format": "yuv444p"}),
        ("odd.webm", {"codec": "libvpx-vp9"}),
        ("odd.mkv", {"codec": "ffv1", "pixel_format": "yuv420p"}),
    ],
)
def test_odd_sizes_stay(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    source = write_clip(tmp_path / name, list(moving_scene(6, 35, 51)), **settings)
    before, after = restore(source, tmp_path / "out" / name)
    assert_same_but_pixels(before, after)
    assert after.frames[0].shape == (35, 51, 3)


def test_a_gif_stays_a_gif(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.gif", SCENE[:10], codec="gif", pixel_format="rgb8", rate=Fraction(20))
    before, after = restore(source, tmp_path / "out" / "a.gif")
    assert_same_but_pixels(before, after)
    assert np.abs(after.frames[5].astype(int) - before.frames[5]).mean() < 8


@pytest.mark.parametrize("name", ["b.mkv", "b.mov", "b.avi", "b.webm"])
def test_another_container(name: str, tmp_path: Path) -> None:
    sound = "libopus" if name == "b.webm" else "aac"
    source = write_clip(tmp_path / "a.mp4", SCENE, rate=NTSC, audio=sound)
    before, after = restore(source, tmp_path / "out" / name)
    assert len(after.frames) == len(before.frames)
    np.testing.assert_allclose(after.times, before.times, atol=0.0006)  # Matroska counts milliseconds
    assert after.packets == before.packets
    assert after.duration == pytest.approx(before.duration, abs=0.0011)


def test_through_the_command_line(weights: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SCENE, audio="aac", rate=NTSC, tags={"title": "Rain"})
    target = tmp_path / "out" / "b.mp4"
    done = derain_here("run", source, "-o", target, "--weights", weights, "--temporal")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 restored" in done.stdout
    before, after = content(source), content(target)
    assert_same_but_pixels(before, after)
    assert np.abs(after.frames[7].astype(int) - before.frames[7]).mean() < 4


def test_codec_and_quality_options(tmp_path: Path) -> None:
    rng, scene = np.random.default_rng(0), list(moving_scene(8, 64, 96))
    source = write_clip(tmp_path / "a.mp4", [f + rng.integers(0, 40, f.shape, np.uint8) for f in scene])
    _, fine = restore(source, tmp_path / "fine.mp4", codec="h265", crf=8)
    _, coarse = restore(source, tmp_path / "coarse.mp4", codec="h265", crf=40)
    assert fine.codec == coarse.codec == "hevc"
    assert (tmp_path / "fine.mp4").stat().st_size > 2 * (tmp_path / "coarse.mp4").stat().st_size


def test_a_cut_off_file_gives_what_can_be_read_and_an_error(weights: Path, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", list(moving_scene(40, 32, 48)), audio="aac")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = derain_here("run", cut, "-o", tmp_path / "out.mkv", "--weights", weights)
    assert done.returncode == 1
    assert "cut off after" in done.stderr
    assert done.stderr.count("\n") == 1
    before, after = content(cut), content(tmp_path / "out.mkv")
    assert 5 < len(after.frames) < 40
    assert_same_but_pixels(before, after)
    again = derain_here("run", cut, "-o", tmp_path / "out.mkv", "--weights", weights)
    assert again.returncode == 1
    assert f"{NOT_WHOLE} To" in again.stderr
    assert "give --overwrite" in again.stderr
    planned = derain_here("run", cut, "-o", tmp_path / "out.mkv", "--weights", weights, "--dry-run")
    assert planned.stdout.endswith("(exists already but is incomplete, would fail)\n")
    cut.write_bytes(whole.read_bytes())
    done = derain_here("run", cut, "-o", tmp_path / "out.mkv", "--weights", weights, "--overwrite")
    assert done.returncode == 0
    assert len(content(tmp_path / "out.mkv").frames) == 40
    again = derain_here("run", cut, "-o", tmp_path / "out.mkv", "--weights", weights)
    assert again.returncode == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_cut_off_file_without_its_index(weights: Path, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", SCENE)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = derain_here("run", cut, "-o", tmp_path / "out.mp4", "--weights", weights)
    assert done.returncode == 1
    assert "cut off" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()


BROKEN = {
    "text.mp4": b"it rains",
    "empty.mkv": b"",
    "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat.mkv": b"ffconcat version 1.0\nfile /etc/passwd\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_video_is_one_line_and_no_file(name: str, weights: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    done = derain_here("run", tmp_path / name, "-o", tmp_path / "out" / name, "--weights", weights)
    assert done.returncode == 1
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / name).exists()


def test_a_video_without_frames(weights: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", SCENE[:1], audio="aac", tags={})
    packets_start = source.read_bytes().index(b"\x1fC\xb6u")  # the first cluster
    (tmp_path / "none.mkv").write_bytes(source.read_bytes()[:packets_start])
    done = derain_here("run", tmp_path / "none.mkv", "-o", tmp_path / "out.mkv", "--weights", weights)
    assert done.returncode == 1
    assert "contains no readable frame" in done.stderr or "not a readable video" in done.stderr
    assert not (tmp_path / "out.mkv").exists()


def test_a_wrong_extension_is_no_matter_for_reading(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SCENE[:5]).rename(tmp_path / "a.avi")
    before, after = restore(source, tmp_path / "out.mp4")
    assert_same_but_pixels(before, after)


def test_avi_of_an_odd_rate(tmp_path: Path) -> None:
    """MPEG-4 counts at most 65535 ticks a second."""
    source = write_clip(tmp_path / "a.mp4", SCENE[:5], rate=Fraction(1_000_000, 33_333))
    before, after = restore(source, tmp_path / "b.avi")
    assert float(after.rate) == pytest.approx(1_000_000 / 33_333, rel=1e-6)
    assert len(after.frames) == len(before.frames)
    np.testing.assert_allclose(after.times, before.times, atol=1e-4)


def test_one_misfit_is_found_before_the_others_are_done(weights: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", SCENE[:3])
    write_clip(tmp_path / "b.webm", SCENE[:3], codec="libvpx-vp9")
    done = derain_here(
        *("run", tmp_path / "a.mp4", tmp_path / "b.webm", "-o", tmp_path / "dry"),
        *("--codec", "h265", "--weights", weights),
    )
    assert (done.returncode, "cannot hold h265" in done.stderr) == (2, True)
    assert not (tmp_path / "dry").exists()


def test_a_clip_and_a_picture_need_a_folder(weights: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", SCENE[:3])
    write_picture(tmp_path / "p.jpg", Picture(SCENE[0]))
    work = ["run", tmp_path / "p.jpg", clip, "--weights", weights, "-o"]
    done = derain_here(*work, tmp_path / "dry.jpg")
    assert (done.returncode, (tmp_path / "dry.jpg").exists()) == (2, False)
    assert "several results need a folder" in done.stderr
    done = derain_here(*work, tmp_path / "dry")
    assert (done.returncode, "2 restored" in done.stdout) == (0, True)
    assert sorted(path.name for path in (tmp_path / "dry").iterdir()) == ["a.mp4", "p.jpg"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["-o", "out.xyz"], 2, "videos are written as"),
        (["-o", "out.mp4", "--codec", "h246"], 2, "h264"),
        (["-o", "out.webm", "--codec", "h264"], 2, "cannot hold h264"),
        (["-o", "out.webm"], 2, "cannot hold the source's sound"),
        (["-o", "out.avi", "--crf", "20"], 2, "no CRF"),
        (["-o", "out.mp4", "--maps"], 2, "for pictures"),
    ],
)
def test_wrong_usage_is_found_before_the_work(
    options: list[str], code: int, message: str, weights: Path, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "a.mp4", SCENE[:5], audio="aac")
    options[1] = str(tmp_path / options[1])
    done = derain_here("run", source, "--weights", weights, *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert not Path(options[1]).exists()


def test_pictures_and_videos_in_one_run(weights: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", SCENE[:3])
    write_clip(tmp_path / "b.mp4", SCENE[:3])
    done = derain_here(
        *("run", tmp_path / "a.mp4", tmp_path / "b.mp4", "-o", tmp_path / "dry"),
        *("--weights", weights, "--json"),
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["restored"]) == (0, 2)
    assert sorted(p.name for p in (tmp_path / "dry").iterdir()) == ["a.mp4", "b.mp4"]
    again = derain_here("run", tmp_path / "a.mp4", "-o", tmp_path / "dry" / "a.mp4", "--weights", weights)
    assert (again.returncode, "1 skipped" in again.stdout) == (0, True)


def test_background_of_a_clip_of_a_sequence_and_of_its_pairs(tmp_path: Path) -> None:
    scene = SCENE[0]
    rng = np.random.default_rng(0)
    frames = [np.where(rng.random((32, 48, 1)) < 0.2, 230, scene).astype(np.uint8) for _ in range(25)]
    clip = write_clip(tmp_path / "my rain.mkv", frames, codec="ffv1", pixel_format="bgr0")
    done = derain_here(
        *("background", clip, "-o", tmp_path / "clean.png", "--report", tmp_path / "report"),
        *("--pairs", tmp_path / "pairs"),
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_picture(tmp_path / "clean.png").pixels, scene)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["frames"] == 25
    assert 70 < report["mean_confidence_percent"] < 90
    assert read_picture(tmp_path / "report" / "confidence.png").size == (32, 48)
    lines = (tmp_path / "pairs" / "real_world.txt").read_text().splitlines()
    assert lines[0] == "real_world/my_rain_00001.png real_world_gt/my_rain_00001.png"
    checked = derain_here("data", "check", tmp_path / "pairs")
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.startswith("made by derain background: 25 pairs")
    few = derain_here("background", clip, "-o", tmp_path / "few.png", "--frames", 3)
    assert few.stdout.startswith("3 frames, too few to estimate the confidence -> ")
    assert few.stderr.startswith(f"derain: warning: {clip}: only 3 frames")
    assert len(lines) == 25
    # The rainy sides are a numbered sequence of pictures again.
    done = derain_here(
        "background", tmp_path / "pairs" / "real_world", "-o", tmp_path / "again.png", "--json"
    )
    assert json.loads(done.stdout)["percentile"] == report["percentile"]
    np.testing.assert_array_equal(read_picture(tmp_path / "again.png").pixels, scene)


def test_background_says_what_is_wrong(tmp_path: Path) -> None:
    assert derain_here("background", tmp_path / "no.mp4", "-o", tmp_path / "c.png").returncode == 1
    clip = write_clip(tmp_path / "a.mp4", SCENE[:4])
    for arguments, code, message in (
        (["-o", tmp_path / "c.png", "--frames", "9"], 1, "has 4 frames"),
        (["-o", tmp_path / "c.xyz"], 2, "must end in"),
        ([], 2, "nothing to write"),
        (["-o", tmp_path / "c.png", "--variant", "oficial"], 2, "official"),
    ):
        done = derain_here("background", clip, *arguments)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "c.png").exists()
