"""`derain run` as a photographer uses it: real files in, whole files out, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from command_line import derain, environment
from derain.checkpoints import save_checkpoint
from derain.checkpoints.bundled import DEFAULT, bundled
from derain.methods import create_network, network_names
from derain.pictures import Picture, read_picture, write_picture
from derain.precisions import PRECISIONS


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, np.iinfo(kind).max + 1, shape, kind)


def assert_nothing_partial(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if ".part" in path.name]


def test_a_folder_with_everything_in_it(weights: Path, tmp_path: Path) -> None:
    """16-bit RGB, grey, RGBA, a turned JPEG with EXIF and ICC: depth, alpha and metadata survive."""
    rainy, dry = tmp_path / "rainy", tmp_path / "dry"
    alpha = noise(20, 30)
    write_picture(rainy / "deep.png", Picture(noise(20, 30, 3, kind=np.uint16)))
    write_picture(rainy / "sub" / "grey.png", Picture(noise(20, 30, 1)))
    write_picture(rainy / "sub" / "glass ü.png", Picture(noise(20, 30, 3), alpha=alpha))
    photo = Image.fromarray(np.ascontiguousarray(noise(24, 40, 3)))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"  # turned by a quarter; maker
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(rainy / "turned.JPG", exif=exif, icc_profile=profile, quality=95)
    (rainy / "notes.txt").write_text("not a picture, not looked at")

    done = derain("run", rainy, "-o", dry, "--weights", weights, "--maps", "--compare", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["restored"], report["skipped"], report["failed"]) == (4, 0, 0)
    precisions = {Path(row["source"]).name: row["precision"] for row in report["pictures"]}
    assert precisions["deep.png"] == "float32"
    assert set(precisions.values()) <= set(PRECISIONS)
    assert (report["model"], report["device"], report["threads"] >= 1) == ("spanet", "cpu", True)

    deep = read_picture(dry / "deep.png")
    assert deep.pixels.dtype == np.uint16
    assert len(np.unique(deep.pixels % 257)) > 1  # more than 8-bit values stretched
    assert read_picture(dry / "sub" / "grey.png").pixels.shape == (20, 30, 1)
    assert np.array_equal(read_picture(dry / "sub" / "glass ü.png").alpha, alpha)
    with Image.open(dry / "turned.JPG") as turned:
        assert turned.size == (24, 40)
        assert turned.getexif()[0x0112] == 1
        assert turned.getexif()[0x010F] == "A camera"
        assert turned.info["icc_profile"] == profile
        assert turned.layer[0][1:3] == (2, 2)  # 4:2:0, as in the source
    assert (dry / "maps" / "sub" / "grey-mask.png").is_file()
    assert read_picture(dry / "compare" / "deep.jpg").pixels.shape[1] > 60
    assert not (dry / "notes.txt").exists()

    before = {path: path.read_bytes() for path in dry.rglob("*.png")}
    again = derain("run", rainy, "-o", dry, "--weights", weights)
    assert again.returncode == 0
    told = again.stdout.splitlines()
    assert told[0] == (
        "4 results exist already, perhaps made with other settings. To replace them, give --overwrite."
    )
    assert told[1].startswith("0 restored, 4 skipped, 0 failed")
    assert told[1].endswith(f"-> {dry}")
    two = derain("run", rainy / "sub", rainy / "deep.png", "--weights", weights)
    assert two.stdout.strip().endswith(f"-> {rainy / 'sub-derained'}, {rainy}")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_nothing_partial(tmp_path)


def test_one_broken_file_stops_nothing(weights: Path, tmp_path: Path) -> None:
    rainy, dry = tmp_path / "rainy", tmp_path / "dry"
    write_picture(rainy / "good.png", Picture(noise(20, 30, 3)))
    write_picture(rainy / "photo.jpg", Picture(noise(64, 64, 3)))
    photo = (rainy / "photo.jpg").read_bytes()
    (rainy / "photo.jpg").write_bytes(photo[: len(photo) // 2])
    (rainy / "empty.png").touch()
    (rainy / "text.png").write_text("no picture at all")
    (rainy / "huge.png").write_bytes(png_header(60_000, 60_000))
    done = derain("run", rainy, "-o", dry, "--weights", weights)
    assert done.returncode == 1
    assert "1 restored, 0 skipped, 4 failed" in done.stdout
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 4
    for name in ("photo.jpg", "empty.png", "text.png", "huge.png"):
        assert sum(name in line for line in errors) == 1
    assert sorted(path.name for path in dry.rglob("*")) == ["good.png"]


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of the given size, without its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_one_file(weights: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(noise(20, 30, 3)))
    assert derain("run", "a.png", "--weights", weights, cwd=tmp_path).returncode == 0
    assert derain("run", "a.png", "-o", "b.webp", "--weights", weights, cwd=tmp_path).returncode == 0
    assert read_picture(tmp_path / "a-derained.png").pixels.shape == (20, 30, 3)
    assert read_picture(tmp_path / "b.webp").pixels.shape == (20, 30, 3)


def test_wrong_usage_is_told_in_one_line(weights: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(noise(20, 30, 3)))
    (tmp_path / "file").touch()
    (tmp_path / "bare").mkdir()
    wrong = {
        ("run", "none.png", "-o", "out"): "none.png",
        ("run", "bare", "-o", "out"): "bare",
        ("run", "a.png", "-o", "a.png", "--weights", str(weights)): "replace a source",
        ("run", "a.png", "--model", "spanett"): "Did you mean 'spanet'",
        ("run", "a.png", "--device", "tpu"): "tpu",
        ("run", "a.png", "--tile", "32", "--overlap", "40"): "overlap 40",
        ("run", "a.png", "--temporal", "--crf", "9"): "leave out --crf and --temporal",
    }
    for arguments, said in wrong.items():
        done = derain(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert derain("run", "a.png", "--nonsense", cwd=tmp_path).returncode == 2
    empty = derain("run", "", cwd=tmp_path)  # such as "$FOLDER" where nothing is set
    assert (empty.returncode, "an argument is empty" in empty.stderr) == (2, True)
    assert derain("run", "a.png", "-o", "file/x.png", "--weights", weights, cwd=tmp_path).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "bare", "file"]


def test_folders_by_any_name_and_outputs_anywhere(weights: Path, tmp_path: Path) -> None:
    for name in ("day1/a.png", "day1/a.jpg", "day2/b.png"):
        write_picture(tmp_path / name, Picture(noise(20, 30, 3)))
    with_weights = ("--weights", weights)
    done = derain("run", ".", *with_weights, cwd=tmp_path / "day2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "day2-derained" / "b.png").is_file()
    # A folder above the inputs, and two pictures that differ in the extension only.
    done = derain("run", "day1/", "day2/b.png", "-o", ".", "--compare", *with_weights, cwd=tmp_path)
    assert (done.returncode, "3 restored" in done.stdout) == (0, True), done.stderr
    assert {path.name for path in tmp_path.glob("*.*g")} == {"a.png", "a.jpg", "b.png"}
    sheets = {path.name for path in (tmp_path / "compare").iterdir()}
    assert sheets == {"a.png.jpg", "a.jpg.jpg", "b.jpg"}


@pytest.mark.skipif(os.name != "posix", reason="limits the file size the POSIX way")
def test_a_full_disk_leaves_nothing_half_written(weights: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "rainy" / "a.png", Picture(noise(200, 300, 3)))

    def fill_the_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-m", "derain", "run", "rainy", "-o", "dry", "--weights", str(weights)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, preexec_fn=fill_the_disk
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert not list((tmp_path / "dry").rglob("*.*"))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_is_done_and_leaves_nothing_partial(
    stop: signal.Signals, tmp_path: Path
) -> None:
    weights = tmp_path / "slow.safetensors"
    save_checkpoint(weights, create_network("spanet").state_dict(), {})
    for number in range(40):
        write_picture(tmp_path / "rainy" / f"{number:02}.png", Picture(noise(300, 300, 3)))
    command = [sys.executable, "-m", "derain", "run", "rainy", "-o", "dry", "--weights", str(weights)]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "dry").glob("??.png")) and time.monotonic() < deadline:
        assert running.poll() is None
        os.sched_yield()
    running.send_signal(stop)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 128 + stop
    assert said.strip().splitlines() == ["derain: stopped; no half-written results were left behind."]
    done = list((tmp_path / "dry").iterdir())
    assert 0 < len(done) < 40
    for path in done:
        assert read_picture(path).pixels.shape == (300, 300, 3)


def test_the_bundled_weights_take_rain_away(shared: Path, tmp_path: Path) -> None:
    pairs = shared / "data" / "rain100l"
    done = derain("run", pairs / "rainy" / "1.png", "-o", tmp_path / "1.png")
    assert done.returncode == 0, done.stderr
    rainy, clean, restored = (
        read_picture(path).pixels.astype(float)
        for path in (pairs / "rainy" / "1.png", pairs / "clean" / "1.png", tmp_path / "1.png")
    )
    assert ((restored - clean) ** 2).mean() < 0.4 * ((rainy - clean) ** 2).mean()


def test_info_and_convert(tmp_path: Path) -> None:
    told = derain("info", bundled(DEFAULT), "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["network"] == "everyday"
    converted = derain("convert", bundled(DEFAULT), "-o", tmp_path / "x.safetensors")
    assert converted.returncode == 0
    assert derain("convert", bundled(DEFAULT), "-o", tmp_path / "x.safetensors").returncode == 2
    assert derain("info", tmp_path / "none.pth").returncode == 1


def test_models_lists_every_network() -> None:
    listed = derain("models", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["network"]: row for row in json.loads(listed.stdout)}
    assert rows.keys() == network_names().keys()
    assert rows["spanet"]["parameters"] == 283_716
    assert rows["spanet"]["bundled_weights"] == "spanet"
    assert all(row["multiply_adds_per_megapixel"] > 0 for row in rows.values())


def test_models_fits_into_a_terminal_of_80_columns() -> None:
    listed = derain("models")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name in network_names():
        assert any(line.split()[:1] == [name] for line in lines)
    shown = derain("models", "nerd_rain-s")
    assert "Rain200L             41.30 dB / 0.9895  matlab_y_uint8" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    unknown = derain("models", "nerd_rein")
    assert unknown.returncode == 2
    assert "Did you mean 'nerd_rain'" in unknown.stderr
