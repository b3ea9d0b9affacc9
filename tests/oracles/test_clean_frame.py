"""SPANet's clean frame against the published notebook (`official`) and its exact definition (`fixed`)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from background import plain
from derain.background import clean_frame
from derain.background.histories import modes, sort_histories
from derain.background.votes import luma

CLIPS = ["clip_a", "clip_odd"]


@pytest.fixture(params=CLIPS)
def oracle(request: pytest.FixtureRequest, shared: Path) -> dict[str, Any]:
    folder = shared / "oracles" / "clean_frame"
    facts = json.loads((folder / f"{request.param}.json").read_text())
    with (
        np.load(folder / f"{request.param}.npz") as clip,
        np.load(folder / f"{request.param}_out.npz") as out,
    ):
        return {**facts, **clip, **out}


@pytest.mark.parametrize("variant", ["fixed", "official"])
def test_votes_percentile_and_picture_are_exact(oracle: dict[str, Any], variant: Any) -> None:
    result = clean_frame(np.ascontiguousarray(oracle["clip"]), variant)
    np.testing.assert_array_equal(result.votes, oracle[f"votes_{variant}"])
    assert result.percentile == oracle[f"percentile_{variant}"]
    np.testing.assert_array_equal(result.picture, oracle[f"final_{variant}"])


@pytest.mark.parametrize("variant", ["fixed", "official"])
def test_luma_modes_and_ranks_are_exact(oracle: dict[str, Any], variant: Any) -> None:
    clip = np.ascontiguousarray(oracle["clip"])
    frames, height, width = clip.shape[:3]
    columns = np.arange(height * width) % width
    grey = luma(clip.reshape(frames, -1, 3), columns, variant)
    size = (height, width)
    np.testing.assert_array_equal(grey[0].reshape(size), oracle[f"y_first_frame_{variant}"])
    found = modes(sort_histories(grey))
    np.testing.assert_array_equal(found.value.reshape(size), oracle[f"mode_{variant}"].reshape(size))
    counts = found.last.astype(int) - found.first + 1
    np.testing.assert_array_equal(counts.reshape(size), oracle[f"mode_count_{variant}"].reshape(size))
    if variant == "official":
        for ranks, name in ((found.first, "low"), (found.last, "high")):
            percent = ranks / frames * 100
            np.testing.assert_array_equal(
                percent.reshape(size), oracle[f"rank_{name}_official"].reshape(size)
            )


@pytest.mark.parametrize("variant", ["fixed", "official"])
def test_as_good_as_the_published_method(oracle: dict[str, Any], variant: Any) -> None:
    picture = clean_frame(np.ascontiguousarray(oracle["clip"]), variant).picture
    error = ((picture.astype(float) - oracle["background"]) ** 2).mean()
    psnr = 10 * np.log10(255**2 / error)
    assert psnr == pytest.approx(oracle[f"psnr_{variant}"], abs=1e-9)
    assert psnr >= oracle["psnr_official"] - 1e-9
    assert psnr > oracle["psnr_min"]


def test_the_plain_loop_is_the_definition(shared: Path) -> None:
    folder = shared / "oracles" / "clean_frame"
    with np.load(folder / "clip_odd.npz") as clip, np.load(folder / "clip_odd_out.npz") as out:
        for variant in ("fixed", "official"):
            picture, votes = plain.clean_frame(clip["clip"], variant)
            np.testing.assert_array_equal(picture, out[f"final_{variant}"])
            np.testing.assert_array_equal(votes, out[f"votes_{variant}"])
