import numpy as np
import pytest
import torch
from torch import Tensor

from derain.restore.temporal import RADIUS, steady, weighted_mean


def scene(frames: int, speed: float) -> Tensor:
    """(T, 3, 64, 96): a texture that moves `speed` pixels a frame."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    pictures = [
        0.5
        + 0.2 * torch.sin((x + speed * t) / 6) * torch.cos(y / 9)
        + 0.1 * torch.sin((x + speed * t + y) / 2.5)
        for t in range(frames)
    ]
    return torch.stack(pictures)[:, None].repeat(1, 3, 1, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


def flicker(result: Tensor, truth: Tensor) -> float:
    """Root mean square of the change of the error from frame to frame, in levels of 255."""
    error = result - truth
    return float(255 * ((error[1:] - error[:-1]) ** 2).mean().sqrt())


@pytest.mark.parametrize(("speed", "gain"), [(0.0, 4.0), (0.1, 2.5)])
def test_less_flicker_and_no_less_psnr_on_still_and_slow_scenes(speed: float, gain: float) -> None:
    truth = scene(20, speed)
    rng = torch.Generator().manual_seed(0)
    # What a network leaves: noise, and traces of streaks that are elsewhere in every frame.
    noisy = truth + 0.012 * torch.randn(truth.shape, generator=rng)
    traces = (torch.rand((20, 1, 64, 96), generator=rng) < 0.03).float()
    noisy = noisy + 0.04 * torch.nn.functional.max_pool2d(traces, (5, 1), 1, (2, 0))
    result = torch.stack(list(steady(iter(noisy))))
    assert flicker(result, truth) < 0.6 * flicker(noisy, truth)
    assert psnr(result, truth) > psnr(noisy, truth) + gain


def test_moving_things_neither_smear_nor_vanish() -> None:
    truth = scene(12, 0.0)
    for t in range(12):
        truth[t, :, 20:36, 6 * t : 6 * t + 16] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    result = torch.stack(list(steady(iter(truth))))
    assert psnr(result, truth) > 40
    assert (result - truth).abs().max() < 0.1


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 9])
def test_every_frame_comes_out_in_order(frames: int) -> None:
    images = torch.arange(frames, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 8, 8)
    result = torch.stack(list(steady(iter(images))))
    np.testing.assert_allclose(result, images, atol=1e-5)  # whole levels apart: none agrees with another


def test_the_window_is_centred() -> None:
    images = [torch.full((3, 8, 8), 0.5 + t / 1000) for t in range(9)]
    for number, image in enumerate(steady(iter(images))):
        first, last = max(0, number - RADIUS), min(9, number + RADIUS + 1)
        torch.testing.assert_close(image, weighted_mean(images[first:last], number - first))
