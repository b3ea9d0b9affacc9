from pathlib import Path

import numpy as np
import pytest

from command_line import derain
from derain.background import clean_frame
from derain.background.clip import open_clip
from derain.data.synthesis.clips import rain_clip, write_rain_clip
from derain.data.synthesis.pairs import plan_pairs
from derain.pictures import Picture, read_picture, write_picture


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    pattern = 0.4 + 0.15 * np.sin(x / 5) * np.cos(y / 7)
    return np.repeat(pattern[..., None], 3, axis=2).astype(np.float32)


def test_the_same_seed_gives_the_same_rain_and_another_seed_other_rain() -> None:
    first, again, other = (np.stack(list(rain_clip(scene(), 4, seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.005
    assert first.min() >= 0
    assert first.max() <= 1


def test_rain_only_brightens_and_covers_a_minority() -> None:
    clip = np.stack(list(rain_clip(scene(), 20, 3)))
    assert (clip >= scene() - 1e-6).all()
    rainy = (clip - scene() > 0.02).any(-1).mean()
    assert 0.03 < rainy < 0.3


def test_drops_move_down_from_frame_to_frame() -> None:
    """In a tall view the rain of one frame is found lower in the next, and not higher."""
    dark = np.zeros((400, 60, 3), np.float32)
    first, second = (frame[..., 0] for frame in rain_clip(dark, 2, 5))
    agreement = {
        shift: float((first[60:-60] * np.roll(second, -shift, 0)[60:-60]).mean()) for shift in range(-40, 41)
    }
    assert max(agreement, key=lambda shift: agreement[shift]) > 4


def test_the_clean_frame_method_finds_the_scene_behind(tmp_path: Path) -> None:
    clean = (scene() * 255).round().astype(np.uint8)
    write_picture(tmp_path / "scenes" / "yard.png", Picture(clean))
    (clip,) = plan_pairs(tmp_path / "scenes", tmp_path / "out", "mixed", rainy_suffix=".mkv")
    write_rain_clip(clip, 40, seed=0)
    assert clip.rainy == tmp_path / "out" / "rainy" / "yard.mkv"
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "clean" / "yard.png").pixels, clean)
    result = clean_frame(open_clip(clip.rainy).frames())
    assert result.frames == 40
    error = ((result.picture.astype(float) - clean) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 38
    assert result.confidence.mean() == pytest.approx(85, abs=15)


def test_through_the_command_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "clean" / "a.png", Picture((scene(32, 48) * 255).astype(np.uint8)))
    done = derain("synth", tmp_path / "clean", "-o", tmp_path / "out", "--video", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(open_clip(tmp_path / "out" / "rainy" / "a.mkv").frames())) == 5
    again = derain("synth", tmp_path / "clean", "-o", tmp_path / "out", "--video", "5")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_a_clip_never_replaces_its_scene(tmp_path: Path) -> None:
    write_picture(tmp_path / "clean" / "a.png", Picture((scene(32, 48) * 255).astype(np.uint8)))
    before = (tmp_path / "clean" / "a.png").read_bytes()
    for more in ((), ("--overwrite",)):
        done = derain("synth", tmp_path / "clean", "-o", tmp_path, "--video", "2", *more)
        assert (done.returncode, "is one of the clean pictures" in done.stderr) == (2, True)
        assert (tmp_path / "clean" / "a.png").read_bytes() == before
    assert not (tmp_path / "rainy").exists()
