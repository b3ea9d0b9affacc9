"""Oracles of networks as they are stored: what is known of a run of the published code, and its arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from derain.checkpoints import Model, open_checkpoint, save_checkpoint


class Oracle(NamedTuple):
    facts: dict[str, Any]
    arrays: dict[str, Tensor]


Read = Callable[[str], Oracle]
Opened = Callable[[str], Model]


def read_oracle(folder: Path, name: str) -> Oracle:
    with np.load(folder / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return Oracle(json.loads((folder / f"{name}.json").read_text()), tensors)


def open_oracle(oracle: Oracle, fill: ModuleType, folder: Path) -> Model:
    """The network of an oracle, opened from a file of its state list's names, shapes and filled values."""
    entries = oracle.facts["state"]
    state = {entry: torch.empty(shape, dtype=getattr(torch, kind)) for entry, shape, kind in entries}
    path = folder / "weights.safetensors"
    save_checkpoint(path, fill.fill_state_dict(state), {})
    opened = open_checkpoint(path)
    path.unlink()
    assert list(opened.network.state_dict()) == list(state)
    return opened
