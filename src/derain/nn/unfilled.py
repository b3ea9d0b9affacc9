"""Modules of shapes alone: for a checkpoint's values to come, or to count what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules that are made inside have shapes and types, and no values (device "meta")."""
    with torch.device("meta"), _NoNormal():
        yield


class _NoNormal(TorchFunctionMode):
    """Leaves out what draws normal numbers: for tensors without values PyTorch would load its whole
    compiler to do so, which takes longer than anything else at the start of a program."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is nn.init.normal_:
            return given["tensor"]
        return args[0] if func is Tensor.normal_ else func(*args, **given)
