"""Pairs made from clean pictures, then trained on: what a user does, through the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.checkpoints import open_checkpoint
from derain.cli import main
from derain.data.synthesis import pairs as synthesis_pairs


def derain(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["derain", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = cv2.resize(rng.integers(0, 200, (5, 6, 3)).astype(np.uint8), (72, 60))
        cv2.imwrite(str(folder / f"p{number}.png"), picture)
    return folder


def test_pairs_are_made_and_trained_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, again = tmp_path / "pairs", tmp_path / "again"
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--preset", "heavy", "--count", 2) == 0
    assert capsys.readouterr().out == f"{pairs}: 12 pairs.\n"
    assert derain(monkeypatch, "synth", photos, "-o", again, "--preset", "heavy", "--count", 2) == 0
    for rainy in sorted((pairs / "rainy").iterdir()):
        clean = cv2.imread(str(pairs / "clean" / rainy.name)).astype(int)
        assert np.array_equal(clean, cv2.imread(str(photos / f"{rainy.stem[:2]}.png")))
        assert (cv2.imread(str(rainy)) - clean).max() > 20
        assert rainy.read_bytes() == (again / "rainy" / rainy.name).read_bytes()

    small = ["options.width=4", "stages=[{patch: 32, batch: 2}]", "validation.patch=32", "workers=0"]
    small += [f"data.clean={pairs / 'clean'}", f"data.rainy={pairs / 'rainy'}", "data.rain=null"]
    changes = [part for change in [*small, "steps=2"] for part in ("--set", change)]
    run = tmp_path / "run"
    assert derain(monkeypatch, "train", "spanet/synthetic", "-o", run, *changes) == 0
    assert open_checkpoint(run / "best.safetensors").checkpoint.facts["step"] == 2
    capsys.readouterr()
    assert derain(monkeypatch, "train", run / "recipe.yaml", "-o", run, "--set", "steps=3") == 0
    assert capsys.readouterr().out.startswith(f"{run}: continues after step 2 of 3, from last.pt.\n")
    assert derain(monkeypatch, "train", run / "recipe.yaml", "-o", run, "--set", "steps=3") == 0
    assert capsys.readouterr().out.startswith(f"{run}: all 3 steps were done before (state in last.pt).\n")
    assert open_checkpoint(run / "last.safetensors").checkpoint.facts["step"] == 3
    capsys.readouterr()
    assert derain(monkeypatch, "train", "--plot", run) == 0
    assert capsys.readouterr().out == f"{run / 'plot.png'}\n"


def test_weather_and_what_the_folder_says_of_itself(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "Rain100L"  # the name of a public set
    options = (
        "--preset",
        "light",
        "--angle",
        "-20,-10",
        "--density",
        "0.5,2",
        "--brightness",
        3,
        "--seed",
        4,
    )
    assert derain(monkeypatch, "synth", photos, "-o", output, *options) == 0
    capsys.readouterr()
    assert derain(monkeypatch, "data", "check", output) == 0
    said = capsys.readouterr().out
    assert said.startswith("made by derain synth (preset light, seed 4, angle -20,-10, density 0.5,2,")
    assert "6 pairs, equal names" in said
    clips = tmp_path / "clips"
    assert derain(monkeypatch, "synth", photos, "-o", clips, "--video", 2, "--angle", 30) == 0
    assert len(list((clips / "rainy").glob("*.mkv"))) == 6
    capsys.readouterr()
    assert derain(monkeypatch, "data", "check", clips) == 0
    said = capsys.readouterr().out
    assert said == (
        "made by derain synth (preset clips, seed 0, angle 30): 6 rainy clips, each with its clean picture\n"
    )
    (clips / "clean" / "p3.png").unlink()
    assert derain(monkeypatch, "data", "check", clips) == 1
    assert "WRONG  1 clips without a clean picture, first p3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("synth", "PHOTOS", "-o", "PHOTOS/x", "--preset", "hevy"), 2, "Did you mean 'heavy'"),
        (("synth", "PHOTOS/none", "-o", "PHOTOS/x"), 2, "none: no such folder"),
        (("synth", "PHOTOS/p1.png", "-o", "PHOTOS/x"), 2, "p1.png: is a file; give its folder"),
        (("synth", "PHOTOS", "-o", "PHOTOS/x", "--angle", "1,2,3"), 2, "two as LOW,HIGH"),
        (("synth", "PHOTOS", "-o", "PHOTOS/x", "--density", "0"), 2, "density 0: give numbers above 0"),
        (("synth", "PHOTOS", "-o", "x", "--preset", "dry", "--angle", "9"), 2, "angle 9: has no effect"),
        (("synth", "PHOTOS", "-o", "PHOTOS"), 2, "PHOTOS: lies in the folder of clean pictures"),
        (("synth", "PHOTOS", "-o", "PHOTOS/x/y"), 2, "y: lies in the folder of clean pictures"),
        (("train",), 2, "give a recipe and the run's folder"),
        (("train", "spanet/synthetic", "-o", "PHOTOS/run"), 2, "'data.clean' is not given"),
        (("train", "--plot", "PHOTOS"), 1, "no log of a run"),
    ],
)
def test_wrong_usage_is_one_line(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    given = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    assert derain(monkeypatch, *given) == code
    error = capsys.readouterr().err
    assert message.replace("PHOTOS", str(photos)) in error
    assert error.startswith("derain: ")
    assert error.count("\n") == 1


def test_nothing_is_overwritten_unasked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = tmp_path / "pairs"
    assert derain(monkeypatch, "synth", photos, "-o", pairs) == 0
    before = (pairs / "rainy" / "p1.png").read_bytes()
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--seed", 5) == 2
    assert (pairs / "rainy" / "p1.png").read_bytes() == before
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--seed", 5, "--overwrite") == 0
    assert (pairs / "rainy" / "p1.png").read_bytes() != before


def test_pairs_of_different_settings_never_share_a_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, others = tmp_path / "pairs", tmp_path / "others"
    others.mkdir()
    (photos / "p1.png").rename(others / "p9.png")
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--preset", "light") == 0
    before = {path: path.read_bytes() for path in pairs.rglob("*") if path.is_file()}
    for options in (("--preset", "heavy"), ("--preset", "light", "--seed", 1), ("--video", 2)):
        for source in (others, photos):
            made = derain(monkeypatch, "synth", source, "-o", pairs, *options, "--overwrite")
            assert made == (2 if source == others or "--video" in options else 0), options
        for path, content in before.items():
            path.write_bytes(content)
    assert "would mix pairs of different settings, as it holds some made by derain synth" in (
        capsys.readouterr().err
    )
    assert derain(monkeypatch, "synth", others, "-o", pairs, "--preset", "light") == 0
    assert (pairs / "rainy" / "p9.png").exists()


def test_a_run_that_is_ended_leaves_no_pairs_of_other_settings(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, only_new = tmp_path / "pairs", tmp_path / "new"
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--seed", 1) == 0
    assert derain(monkeypatch, "synth", photos, "-o", only_new, "--seed", 2) == 0
    (photos / "p3.png").write_bytes(b"\x89PNG\r\n\x1a\nended")  # and a source that fails keeps no old pair
    write = synthesis_pairs.replace_file

    def ended(path: Path, content: bytes) -> None:
        if path.name == "p5.png":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(synthesis_pairs, "replace_file", ended)
    assert derain(monkeypatch, "synth", photos, "-o", pairs, "--seed", 2, "--overwrite") == 130
    there = sorted(file.relative_to(pairs) for file in pairs.rglob("p*.png"))
    assert [file.name for file in there] == 2 * ["p0.png", "p1.png", "p2.png", "p4.png"]
    assert all((pairs / file).read_bytes() == (only_new / file).read_bytes() for file in there)
    assert (pairs / "made.json").read_bytes() == (only_new / "made.json").read_bytes()


def test_pictures_of_other_origin_are_never_taken_for_results(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "p1.png").write_bytes((photos / "p1.png").read_bytes()[::-1])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert derain(monkeypatch, "synth", photos, "-o", tmp_path, "--overwrite") == 2
    assert "was not made by derain synth; choose another output folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_rainy_pictures_never_count_as_clean_ones(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "all" / "pairs"
    assert derain(monkeypatch, "synth", photos, "-o", pairs) == 0
    for source in (pairs, pairs.parent):
        capsys.readouterr()
        assert derain(monkeypatch, "synth", source, "-o", tmp_path / "more") == 2
        clean = ("--set", f"data.clean={source}")
        assert derain(monkeypatch, "train", "spanet/synthetic", "--dry-run", *clean) == 2
        errors = capsys.readouterr().err
        assert errors.count(f"{pairs}: holds rainy pictures beside their clean ones (made by derain") == 2
    assert derain(monkeypatch, "synth", pairs / "clean", "-o", tmp_path / "more") == 0
