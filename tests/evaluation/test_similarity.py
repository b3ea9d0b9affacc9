"""The strip-wise similarity equals the plain formulation at every size and border."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity

from derain.evaluation import similarity

Array = np.ndarray


def plain_ssim(a: Array, b: Array, border: str, peak: float, axes: tuple[int, ...] = (0, 1)) -> float:
    """Five direct correlations of whole planes and the formula as it is printed."""
    mode = {"valid": "reflect", "replicate": "nearest", "zero": "constant"}[border]

    def blur(x: Array) -> Array:
        for axis in axes:
            x = ndimage.correlate1d(x, similarity.GAUSSIAN, axis, mode=mode)
        return x[5:-5, 5:-5] if border == "valid" else x

    a, b = a.astype(np.float64), b.astype(np.float64)
    m1, m2, aa, bb, ab = blur(a), blur(b), blur(a * a), blur(b * b), blur(a * b)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * m1 * m2 + c1) * (2 * (ab - m1 * m2) + c2)
    return float((top / ((m1**2 + m2**2 + c1) * (aa - m1**2 + bb - m2**2 + c2))).mean())


def pair(height: int, width: int, channels: int, seed: int) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    a = random.integers(0, 256, shape, dtype=np.uint8)
    return a, np.clip(a + random.normal(0, 20, shape), 0, 255).astype(np.uint8)


@given(
    height=st.integers(11, 160),
    width=st.integers(11, 40),
    channels=st.sampled_from([1, 3]),
    border=st.sampled_from(["valid", "replicate", "zero"]),
    peak=st.sampled_from([1.0, 255.0, 510.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_gaussian_equals_the_plain_formulation(
    height: int, width: int, channels: int, border: str, peak: float, seed: int
) -> None:
    a, b = pair(height, width, channels, seed)
    assert similarity.gaussian_ssim(a, b, border, peak) == pytest.approx(
        plain_ssim(a, b, border, peak), abs=1e-11
    )


@pytest.mark.parametrize("size", [(11, 11), (64, 30), (75, 31), (138, 20)])
def test_volume_equals_the_plain_formulation(size: tuple[int, int]) -> None:
    a, b = pair(*size, 3, seed=1)
    plain = plain_ssim(a, b, "replicate", 255, axes=(0, 1, 2))
    assert similarity.volume_ssim(a, b) == pytest.approx(plain, abs=1e-11)


@pytest.mark.parametrize("size", [(7, 7), (64, 9), (71, 40), (135, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_uniform_equals_scikit_image(size: tuple[int, int], channels: int) -> None:
    a, b = pair(*size, channels, seed=2)
    axis = -1 if channels == 3 else None
    for peak in (255, 510):
        expected = structural_similarity(a, b, data_range=peak, channel_axis=axis)
        assert similarity.uniform_ssim(a, b, peak) == pytest.approx(expected, abs=1e-11)


def test_gaussian_equals_scikit_image() -> None:
    a, b = pair(150, 60, 1, seed=3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(a, b, data_range=255, **options)
    assert similarity.gaussian_ssim(a, b) == pytest.approx(expected, abs=1e-11)


@given(st.integers(11, 40), st.integers(11, 40), st.integers(2, 6), st.integers(0, 9))
@settings(max_examples=30)
def test_shrinking_is_a_mean_of_mirrored_neighbours(height: int, width: int, factor: int, seed: int) -> None:
    plane = np.random.default_rng(seed).random((height, width))
    padded = np.pad(plane, 8, mode="symmetric")
    expected = [
        [
            padded[
                y - (factor - 1) // 2 : y + factor // 2 + 1, x - (factor - 1) // 2 : x + factor // 2 + 1
            ].mean()
            for x in range(8, 8 + width, factor)
        ]
        for y in range(8, 8 + height, factor)
    ]
    np.testing.assert_allclose(similarity.shrink(plane, factor), expected, atol=1e-12)


def test_squared_errors_of_many_bytes_lose_nothing() -> None:
    a = np.random.default_rng(0).integers(0, 2, (1100, 1900, 3), dtype=np.uint8) * 255
    a[0, 0, 0] = 1
    b = 255 - a
    squares = int(((a.astype(np.int64) - b) ** 2).sum())
    assert similarity.psnr(a, b) == pytest.approx(10 * math.log10(255**2 * a.size / squares), abs=1e-14)
    assert similarity.psnr(a, a) == np.inf


def test_threads_do_not_matter() -> None:
    a, b = pair(200, 200, 1, seed=4)
    threads = cv2.getNumThreads()
    try:
        values = set()
        for count in (1, 4):
            cv2.setNumThreads(count)
            values.add(similarity.gaussian_ssim(a, b))
    finally:
        cv2.setNumThreads(threads)
    assert len(values) == 1
