"""NIQE and BRISQUE: scores of a picture without a reference; lower is better.

Both measure how far the statistics of locally normalised brightness are from those of natural pictures.
`*_live` follow the Matlab releases of the LIVE laboratory. Where a neighbourhood is exactly flat, they are
determined by rounding noise; `*_stable` set that noise to zero, and are the ones to report.

Sources: Mittal, Soundararajan, Bovik, "Making a Completely Blind Image Quality Analyzer", 2012; Mittal,
Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", 2012. The model numbers in
`live_models.npz` are theirs; see NOTICE.
"""

from __future__ import annotations

import functools
import math
from importlib.resources import files

import cv2
import numpy as np

from derain.errors import DerainError
from derain.evaluation.levels import AnyPicture, Array, Quantise, single
from derain.evaluation.luma import matlab_grey

BLOCK = 96  # pixels: side of the blocks whose statistics NIQE compares
NOISE = 1e-6  # normalised brightness below this is rounding noise

_WINDOW = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * (7 / 6) ** 2))
_WINDOW /= _WINDOW.sum()

_gamma = np.vectorize(math.gamma, otypes=[np.float64])


def niqe_live(picture: AnyPicture, quantise: Quantise = "round") -> float:
    """NIQE as LIVE published it; ill-conditioned on pictures with flat areas.

    Raises:
        DerainError: a side is under 96 pixels, there are fewer than two blocks of 96 x 96, or too few
            of them have any texture.
    """
    return _niqe(picture, quantise, noise=0)


def niqe_stable(picture: AnyPicture, quantise: Quantise = "round") -> float:
    """NIQE without the rounding noise of flat areas, the one to report.

    Raises:
        DerainError: as `niqe_live`.
    """
    return _niqe(picture, quantise, noise=NOISE)


def brisque_live(picture: AnyPicture, quantise: Quantise = "round") -> float:
    """BRISQUE as LIVE published it; ill-conditioned on pictures with flat areas.

    Raises:
        DerainError: a side is under 11 pixels, or the picture has no texture.
    """
    return _brisque(picture, quantise, noise=0)


def brisque_stable(picture: AnyPicture, quantise: Quantise = "round") -> float:
    """BRISQUE without the rounding noise of flat areas, the one to report.

    Raises:
        DerainError: as `brisque_live`.
    """
    return _brisque(picture, quantise, noise=NOISE)


def _niqe(picture: AnyPicture, quantise: Quantise, noise: float) -> float:
    grey = _grey(picture, BLOCK, quantise)
    rows, columns = (side // BLOCK for side in grey.shape)
    if rows * columns < 2:
        raise DerainError(f"the picture has one block of {BLOCK} x {BLOCK} pixels; NIQE needs two.")
    grey = grey[: rows * BLOCK, : columns * BLOCK]
    features = np.concatenate(
        [
            _niqe_features(_blocks(_normalised(plane, cv2.BORDER_REPLICATE, noise), rows, columns))
            for plane in (grey, _half(grey))
        ],
        axis=1,
    )
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        raise DerainError("the picture has too little texture for NIQE.")
    model = _models()
    distance = model["niqe_mean"] - np.nanmean(features, axis=0)
    spread = (model["niqe_cov"] + np.cov(complete, rowvar=False)) / 2
    return math.sqrt(distance @ np.linalg.pinv(spread) @ distance)


def _niqe_features(blocks: Array) -> Array:
    """(N, B, B) -> (N, 18): the asymmetric fit of each block and of its products of neighbours."""
    alpha, left, right = _asymmetric_fit(blocks)
    columns = [alpha, (left + right) / 2 * _scale(alpha)]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _asymmetric_fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        left, right = left * _scale(alpha), right * _scale(alpha)
        columns += [alpha, (right - left) * _mean_ratio(alpha), left, right]
    return np.stack(columns, axis=1)


def _brisque(picture: AnyPicture, quantise: Quantise, noise: float) -> float:
    grey = _grey(picture, 11, quantise)
    features = np.concatenate(
        [_brisque_features(_normalised(p, cv2.BORDER_CONSTANT, noise)) for p in (grey, _half(grey))]
    )
    if np.isnan(features).any():
        raise DerainError("the picture has too little texture for BRISQUE.")
    model = _models()
    low, high = model["brisque_range"].T
    scaled = -1 + 2 * (features - low) / (high - low)
    distances = ((model["brisque_sv"] - scaled) ** 2).sum(axis=1)
    kernel = np.exp(-model["brisque_gamma"] * distances)
    return float(model["brisque_coef"] @ kernel - model["brisque_rho"])


def _brisque_features(z: Array) -> Array:
    """(H, W) -> (18,): the symmetric fit of z, the asymmetric ones of its products of neighbours."""
    features = [*_symmetric_fit(z)]
    for shift in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        (alpha,), (left,), (right,) = _asymmetric_fit((z * np.roll(z, shift, axis=(0, 1)))[None])
        skew = (right - left) * _scale(alpha) * _mean_ratio(alpha)
        features += [alpha, skew, left**2, right**2]
    return np.array(features)


def _grey(picture: AnyPicture, smallest: int, quantise: Quantise) -> Array:
    levels = single(picture, smallest, quantise)
    return matlab_grey(levels) if levels.ndim == 3 else levels.astype(np.float64)


def _normalised(grey: Array, border: int, noise: float) -> Array:
    """Brightness minus its local mean, over its local deviation plus one; below `noise` it is zero."""
    mean, energy = (
        cv2.sepFilter2D(plane, cv2.CV_64F, _WINDOW, _WINDOW, borderType=border)
        for plane in (grey, grey * grey)
    )
    z: Array = (grey - mean) / (np.sqrt(np.abs(energy - mean * mean)) + 1)
    z[np.abs(z) < noise] = 0
    return z


def _half(grey: Array) -> Array:
    """Matlab's `imresize(grey, 0.5)`: bicubic with antialiasing, edges mirrored, (ceil(H/2), ceil(W/2)).

    Every output pixel lies halfway between two inputs, so all share one row of eight weights.
    """
    x = np.abs(np.arange(-3.5, 4)) / 2
    weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    weights /= weights.sum()
    filtered: Array = cv2.sepFilter2D(
        grey, cv2.CV_64F, weights, weights, anchor=(3, 3), borderType=cv2.BORDER_REFLECT
    )
    return filtered[::2, ::2]


def _blocks(plane: Array, rows: int, columns: int) -> Array:
    """(rows * B, columns * B) -> (rows * columns, B, B)."""
    side = plane.shape[0] // rows
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _asymmetric_fit(samples: Array) -> tuple[Array, Array, Array]:
    """Asymmetric generalised Gaussian of each of (N, H, W): shape, left and right deviation, (N,) each.

    A side without samples has the deviation NaN, and the shape is then the smallest of the grid.
    """
    squares = samples * samples
    with np.errstate(invalid="ignore"):
        left, right = (
            np.sqrt((squares * side).sum(axis=(1, 2)) / side.sum(axis=(1, 2)))
            for side in (samples < 0, samples > 0)
        )
        ratio = left / right
        rho = np.abs(samples).mean(axis=(1, 2)) ** 2 / squares.mean(axis=(1, 2))
        rho *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return _nearest_shape(_shapes()[1], rho), left, right


def _symmetric_fit(samples: Array) -> tuple[float, float]:
    """Generalised Gaussian of the samples: shape and variance."""
    variance = float((samples * samples).mean())
    with np.errstate(invalid="ignore"):
        kurtosis = variance / np.abs(samples).mean() ** 2
    return float(_nearest_shape(1 / _shapes()[1], np.array([kurtosis]))[0]), variance


def _nearest_shape(table: Array, values: Array) -> Array:
    """The shapes whose monotone `table` entries are nearest to `values`; the first for NaN and on ties."""
    ascending = table[-1] > table[0]
    after = np.searchsorted(table if ascending else -table, values if ascending else -values)
    after = np.clip(after, 1, len(table) - 1)
    nearer_before = np.abs(table[after - 1] - values) <= np.abs(table[after] - values)
    index = np.where(np.isnan(values), 0, np.where(nearer_before, after - 1, after))
    shapes: Array = _shapes()[0][index]
    return shapes


@functools.cache
def _shapes() -> tuple[Array, Array]:
    """The grid of shapes 0.2, 0.201, ..., 10 and Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)), increasing."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, _gamma(2 / shapes) ** 2 / (_gamma(1 / shapes) * _gamma(3 / shapes))


def _scale(alpha: Array) -> Array:
    """sqrt(Gamma(1/a) / Gamma(3/a)) of each shape."""
    scale: Array = np.sqrt(_gamma(1 / alpha) / _gamma(3 / alpha))
    return scale


def _mean_ratio(alpha: Array) -> Array:
    """Gamma(2/a) / Gamma(1/a) of each shape."""
    ratio: Array = _gamma(2 / alpha) / _gamma(1 / alpha)
    return ratio


@functools.cache
def _models() -> dict[str, Array]:
    with (files("derain.evaluation") / "live_models.npz").open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}
