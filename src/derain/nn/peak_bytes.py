"""Measures the peak sum of live tensors, in bytes."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Tracks the storages that operations create; `most` is their peak sum in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, int] = {}
        self.now: int = 0
        self.most: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.is_mkldnn:  # packed weights, which have no storage
                self._follow(tensor, id(tensor), tensor.numel() * tensor.element_size())
            elif isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._follow(storage, storage._cdata, storage.nbytes())
        return result

    def _follow(self, owner: Any, key: int, size: int) -> None:
        if key in self.alive:
            return
        self.alive[key] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(owner, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.alive.pop(key)
