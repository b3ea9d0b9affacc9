"""`derain adapt` as a user meets it: through the real command line, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import derain, derain_here
from derain.checkpoints import open_checkpoint
from derain.methods.rain2avoid.ldgp import rain_prior


def rainy(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: a smooth picture with thin bright streaks."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.stack([100 + 40 * np.sin(x / 29 + c) + 20 * np.cos(y / 23) for c in range(3)], -1)
    for _ in range(height * width // 400):
        top, left = random.integers(0, height - 20), random.integers(0, width - 2)
        picture[top : top + 25, left : left + 2] += 60
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "rainy"
    (source / "trip").mkdir(parents=True)
    Image.fromarray(rainy()).save(source / "a.png")
    Image.fromarray(rainy(70, 66, 1)).save(source / "trip" / "b.png")
    (source / "Thumbs.db").write_bytes(b"not a picture")
    return source


def test_only_mask_writes_the_prior_under_the_names_of_the_inputs(folder: Path, tmp_path: Path) -> None:
    done = derain("adapt", folder, "-o", tmp_path / "masks", "--only", "mask")
    assert done.returncode == 0, done.stderr
    for name, picture in (("a.png", rainy()), ("trip/b.png", rainy(70, 66, 1))):
        with Image.open(tmp_path / "masks" / name) as mask:
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.array(mask), rain_prior(picture).map)


def test_a_mask_never_replaces_a_picture(folder: Path, tmp_path: Path) -> None:
    before = (folder / "a.png").read_bytes()
    done = derain("adapt", folder / "a.png", "-o", folder / "a.jpg", "--only", "mask", "--overwrite")
    assert (done.returncode, "does not match the format .png" in done.stderr) == (2, True)
    assert (folder / "a.png").read_bytes() == before
    Image.fromarray(rainy()).save(folder / "a.jpg")
    done = derain("adapt", folder, "-o", tmp_path / "masks", "--only", "mask")
    assert done.returncode == 0, done.stderr
    masks = {file.name for file in (tmp_path / "masks").rglob("*.png")}
    assert masks == {"a.png", "a.jpg.png", "b.png"}


def test_a_picture_is_derained_and_everything_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dry"
    done = derain(
        "adapt", folder / "a.png", "-o", out, "--minutes", "0.05", "--precision", "bf16", "--keep", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["restored"] == 1
    with Image.open(out / "a.png") as picture:
        result = np.array(picture)
    assert (result <= rainy()).all()
    assert (result < rainy()).mean() > 0.05
    assert {p.name for p in (out / "kept" / "a").iterdir()} >= {"mask.png", "reference.png"}
    before = (out / "a.png").stat().st_mtime_ns
    again = derain("adapt", folder / "a.png", "-o", out)
    assert again.returncode == 0
    assert "1 skipped" in again.stdout
    assert (out / "a.png").stat().st_mtime_ns == before


def test_a_folder_teaches_one_network_that_run_takes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dry"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = derain("adapt", folder, "-o", out, "--together", "--minutes", "0.05")  # one step in any case
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "broken.png" in done.stderr
    assert (out / "a.png").exists()
    assert (out / "trip" / "b.png").exists()
    _, checkpoint = open_checkpoint(out / "network.safetensors")
    assert checkpoint.variant == "slim"
    ran = derain("run", folder / "a.png", "-o", tmp_path / "ran", "--weights", out / "network.safetensors")
    assert ran.returncode == 0, ran.stderr
    weights = out / "network.safetensors"
    refined = derain(
        "adapt", folder / "a.png", "-o", tmp_path / "refined", "--from", weights, "--minutes", "0.05"
    )
    assert refined.returncode == 0, refined.stderr
    assert (tmp_path / "refined" / "a.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "quik"], "quick"),
        (["--backbone", "rain2avoid_unt"], "rain2avoid_unet"),
        (["--only", "mask", "--together"], "--only mask"),
        (["--only", "map"], "mask"),
        (["--from", "x.safetensors", "--backbone", "spanet"], "leave out --backbone"),
        (["--from", "nothing", "--preset", "published"], "--preset quick"),
        (["--device", "gpu"], "cuda"),
        (["--precision", "fp16"], "bfloat16"),
        (["--only", "mask", "--precision", "bf16"], "--only mask"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(
    options: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    done = derain_here("adapt", folder, "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_too_small_fails_with_its_name(tmp_path: Path) -> None:
    Image.fromarray(rainy(64, 80)[:20]).save(tmp_path / "tiny.png")
    done = derain("adapt", tmp_path / "tiny.png", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "tiny.png" in done.stderr
    assert "80x20" in done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_16_bit_and_alpha_are_carried_through(tmp_path: Path) -> None:
    import cv2

    values = rainy().astype(np.uint16) * 257 + 3
    alpha = np.full((*values.shape[:2], 1), 40000, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), np.concatenate([values[..., ::-1], alpha], -1))
    done = derain("adapt", tmp_path / "deep.png", "-o", tmp_path / "out", "--minutes", "0.05")
    assert done.returncode == 0, done.stderr
    result = cv2.imread(str(tmp_path / "out" / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert result.dtype == np.uint16
    assert (result[..., 3] == 40000).all()
    same = (result[..., 2::-1] == values).all(-1)
    assert 0.2 < same.mean() < 1
