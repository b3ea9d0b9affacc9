"""1x1 convolutions that do not slow down training on a CPU.

On one thread PyTorch sends them to a general matrix product. The vendor's convolution, which it takes on two
threads, is faster by a quarter, and twice as fast for odd numbers of channels such as 254.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from derain.nn.tracing import is_tracing


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a 1x1 kernel: (B, C, H, W) -> (B, C', H, W), best in channels-last memory.

    Parameters, results and gradients are those of `nn.Conv2d`, up to rounding. Where the vendor's kernel
    does not fit, and without gradients, the library's operation runs.
    """

    def __init__(self, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__(channels, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or is_tracing() or not _vendor_kernel_fits(x):
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.mkldnn_convolution(x, self.weight, self.bias, (0, 0), (1, 1), (1, 1), 1)


def _vendor_kernel_fits(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )
