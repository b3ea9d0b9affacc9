"""Pictures in memory (PIL, NumPy, PyTorch), restored as the same kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from derain.errors import DerainError, UsageError, wrong_type
from derain.pictures import Picture, to_tensor, with_pixels

# Maps (B, 3, H, W) float RGB in [0, 1], of the given bits per channel, to the same.
Restore = Callable[[Tensor, int], Tensor]
FLOATS = 32  # the bits per channel that floats count as


def restore_pil(picture: Image.Image, restore: Restore) -> Image.Image:
    """Restores an upright picture of mode RGB, L, RGBA or LA; keeps its alpha and everything else it carries.

    Raises:
        DerainError: it has another mode.
    """
    if picture.mode not in ("RGB", "L", "RGBA", "LA"):
        raise DerainError(f"a PIL picture of mode {picture.mode}: convert it to RGB, L, RGBA or LA first.")
    upright = pil_upright(picture)
    bands = np.asarray(upright)
    colour = {"LA": bands[..., 0], "RGBA": bands[..., :3]}.get(picture.mode, bands)
    restored = Image.fromarray(restore_array(colour, restore))
    if picture.mode in ("RGBA", "LA"):
        restored.putalpha(upright.getchannel("A"))
    restored.info = dict(upright.info)
    return restored


def pil_upright(picture: Image.Image) -> Image.Image:
    """The picture, turned upright as its Exif says; unchanged where that cannot be read."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow raises errors of many kinds for damaged Exif
        return picture


def restore_array(array: NDArray[Any], restore: Restore) -> NDArray[Any]:
    """Restores an array (H, W), (H, W, 1) or (H, W, 3), uint8, uint16 or float in [0, 1].

    Raises:
        DerainError: it has another shape or type, or other values.
    """
    planes, bits = _array_planes(array)
    restored = restore(planes, bits)
    if array.dtype in (np.uint8, np.uint16):
        found = Picture(pixels=array.reshape(*array.shape[:2], -1))
        return with_pixels(found, restored).pixels.reshape(array.shape)
    image = restored[0]
    if array.ndim == 2 or array.shape[2] == 1:
        image = image.mean(0, keepdim=True)
    return image.permute(1, 2, 0).numpy().reshape(array.shape).astype(array.dtype)


def restore_tensor(tensor: Tensor, restore: Restore) -> Tensor:
    """Restores a tensor (3, H, W) or (B, 3, H, W), float in [0, 1], on any device.

    Raises:
        DerainError: it has another shape or type, or other values.
    """
    batch = tensor_batch(tensor)
    _refuse_beyond(batch)
    image = restore(batch, FLOATS)
    return image.reshape(tensor.shape).to(tensor.device, tensor.dtype)


def picture_planes(picture: Any) -> tuple[Tensor, int]:
    """A PIL picture, an array or a tensor as (1, 3, H, W) float32 in [0, 1], and its bits per channel.

    Raises:
        DerainError: it is none of these, of a mode that is not plain colour or grey, or a batch of several.
    """
    if isinstance(picture, Image.Image):
        if picture.mode.startswith(("I", "F")):  # Pillow would cut their values off at 255
            raise DerainError(
                f"a PIL picture of mode {picture.mode}: give an array of uint16 or floats instead."
            )
        try:
            picture = np.asarray(pil_upright(picture).convert("RGB"))
        except ValueError as error:
            raise DerainError(f"a PIL picture of mode {picture.mode}: convert it to RGB first.") from error
    if isinstance(picture, np.ndarray):
        return _array_planes(picture)
    if isinstance(picture, Tensor):
        batch = tensor_batch(picture)
        _refuse_beyond(batch)
        if len(batch) == 1:
            return batch, FLOATS
        raise DerainError(f"a batch of {len(batch)} pictures; give them one by one.")
    raise no_picture(picture)


def no_picture(given: object) -> UsageError:
    """The error for an object that is not a picture of any kind."""
    return wrong_type("a picture", given, "a path, a PIL picture, an array or a tensor")


def _array_planes(array: NDArray[Any]) -> tuple[Tensor, int]:
    if not array.size:
        raise DerainError(f"an array of shape {array.shape} is empty: it has no pixels.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise DerainError(f"an array of shape {array.shape}: (H, W), (H, W, 1) or (H, W, 3) is needed.")
    if array.dtype in (np.uint8, np.uint16):
        found = Picture(pixels=array.reshape(*array.shape[:2], -1))
        return to_tensor(found), found.bits
    if array.dtype.kind != "f":
        raise DerainError(f"an array of {array.dtype}: uint8, uint16 or float in [0, 1] is needed.")
    planes = torch.from_numpy(np.ascontiguousarray(array.reshape(*array.shape[:2], -1), np.float32))
    _refuse_beyond(planes)
    return planes.permute(2, 0, 1).expand(3, -1, -1)[None], FLOATS


def tensor_batch(tensor: Tensor) -> Tensor:
    """(3, H, W) or (B, 3, H, W) of any float type, on any device, as (B, 3, H, W) float32 on the CPU.

    Raises:
        DerainError: it has another shape or type.
    """
    if not tensor.numel():
        raise DerainError(f"a tensor of shape {tuple(tensor.shape)} is empty: it has no pixels.")
    is_picture = tensor.ndim in (3, 4) and tensor.shape[-3] == 3
    if not is_picture or not tensor.is_floating_point():
        given = f"a {tensor.dtype} tensor {tuple(tensor.shape)}"
        raise DerainError(f"{given}: float (3, H, W) or (B, 3, H, W) in [0, 1] is needed.")
    return tensor.detach().cpu().float().reshape(-1, *tensor.shape[-3:])


def _refuse_beyond(values: Tensor) -> None:
    """Raises `DerainError` for values outside [0, 1]; lets through those that are not finite."""
    low, high = (float(value) for value in torch.aminmax(values))
    if low < 0 or high > 1:
        raise DerainError(f"the picture holds values from {low:g} to {high:g}; floats must be in [0, 1].")
