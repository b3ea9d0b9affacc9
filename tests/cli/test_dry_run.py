"""`--dry-run` does nothing and says what it would do; `--format`; progress where there is no terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clips import moving_scene, write_clip
from command_line import derain
from derain.cli import app, progress
from derain.cli.output import be_quiet
from derain.pictures import Picture, read_picture, write_picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a.png", "sub/b.jpg"):
        pixels = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        write_picture(tmp_path / "photos" / name, Picture(pixels))
    return tmp_path / "photos"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_run(photos: Path) -> None:
    (photos / "notes.txt").write_text("no picture")
    write_clip(photos / "c.mkv", list(moving_scene(2, 16, 16)), codec="ffv1", pixel_format="bgr0")
    write_picture(photos.parent / "dry/a.webp", Picture(np.zeros((4, 4, 3), np.uint8)))
    before = files(photos.parent)
    done = derain("run", "photos", "-o", "dry", "--format", "webp", "--dry-run", "--json", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["planned"] == [
        {"source": "photos/a.png", "target": "dry/a.webp", "status": "skipped"},
        {"source": "photos/c.mkv", "target": "dry/c.mkv", "status": "restored"},
        {"source": "photos/sub/b.jpg", "target": "dry/sub/b.webp", "status": "restored"},
    ]
    assert files(photos.parent) == before


def test_results_in_another_format(photos: Path) -> None:
    done = derain("run", "a.png", "--format", "jpg", "-q", cwd=photos)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read_picture(photos / "a-derained.jpg").size == (24, 32)
    done = derain("run", "a.png", "-o", "b.png", "--format", "jpg", cwd=photos)
    assert done.returncode == 2
    assert "does not match the format .jpg" in done.stderr
    assert "Did you mean 'jpg'" in derain("run", "a.png", "--format", "jpeg", cwd=photos).stderr


def test_synth(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "sub/b.jpg").rename(photos / "b.jpg")
    before = files(photos.parent)
    done = CliRunner().invoke(app, ["synth", "photos", "-o", "pairs", "--dry-run"])
    assert done.stdout.splitlines() == [
        "photos/a.png -> pairs/rainy/a.png, pairs/clean/a.png",
        "photos/b.jpg -> pairs/rainy/b.png, pairs/clean/b.png",
    ]
    assert files(photos.parent) == before


def test_long_work_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINES", 0.0)
    with progress.bar("restoring", 3) as bar:
        bar.advance()
        bar.part(1, 2)
        bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "restoring: 1 of 3",
        "restoring: 1 of 3",
        "restoring: 2 of 3",
    ]
    assert all(line.endswith("left") for line in lines)
    be_quiet(True)
    with progress.bar("restoring", 3) as bar:
        bar.advance()
        bar.say("a note")
        bar.say("an error", error=True)
    be_quiet(False)
    assert capsys.readouterr() == ("", "an error\n")
