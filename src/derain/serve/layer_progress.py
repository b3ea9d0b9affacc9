"""Follows the progress of a network while it restores, and lets it be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from derain.restore import Derainer

PROBE = 128  # pixels: side of the picture on which the work per pixel is measured, once
ALMOST = 0.99  # highest fraction reported, as the estimate of the work may be too low


class LayerProgress:
    """Measures the progress of a network by counting the values that its layers return.

    It follows one picture at a time.
    """

    def __init__(self, derainer: Derainer) -> None:
        """
        Args:
            derainer: the derainer to follow; it runs here once, on a small picture.
        """
        self._done = 0
        self._step: Callable[[int], None] | None = None
        for layer in derainer.network.modules():
            if not any(True for _ in layer.children()):
                layer.register_forward_hook(self._count)
        derainer.restore(torch.zeros(1, 3, PROBE, PROBE), one_pass=True)
        self._per_pixel = max(self._done, 1) / PROBE**2

    def _count(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self._done += output.numel()
        if self._step is not None:
            self._step(self._done)

    @contextmanager
    def following(self, step: Callable[[float], None], pixels: int | None = None) -> Iterator[None]:
        """Reports on the network until the end of the block.

        Args:
            step: called after each layer, in the thread that runs the network, with the fraction that is
                done, 0 to 1; an exception that it raises ends the work.
            pixels: the pixels of the picture, from which the fraction is estimated; with None it is always 0.
        """
        total = None if pixels is None else self._per_pixel * pixels
        self._done = 0
        self._step = lambda done: step(0.0 if total is None else min(done / total, ALMOST))
        try:
            yield
        finally:
            self._step = None
