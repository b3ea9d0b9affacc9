"""Pictures to tensors and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from derain.errors import DerainError
from derain.pictures import Picture, to_rgb8, to_tensor, with_pixels
from derain.pictures.picture import grey_pixels


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    channels = draw(st.sampled_from([1, 3]))
    pixels = draw(arrays.arrays(dtype, (height, width, channels)))
    alpha = draw(st.none() | arrays.arrays(dtype, (height, width)))
    return Picture(pixels, alpha, exif=b"Exif\0\0...", icc=b"icc", dpi=(72.0, 72.0))


@given(pictures())
def test_there_and_back_is_the_same_to_the_bit(picture: Picture) -> None:
    back = with_pixels(picture, to_tensor(picture))
    assert back.pixels.dtype == picture.pixels.dtype
    assert np.array_equal(back.pixels, picture.pixels)
    assert back.alpha is picture.alpha
    assert (back.exif, back.icc, back.dpi) == (picture.exif, picture.icc, picture.dpi)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_value_comes_back(dtype: type, channels: int) -> None:
    count = int(np.iinfo(dtype).max) + 1
    values = np.arange(count).astype(dtype).reshape(count // 16, 16, 1)
    picture = Picture(values.repeat(channels, axis=2))
    assert np.array_equal(with_pixels(picture, to_tensor(picture)).pixels, picture.pixels)


@given(pictures())
def test_the_tensor_is_rgb_in_the_unit_interval(picture: Picture) -> None:
    tensor = to_tensor(picture)
    assert tensor.shape == (1, 3, *picture.size)
    assert tensor.dtype == torch.float32
    in_memory = tensor.permute(0, 2, 3, 1) if picture.pixels.shape[2] == 3 else tensor
    assert in_memory.is_contiguous()
    expected = torch.from_numpy(picture.pixels.astype(np.float32)) / picture.largest
    assert torch.equal(tensor[0], expected.permute(2, 0, 1).expand(3, -1, -1))
    before = picture.pixels.copy()
    tensor.add_(1)  # has its own memory
    assert np.array_equal(picture.pixels, before)
    assert torch.equal(tensor[0], 1 + expected.permute(2, 0, 1).expand(3, -1, -1))


@given(arrays.arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)), st.sampled_from([255, 65535]))
def test_grey_of_equal_channels_is_exact(values: np.ndarray, largest: int) -> None:
    dtype = np.uint8 if largest == 255 else np.uint16
    tensor = torch.from_numpy(values).expand(1, 3, 4, 5)
    grey = with_pixels(Picture(np.zeros((4, 5, 1), dtype)), tensor)
    exact = np.round(values.astype(np.float64) * largest)
    assert np.array_equal(grey.pixels[..., 0], exact)


def test_grey_is_the_mean_of_the_channels() -> None:
    tensor = torch.tensor([0.1, 0.2, 0.5]).view(3, 1, 1)
    grey = with_pixels(Picture(np.zeros((1, 1, 1), np.uint16)), tensor)
    assert grey.pixels.item() == round(0.8 / 3 * 65535)


def test_values_are_clamped_and_rounded_half_to_even() -> None:
    picture = Picture(np.zeros((1, 6, 3), np.uint8))
    values = torch.tensor([-0.5, 1.5, 0.5, 2.5 / 255, 3.5 / 255, 254.6 / 255])
    pixels = with_pixels(picture, values.expand(3, 1, 6)).pixels
    assert pixels[0, :, 0].tolist() == [0, 255, 128, 2, 4, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_gradients_are_taken(dtype: torch.dtype) -> None:
    picture = Picture(np.zeros((2, 2, 3), np.uint16))
    tensor = torch.ones(1, 3, 2, 2, dtype=dtype, requires_grad=True)
    assert (with_pixels(picture, tensor).pixels == 65535).all()


def test_the_restored_tensor_is_left_alone() -> None:
    tensor = torch.full((1, 3, 2, 2), 0.5)
    with_pixels(Picture(np.zeros((2, 2, 3), np.uint8)), tensor)
    grey_pixels(tensor[:, :1])
    assert (tensor == 0.5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DerainError, match="not finite"):
        with_pixels(Picture(np.zeros((2, 2, 3), np.uint8)), torch.full((1, 3, 2, 2), value))


def test_a_tensor_of_another_size_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        with_pixels(Picture(np.zeros((2, 2, 3), np.uint8)), torch.zeros(1, 3, 2, 3))


def test_maps_become_grey_pixels_of_8_bits() -> None:
    pixels = grey_pixels(torch.tensor([[[[0.0, 0.5, 1.0, 2.0]]]]))
    assert pixels.dtype == np.uint8
    assert pixels[..., 0].tolist() == [[0, 128, 255, 255]]


def test_colours_to_look_at() -> None:
    deep = Picture(np.array([0, 128, 129, 257, 65535, 65407, 65406], np.uint16).reshape(1, 7, 1))
    shown = to_rgb8(deep)
    assert shown.shape == (1, 7, 3)
    assert shown.dtype == np.uint8
    assert shown[0, :, 1].tolist() == [0, 0, 1, 1, 255, 255, 254]
