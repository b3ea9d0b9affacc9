"""Every protocol equals the stored values of the published scripts' formulas."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from derain import evaluation
from derain.evaluation.scoring import plan_scoring, score_files

PROTOCOLS = (
    "matlab_y_uint8",
    "matlab_y_double",
    "skimage_rgb",
    "skimage_rgb_range1",
    "raindrop_y",
    "udr_test_y",
    "basicsr_y",
    "basicsr_rgb",
    "toolbox_rgb",
    "toolbox_y",
    "zero_pad_rgb",
)
FLOAT32_SCRIPTS = {"skimage_rgb", "udr_test_y", "basicsr_y", "toolbox_rgb", "toolbox_y", "zero_pad_rgb"}


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "oracles" / "evaluation"


@pytest.fixture(scope="module")
def oracle(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "protocols.json").read_text())
    return stored


def read(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    picture = cv2.cvtColor(cv2.imread(str(folder / entry["file"])), cv2.COLOR_BGR2RGB)
    assert hashlib.sha256(picture.tobytes()).hexdigest() == entry["sha256_rgb"]
    return picture


def synthetic(fill: ModuleType, case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    shape = (case["height"], case["width"])
    picture = fill.test_image(case["name"], *shape)[0].permute(1, 2, 0).numpy().astype(np.float64)
    clean = np.floor(255 * picture + 0.5)
    error = np.floor(case["amplitude"] * fill.uniform(case["name"] + "/error", (*shape, 3)) + 0.5)
    pair = (np.clip(clean + error, 0, 255).astype(np.uint8), clean.astype(np.uint8))
    assert hashlib.sha256(pair[0].tobytes()).hexdigest() == case["sha256_restored"]
    assert hashlib.sha256(pair[1].tobytes()).hexdigest() == case["sha256_reference"]
    return pair


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_of_every_pair(protocol: str, folder: Path, oracle: dict[str, Any], fill: ModuleType) -> None:
    pairs = [(read(folder, p["restored"]), read(folder, p["reference"]), p) for p in oracle["pairs"]]
    pairs += [(*synthetic(fill, case), case) for case in oracle["synthetic"]["cases"]]
    assert len(pairs) == 15
    scores = []
    for restored, clean, entry in pairs:
        value = getattr(evaluation, protocol)(restored, clean)
        scores.append(value)
        assert value.psnr == pytest.approx(entry["values"][protocol]["psnr"], abs=1e-9)
        assert value.ssim == pytest.approx(entry["values"][protocol]["ssim"], abs=1e-9)
        official = entry["official"].get(protocol)
        if official is not None and protocol == "matlab_y_uint8":  # Octave breaks ties otherwise
            assert value.psnr == pytest.approx(official["psnr"], abs=2e-4)
            assert value.ssim == pytest.approx(official["ssim"], abs=1e-6)
        elif official is not None and protocol in FLOAT32_SCRIPTS:
            assert value.psnr == pytest.approx(official["psnr"], abs=5e-5)
            assert value.ssim == pytest.approx(official["ssim"], abs=5e-5)
        elif official is not None:
            assert value.psnr == pytest.approx(official["psnr"], abs=1e-9)
            assert value.ssim == pytest.approx(official["ssim"], abs=1e-9)
    mean = oracle["means_over_pictures"][protocol]
    assert np.mean([s.psnr for s in scores[:7]]) == pytest.approx(mean["psnr"], abs=1e-9)
    assert np.mean([s.ssim for s in scores[:7]]) == pytest.approx(mean["ssim"], abs=1e-9)


def test_rgb_psnr_is_the_psnr_of_toolbox_rgb(folder: Path, oracle: dict[str, Any]) -> None:
    for pair in oracle["pairs"]:
        score = evaluation.rgb_psnr(read(folder, pair["restored"]), read(folder, pair["reference"]))
        assert score.psnr == pytest.approx(pair["values"]["toolbox_rgb"]["psnr"], abs=1e-9)
        assert score.psnr == pytest.approx(pair["official"]["nerd_rain_in_training"]["psnr"], abs=5e-5)
        assert score.ssim is None


def test_grey_is_taken_as_it_is(folder: Path, oracle: dict[str, Any]) -> None:
    pair = next(p for p in oracle["pairs"] if p["id"] == "rain200h-1")
    restored, clean = (read(folder, pair[side])[..., 1] for side in ("restored", "reference"))
    score = evaluation.matlab_y_uint8(restored, clean)
    assert score.psnr == pytest.approx(oracle["one_channel_case"]["psnr"], abs=1e-9)
    assert score.ssim == pytest.approx(oracle["one_channel_case"]["ssim"], abs=1e-9)


def test_scores_without_truth(folder: Path, oracle: dict[str, Any], fill: ModuleType) -> None:
    cases = []
    for pair in oracle["pairs"]:
        cases += [(read(folder, pair[side]), pair["no_reference"][side]) for side in pair["no_reference"]]
    for case in oracle["synthetic"]["cases"]:
        if "no_reference_restored" in case:
            cases.append((synthetic(fill, case)[0], case["no_reference_restored"]))
    assert len(cases) == 19
    comparable = 0
    for picture, stored in cases:
        for name, tolerance in (("niqe", 1e-6), ("brisque", 1e-5)):
            stable, live = (getattr(evaluation, f"{name}_{form}") for form in ("stable", "live"))
            assert stable(picture) == pytest.approx(stored[f"{name}_stable"], abs=tolerance)
            if stored.get("change_under_1e-9_noise", {f"{name}_live": 1})[f"{name}_live"] < tolerance:
                assert live(picture) == pytest.approx(stored[f"{name}_live"], abs=tolerance)
                comparable += 1
    assert comparable == 8


def test_rainy_pictures_of_rain100l_score_as_measured_with_the_published_scripts(shared: Path) -> None:
    """The odd half: 26.42 dB in luma, as the specification of Rain2Avoid states."""
    rainy, clean = (shared / "data" / "rain100l" / side for side in ("rainy", "clean"))
    (found,) = score_files(plan_scoring(rainy, clean, ["matlab_y_double"]), ["matlab_y_double"]).sets
    assert found.count == 50
    assert found.mean["psnr"] == pytest.approx(26.42, abs=0.005)
