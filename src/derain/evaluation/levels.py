"""The input of the protocols: two pictures of any kind become two arrays of grey levels, 0 to 255.

A picture is a NumPy array (H, W, 3) or (H, W), or a torch tensor (3, H, W), (1, H, W) or with a leading
batch axis of 1. It holds bytes, or floats in [0, 1]; channels are red, green, blue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from derain.errors import DerainError, refuse_unknown

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
AnyPicture: TypeAlias = "Array | Tensor"
Quantise = Literal["round", "floor"]


def byte_pair(
    restored: AnyPicture, clean: AnyPicture, smallest: int, quantise: Quantise = "round", other: str = "clean"
) -> tuple[Array, Array]:
    """Both pictures as bytes, (H, W, 3) or (H, W) uint8; errors call the second one by `other`.

    Floats are clamped to [0, 1] and turned into bytes: the restored picture by rounding (halves to
    even) or by `floor(255 x)`, as it would have been saved; the clean one always by rounding.

    Raises:
        DerainError: shapes differ, a side is under `smallest` pixels, a value is not finite, the type
            is neither bytes nor float, or the clean picture leaves [0, 1].
        UsageError: `quantise` is neither "round" nor "floor".
    """
    refuse_unknown("way to quantise", quantise, get_args(Quantise))
    a, b = _checked(restored, clean, smallest, other)
    return _bytes(a, np.rint if quantise == "round" else np.floor), _bytes(b, np.rint)


def float_pair(
    restored: AnyPicture, clean: AnyPicture, smallest: int, clamp: bool = True
) -> tuple[Array, Array]:
    """Both pictures as unrounded grey levels, (H, W, 3) or (H, W).

    Two pictures of bytes stay uint8; otherwise both are float64 in [0, 255], or beyond it where `clamp` is
    off and the restored picture leaves [0, 1]. Raises as `byte_pair` does.
    """
    a, b = _checked(restored, clean, smallest)
    if a.dtype == b.dtype == np.uint8:
        return a, b
    return _levels(a, clamp), _levels(b, clamp)


def single(picture: AnyPicture, smallest: int, quantise: Quantise = "round") -> Array:
    """One picture as bytes, (H, W, 3) or (H, W) uint8; raises as `byte_pair` does."""
    return byte_pair(picture, picture, smallest, quantise)[0]


def as_rgb(picture: Array) -> Array:
    """(H, W, 3): a grey picture becomes three equal channels."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def mask_of(picture: AnyPicture) -> Array:
    """(H, W) bool: where a picture, grey or colour, is in the upper half of its range.

    Raises:
        DerainError: the type is neither bytes nor float, a value is not finite, or most of the picture has
            many levels between dark and bright, and so is probably a photograph that was given by mistake.
    """
    levels = single(picture, 1)
    brightest = levels if levels.ndim == 2 else levels.max(axis=2)
    between = float(((brightest >= 32) & (brightest < 224)).mean())
    if between > 0.5 and np.unique(brightest).size > 16:
        raise DerainError(
            f"{100 * between:.0f} % of the mask is neither black nor white, so it is a picture and not a "
            "mask; a mask is white where it rains, and black elsewhere."
        )
    upper: Array = brightest >= 128
    return upper


def _checked(
    restored: AnyPicture, clean: AnyPicture, smallest: int, other: str = "clean"
) -> tuple[Array, Array]:
    a = _array(restored, "restored")
    b = a if clean is restored else _array(clean, other)
    if a.shape != b.shape:
        raise DerainError(
            f"the restored picture is {_size(a)} and the {other} one {_size(b)}; they must be equal."
        )
    if min(a.shape[:2]) < smallest:
        raise DerainError(f"the picture is {_size(a)}; this protocol needs {smallest} pixels a side.")
    if b.dtype != np.uint8 and (b.min() < 0 or b.max() > 1):
        raise DerainError(f"the {other} picture holds {b.min():g} to {b.max():g}; floats must be in [0, 1].")
    return a, b


def _array(picture: AnyPicture, role: str) -> Array:
    if isinstance(picture, np.ndarray):
        array = picture
    else:
        tensor = picture.detach().cpu()
        array = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
        if array.ndim == 4 and array.shape[0] == 1:
            array = array[0]
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        shape = tuple(picture.shape)
        raise DerainError(f"the {role} picture has shape {shape}; it must have one or three channels.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise DerainError(f"the {role} picture is {array.dtype}; scores are defined for 8 bits or floats.")
    if not np.isfinite(array).all():
        raise DerainError(f"the {role} picture holds values that are not finite.")
    return np.ascontiguousarray(array)


def _bytes(picture: Array, rounding: np.ufunc) -> Array:
    if picture.dtype == np.uint8:
        return picture
    levels: Array = rounding(_levels(picture, clamp=True)).astype(np.uint8)
    return levels


def _levels(picture: Array, clamp: bool) -> Array:
    if picture.dtype == np.uint8:
        return picture.astype(np.float64)
    levels = picture.astype(np.float64) * 255
    return np.clip(levels, 0, 255) if clamp else levels


def _size(picture: Array) -> str:
    channels = "" if picture.ndim == 3 else " grey"
    return f"{picture.shape[1]}x{picture.shape[0]}{channels}"
