"""Following a network while it restores: its progress, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from derain.restore import Derainer

PROBE = 128  # pixels; side of the picture by which the work is measured once
ALMOST = 0.99  # the estimate of the work may be too low


class LayerProgress:
    """Counts the values that the layers of a network return, which measures its progress.

    One picture is followed at a time.
    """

    def __init__(self, derainer: Derainer) -> None:
        """
        Args:
            derainer: runs once here, on a small picture; its layers are followed from then on.
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
            pixels: of the picture, by which the fraction is estimated; None: it is always 0.
        """
        total = None if pixels is None else self._per_pixel * pixels
        self._done = 0
        self._step = lambda done: step(0.0 if total is None else min(done / total, ALMOST))
        try:
            yield
        finally:
            self._step = None
