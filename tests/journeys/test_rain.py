"""Rain figures, dry pictures, protected parts, arrivals and the preview, through the real command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import derain, environment
from derain.checkpoints.bundled import DEFAULT, bundled
from derain.checkpoints.rain_threshold import FACT, threshold_of
from derain.methods import all_architectures
from derain.pictures import read_picture, write_picture
from derain.tensors import read_tensors, save_checkpoint


def weights_with(path: Path, head: float, facts: dict[str, object]) -> Path:
    """A small network; with a head of 0 it changes nothing."""
    torch.manual_seed(3)
    architecture = next(a for a in all_architectures() if a.name == "everyday")
    network = architecture.build(**architecture.tiny)
    torch.nn.init.normal_(network.head.weight, std=head)
    save_checkpoint(path, network.state_dict(), facts)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    # Upright differences are taken for rain by the one that changes pictures at random.
    return weights_with(tmp_path / "w.safetensors", 0.05, {FACT: {"threshold": 0.5, "alarms": 1, "dry": 20}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.jpg"):
        Image.fromarray(random.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    return tmp_path / "in"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("name", [DEFAULT, "everyday-small"])
def test_weights_that_come_along_know_from_where_on_it_rains(name: str) -> None:
    """If this fails, the weights are new: see scripts/calibrate_rain.py."""
    assert threshold_of(read_tensors(bundled(name)).facts) is not None


def test_figures_and_dry_pictures(folder: Path, weights: Path, tmp_path: Path) -> None:
    done = derain("run", folder, "-o", tmp_path / "dry", "--skip-dry", "--json", "--model", weights)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["restored"], told["skipped"]) == (0, 2)
    for row in told["pictures"]:
        assert row["note"] == "no rain found, copied unchanged"
        assert row["rain"]["is_raining"] is False
        assert 0 <= row["rain"]["signal"] <= row["rain"]["share"] <= 1
    for name in ("a.png", "sub/b.jpg"):
        assert (tmp_path / "dry" / name).read_bytes() == (folder / name).read_bytes()
    unknown = weights_with(tmp_path / "unknown.safetensors", 0.05, {})
    refused = derain("run", folder, "-o", tmp_path / "other", "--skip-dry", "--model", unknown)
    assert refused.returncode == 2
    assert "no threshold of rain has been measured for these weights" in refused.stderr
    assert "leave out --skip-dry" in refused.stderr


def test_what_is_white_in_a_mask_stays(folder: Path, weights: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    planned = derain("run", folder, "-o", tmp_path / "dry", "--protect", masks, "--dry-run").stdout
    assert f"(mask: {masks / 'a.png'})" in planned
    assert "(mask: none found)" in planned
    done = derain("run", folder, "-o", tmp_path / "dry", "--protect", masks, "--model", weights)
    assert done.returncode == 0, done.stderr
    before, after = pixels(folder / "a.png"), pixels(tmp_path / "dry" / "a.png")
    assert np.array_equal(after[:, :40], before[:, :40])
    assert not np.array_equal(after[:, 60:], before[:, 60:])
    assert "sub/b.jpg: no mask found, so nothing is protected" in done.stdout
    # A single picture finds its mask by its own name, whatever the result is called.
    for target in (["-o", tmp_path / "other.png"], ["-o", tmp_path / "folder"], []):
        done = derain("run", folder / "a.png", *target, "--protect", masks, "--model", weights)
        assert done.returncode == 0, done.stderr
        assert "no mask found" not in done.stdout
    for result in (tmp_path / "other.png", tmp_path / "folder" / "a.png", folder / "a-derained.png"):
        assert np.array_equal(pixels(result)[:, :40], before[:, :40])
    wrong = tmp_path / "small.png"
    Image.new("L", (10, 10), 255).save(wrong)
    done = derain("run", folder / "a.png", "-o", tmp_path / "b.png", "--protect", wrong, "--model", weights)
    assert done.returncode == 1
    assert f"{wrong}: the mask is 10x10 and the picture 96x64;" in done.stderr
    assert not (tmp_path / "b.png").exists()


def test_a_folder_is_watched_until_it_is_stopped(folder: Path, weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "derain", "run", str(folder), "-o", str(tmp_path / "dry"), "--watch"]
    command += ["--json", "--model", str(weights)]
    write_picture(tmp_path / "dry" / "sub" / "b.jpg", read_picture(folder / "sub" / "b.jpg"))
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        first = [json.loads(watching.stdout.readline()) for _ in range(2)]
        content = (folder / "a.png").read_bytes()
        late = folder / "late.png.part"
        with late.open("wb") as copy:
            copy.write(content[:500])
            copy.flush()
            copy.write(content[500:])
        late.rename(folder / "late.png")
        last = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        rest = watching.stderr.read() if watching.stderr else ""
    assert watching.returncode == 0, rest
    assert [Path(row["source"]).name for row in (*first, last)] == ["a.png", "b.jpg", "late.png"]
    assert [row["status"] for row in (*first, last)] == ["restored", "skipped", "restored"]
    assert first[1]["note"].endswith("To replace it, give --overwrite.")
    assert np.array_equal(pixels(tmp_path / "dry" / "late.png"), pixels(tmp_path / "dry" / "a.png"))


def test_one_sheet_to_choose_by(tmp_path: Path, weights: Path) -> None:
    photo = tmp_path / "photo.png"
    noise = np.full((400, 700, 3), 90, np.uint8)
    noise[300:, 500:] = np.random.default_rng(0).integers(0, 255, (100, 200, 3))
    Image.fromarray(noise).save(photo)
    options = ("--model", weights, "--strength", "0", "--strength", "1", "--crops", "1")
    done = derain("preview", photo, *options, "-o", tmp_path / "sheet.png")
    derain("preview", photo, *options)
    assert derain("run", tmp_path, "-o", "dry", "--dry-run").stdout.count("from an earlier run") == 1
    assert done.returncode == 0, done.stderr
    sheet = pixels(tmp_path / "sheet.png")
    side, gap = 320, 12
    assert sheet.shape[1] == gap + 3 * (side + gap)
    top = sheet.shape[0] - gap - side
    before, none, whole = (
        sheet[top : top + side, left : left + side] for left in (gap, 2 * gap + side, 3 * gap + 2 * side)
    )
    assert np.array_equal(before, none)
    assert not np.array_equal(before, whole)
    assert before.std() > noise.std()  # where it changes most
    again = derain("preview", photo, "-o", tmp_path / "sheet.png", "--model", weights)
    assert again.returncode == 2
    assert "To replace it, give --overwrite." in again.stderr


def test_a_preview_of_nothing_is_wrong_usage() -> None:
    done = derain("preview", "nope.jpg")
    assert (done.returncode, done.stderr) == (2, "derain: nope.jpg: no such file.\n")
