"""Videos are scored as the folders of their frames are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import derain
from clips import moving_scene, write_clip
from command_line import derain as command
from derain.errors import DerainError
from derain.pictures import Picture, write_picture


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clip and a noisy one, without loss, as files and as folders of frames."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    clean = list(moving_scene(5, 48, 64))
    noisy = [np.clip(f + random.integers(-9, 10, f.shape), 0, 255).astype(np.uint8) for f in clean]
    for name, frames in (("clean", clean), ("dry", noisy)):
        write_clip(folder / f"{name}.mkv", frames, codec="ffv1", pixel_format="bgr0")
        for number, frame in enumerate(frames, 1):
            write_picture(folder / name / f"{number:05d}.png", Picture(frame))
    write_clip(folder / "short.mkv", clean[:3], codec="ffv1", pixel_format="bgr0")
    return folder


@pytest.mark.parametrize("protocol", ["flicker_truth", "matlab_y_uint8"])
def test_a_video_scores_as_its_frames_do(clips: Path, protocol: str) -> None:
    frames = derain.score(clips / "dry", clips / "clean", protocol)
    videos = derain.score(clips / "dry.mkv", clips / "clean.mkv", protocol)
    mixed = derain.score(clips / "dry.mkv", clips / "clean", protocol)
    assert videos.count == frames.count >= 4
    assert videos.mean == frames.mean == mixed.mean


def test_on_the_command_line(clips: Path, tmp_path: Path) -> None:
    done = command(
        "score", clips / "dry.mkv", "-p", "flicker_static", "--json", variables={"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert '"flicker"' in done.stdout
    assert list(tmp_path.iterdir()) == []
    unequal = command("score", clips / "dry.mkv", clips / "short.mkv", "-p", "flicker_truth")
    assert unequal.returncode == 1
    assert "dry.mkv has 5 frames and" in unequal.stderr
    assert unequal.stderr.count("\n") == 1


def test_a_video_that_ends_early_is_refused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "frames").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "frames"))
    content = (clips / "dry.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(DerainError, match=r"cut\.mkv: "):
        derain.score(tmp_path / "cut.mkv", protocol="flicker_static")
    assert list((tmp_path / "frames").iterdir()) == []
