"""Modules without values: to be filled from a checkpoint, or to count parameters and operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# PyTorch's functions that fill a tensor with random numbers, as modules call them.
_FILLING = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules created inside have shapes and types but no values (device "meta")."""
    with torch.device("meta"), _LeftUnfilled():
        yield


class _LeftUnfilled(TorchFunctionMode):
    """Skips drawing random numbers: for tensors without values PyTorch would load its whole compiler to
    do so, which takes longer than anything else at the start of a program."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func in _FILLING else func(*args, **given)
