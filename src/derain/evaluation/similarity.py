"""PSNR and the structural similarity (SSIM) maps of the protocols.

    S = (2 m1 m2 + C1)(2 v12 + C2) / ((m1^2 + m2^2 + C1)(v1 + v2 + C2)),  C1 = (0.01 L)^2, C2 = (0.03 L)^2

with weighted means m, variances v and covariance v12 over a window around each pixel. Source: Wang et al.,
"Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.

Only v1 + v2 is needed, so four planes are blurred (a, b, a^2 + b^2, ab) instead of five; the Gaussian is
separable; and the map is computed and summed in strips of rows, so memory does not grow with the height.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from derain.evaluation.levels import Array

Border = Literal["valid", "replicate", "zero"]
Blur = Callable[[Array, Array], None]  # blurs a float64 plane into another of the same size

GAUSSIAN = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
GAUSSIAN /= GAUSSIAN.sum()
_BORDERS = {"replicate": cv2.BORDER_REPLICATE, "zero": cv2.BORDER_CONSTANT}
_STRIP = 64  # rows of the map that are computed at once


def psnr(a: Array, b: Array, peak: float = 255) -> float:
    """10 log10(peak^2 / mean squared error) in dB, infinite for equal pictures of any shape."""
    squares: float = cv2.norm(a, b, cv2.NORM_L2SQR)
    return 10 * math.log10(peak**2 * a.size / squares) if squares else math.inf


def gaussian_ssim(a: Array, b: Array, border: Border = "valid", peak: float = 255) -> float:
    """Mean SSIM under an 11 x 11 Gaussian (sigma 1.5), population variances.

    Args:
        a, b: (H, W) or (H, W, C); the mean runs over channels too.
        border: "valid" keeps (H-10) x (W-10) pixels of the map, the others all of it, with the edges extended
            by replication or by zeros.
        peak: L of the formula.
    """
    return _mean_ssim(*_extended(a, b, border), _gaussian_blur, 5, 1.0, peak)


def volume_ssim(a: Array, b: Array, peak: float = 255) -> float:
    """Mean SSIM of (H, W, 3) pictures taken as volumes: an 11 x 11 x 11 Gaussian, edges replicated.

    The colour axis is blurred, too. As it has three entries and replicated ends, that is a 3 x 3 matrix.
    """
    across = np.zeros((3, 3))
    for channel in range(3):
        for offset, weight in zip(range(-5, 6), GAUSSIAN, strict=True):
            across[min(max(channel + offset, 0), 2), channel] += weight

    def blur(plane: Array, out: Array) -> None:
        _gaussian_blur(plane, out)
        out[...] = out @ across

    return _mean_ssim(*_extended(a, b, "replicate"), blur, 5, 1.0, peak)


def uniform_ssim(a: Array, b: Array, peak: float = 255) -> float:
    """Mean SSIM under a 7 x 7 box, sample variances (49/48), without 3 pixels at each edge.

    The arguments are those of `gaussian_ssim`.
    """
    return _mean_ssim(a, b, _box_blur, 3, 49 / 48, peak)


def _mean_ssim(a: Array, b: Array, blur: Blur, margin: int, correction: float, peak: float) -> float:
    """Mean of the map without `margin` at each edge; variances are multiplied by `correction`.

    The map is computed in place, in buffers of one strip: at this size the time is spent on memory traffic,
    not on arithmetic. A common factor of 4 is left to the end, and the correction is moved into C2.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2 / correction
    rows = a.shape[0] - 2 * margin
    buffers = np.empty((5, min(_STRIP, rows) + 2 * margin, *a.shape[1:]))
    total = 0.0
    for top in range(0, rows, _STRIP):
        height = min(_STRIP, rows - top) + 2 * margin
        x, y, product, mean_x, mean_y = buffers[:, :height]
        x[...], y[...] = a[top : top + height], b[top : top + height]
        np.multiply(x, y, out=product)
        blur(x, mean_x)
        blur(y, mean_y)
        x *= x
        y *= y
        x += y
        variances, covariance = y, x
        blur(x, variances)
        blur(product, covariance)

        means = np.multiply(mean_x, mean_y, out=product)
        mean_x *= mean_x
        mean_y *= mean_y
        mean_x += mean_y
        variances -= mean_x
        covariance -= means
        means += c1 / 2
        covariance += c2 / 2
        mean_x += c1
        variances += c2
        means *= covariance
        mean_x *= variances
        means /= mean_x
        total += float(means[margin:-margin, margin:-margin].sum())
    entries: int = rows * (a[0].size - 2 * margin * a[0, 0].size)
    return 4 * total / entries


def _gaussian_blur(plane: Array, out: Array) -> None:
    cv2.sepFilter2D(plane, cv2.CV_64F, GAUSSIAN, GAUSSIAN, dst=out)


def _box_blur(plane: Array, out: Array) -> None:
    cv2.blur(plane, (7, 7), dst=out)


def _extended(a: Array, b: Array, border: Border) -> tuple[Array, Array]:
    if border == "valid":
        return a, b
    extended = [cv2.copyMakeBorder(x, 5, 5, 5, 5, _BORDERS[border], value=(0, 0, 0, 0)) for x in (a, b)]
    return extended[0], extended[1]


def shrink(plane: Array, factor: int) -> Array:
    """Matlab's box mean of factor x factor (edges mirrored), then every factor-th row and column.

    Output i is the mean of inputs i f - floor((f-1)/2) ... i f + ceil((f-1)/2); (H, W) becomes
    (ceil(H/f), ceil(W/f)).
    """
    centre = (factor - 1) // 2
    means: Array = cv2.blur(plane, (factor, factor), anchor=(centre, centre), borderType=cv2.BORDER_REFLECT)
    return means[::factor, ::factor]
