"""1x1 convolutions by the faster of the two kernels that PyTorch has for them on a CPU.

With one thread `F.conv2d` sends them to a general matrix product; the vendor's convolution kernel,
which it takes with two threads, is up to twice as fast on channels-last data of odd widths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.nn.tracing import constant, is_tracing


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution with gradients.

    Args:
        x: (B, C, H, W), best in channels-last memory.
        weight: (C', C, 1, 1).
        bias: (C',) or None.

    Returns:
        (B, C', H, W).
    """
    if _vendor_kernel_fits(x):
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)
    return F.conv2d(x, constant(weight), bias)


def _vendor_kernel_fits(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
        and not is_tracing()
    )
