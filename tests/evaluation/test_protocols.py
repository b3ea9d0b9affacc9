"""What every protocol promises: identity, symmetry, less for more noise, and refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from derain import DerainError, UsageError
from derain.evaluation import PROTOCOLS, matlab_y_uint8, protocol, protocols, rgb_psnr
from derain.evaluation.luma import studio_luma_bytes
from derain.evaluation.similarity import gaussian_ssim

WITH_TRUTH = [p for p in PROTOCOLS.values() if p.needs == ("clean",)]
names = pytest.mark.parametrize("p", WITH_TRUTH, ids=lambda p: p.name)
SMALLEST = {"skimage_rgb": 7, "skimage_rgb_range1": 7, "raindrop_y": 8, "rgb_psnr": 1}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noisy(clean: np.ndarray, amount: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, clean.shape)
    return np.clip(np.rint(clean + amount * noise), 0, 255).astype(np.uint8)


@names
@given(height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_equal_pictures_are_perfect(p, height: int, width: int, seed: int) -> None:
    clean = picture(height, width, seed)
    scores = p(clean, clean.copy())
    assert scores["psnr"] == (100 if p.name == "zero_pad_rgb" else math.inf)
    assert scores.get("ssim", 1) == pytest.approx(1, abs=1e-14)


@names
@given(height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_order_does_not_matter(p, height: int, width: int, seed: int) -> None:
    a, b = picture(height, width, seed), picture(height, width, seed + 1)
    assert p(a, b) == p(b, a)


@names
@given(seed=st.integers(0, 99))
@settings(max_examples=8)
def test_more_noise_scores_less(p, seed: int) -> None:
    clean = (picture(48, 40, seed) // 4 + 96).astype(np.uint8)
    scores = [p(noisy(clean, amount, seed), clean) for amount in (2, 6, 18)]
    for better, worse in itertools.pairwise(scores):
        assert all(better[measure] > worse[measure] for measure in better)


@names
def test_tensors_and_floats_score_as_the_bytes_they_hold(p) -> None:
    clean, restored = picture(30, 26), picture(30, 26, seed=1)
    expected = p(restored, clean)
    doubles = [x.astype(np.float64) / 255 for x in (restored, clean)]
    tensors = [torch.from_numpy(x).permute(2, 0, 1) for x in doubles]
    for a, b in (doubles, tensors, [t[None] for t in tensors], (tensors[0], clean)):
        assert p(a, b) == pytest.approx(expected, abs=1e-11)


@names
def test_refusals_name_the_reason(p) -> None:
    good, side = picture(30, 26), SMALLEST.get(p.name, 11)
    assert p(good[:side, :side], good[:side, :side].copy())
    bad = good.astype(np.float64) / 255
    bad[3, 4, 1] = np.nan
    cases = {
        "26x30 and the clean one 26x29": (good, good[:29]),
        "26x30 grey and the clean one 26x30;": (good[..., 0], good),
        "not finite": (bad, good),
        "uint16": (good.astype(np.uint16), good),
        "one or three channels": (np.zeros((30, 26, 4), np.uint8), good),
        "must be in": (good / 255, good.astype(np.float64)),
    }
    if side > 1:
        cases[f"needs {side} pixels"] = (good[: side - 1], good[: side - 1])
    for reason, (restored, clean) in cases.items():
        with pytest.raises(DerainError, match=reason):
            p(restored, clean)


def test_floats_become_bytes_as_the_scripts_save_them() -> None:
    clean = picture(20, 20)
    result = clean / 255 + 0.6 / 255
    rounded = np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8)
    floored = np.floor(np.clip(result, 0, 1) * 255).astype(np.uint8)
    assert matlab_y_uint8(result, clean) == matlab_y_uint8(rounded, clean)
    assert matlab_y_uint8(result, clean, quantise="floor") == matlab_y_uint8(floored, clean)
    assert matlab_y_uint8(result, clean / 255, quantise="floor").psnr == math.inf
    with pytest.raises(UsageError, match=r"unknown way to quantise 'ceil'\. Known: floor, round"):
        matlab_y_uint8(result, clean, quantise="ceil")  # type: ignore[arg-type]


def test_only_the_test_of_udr_s2former_sees_values_beyond_the_range() -> None:
    clean = picture(20, 20)
    wild = clean / 255 + np.random.default_rng(2).normal(0, 0.3, clean.shape)
    clamped = np.clip(wild, 0, 1)
    for p in WITH_TRUTH:
        assert (p(wild, clean) == p(clamped, clean)) == (p.name != "udr_test_y"), p.name


def test_grey_pictures() -> None:
    a, b = picture(20, 20)[..., 0], picture(20, 20, seed=1)[..., 0]
    colour = [np.repeat(x[..., None], 3, axis=2) for x in (a, b)]
    assert matlab_y_uint8(a, b).ssim == gaussian_ssim(a, b)
    assert matlab_y_uint8(a[..., None], b[..., None]) == matlab_y_uint8(a, b)
    assert matlab_y_uint8(*colour) != matlab_y_uint8(a, b)
    with pytest.raises(DerainError, match="colour pictures only"):
        protocols.matlab_y_double(a, b)
    for p in WITH_TRUTH:
        if not p.name.startswith("matlab"):
            assert p(a, b) == pytest.approx(p(*colour), abs=1e-12), p.name


def test_byte_luma_is_exact_for_every_sum() -> None:
    """Against the definition in integers, all 256 greys and the colours that end half way."""
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    rgb[0, :256] = np.arange(256)[:, None]
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    total = 299 * r + 587 * g + 114 * b
    expected = (438 * total + 2 * 16 * 255000 + 255000) // 510000
    assert (np.isin(total, (42500, 127500, 212500))).any()
    np.testing.assert_array_equal(studio_luma_bytes(rgb), expected)


def test_a_black_result_gets_peak_1_in_basicsr_rgb() -> None:
    black, clean = np.zeros((20, 20, 3), np.uint8), picture(20, 20)
    mse = (clean.astype(np.float64) ** 2).mean()
    assert protocols.basicsr_rgb(black, clean).psnr == pytest.approx(-10 * np.log10(mse))


def test_rgb_psnr_has_no_ssim() -> None:
    assert rgb_psnr(picture(1, 1), picture(1, 1, seed=1)).ssim is None
    assert PROTOCOLS["rgb_psnr"].measures == ("psnr",)


def test_unknown_protocol_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'matlab_y_uint8'"):
        protocol("matlab_y_unit8")


def test_a_protocol_with_truth_needs_it() -> None:
    with pytest.raises(UsageError, match="compares with the clean picture"):
        protocol("toolbox_y")(picture(20, 20))
