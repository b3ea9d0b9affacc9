"""Reading tensors out of untrusted files, and writing our own.

Formats: safetensors; PyTorch files old (consecutive pickles) and new (zip), always through the
restricted unpickler (`weights_only=True`), so no code in a file can run.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from derain.atomic import replace_file
from derain.errors import DerainError

# Where the weights lie in files of this field's training codes, in the order of preference:
# averaged weights before raw ones, as the published test scripts do.
NESTS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "network", "weights")
# Counters that training codes store beside the weights.
STEPS = ("step", "clock", "iter", "iteration", "global_step", "epoch")
# What data-parallel and Lightning training put before the names.
PREFIXES = ("module.", "model.")
# Where Lightning training keeps the networks that only its loss needs.
LOSS_NETWORKS = ("loss_per.",)


@dataclass(frozen=True)
class Tensors:
    """What a file holds: a flat state dict, where it lay, and what else was said.

    Attributes:
        state: {name: tensor} on the CPU, without the prefixes of training codes.
        nest: the dotted key below which the state dict lay, "" at the top.
        facts: numbers and texts found beside it (training step, our metadata).
    """

    state: dict[str, Tensor]
    nest: str
    facts: dict[str, Any]


def read_tensors(path: str | Path) -> Tensors:
    """The state dict of a checkpoint file.

    Raises:
        DerainError: the file cannot be read, is not a checkpoint, or holds anything but tensors,
            numbers and texts (then nothing of it was executed).
    """
    path = Path(path)
    if path.is_dir():
        raise DerainError(f"{path}: a checkpoint file is needed, this is a folder.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if not head:
        raise DerainError(f"{path}: the file is empty.")
    if len(head) > 8 and head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((b"PK", b"\x80")):  # a zip, or the first byte of every pickle by torch.save
        raise DerainError(f"{path}: not a checkpoint; PyTorch's files and safetensors are opened.")
    return _read_torch(path)


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DerainError(f"{path}: a damaged safetensors file ({_first_line(error)}).") from None
    try:
        facts = json.loads(metadata.get("derain", "{}"))
    except (ValueError, RecursionError):
        facts = {}
    return Tensors(_without_prefix(state), "", facts if isinstance(facts, dict) else {})


def _read_torch(path: Path) -> Tensors:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "allowed global" in str(error):
            raise DerainError(
                f"{path}: refused, the file asks for code to be run ({_first_line(error)}). "
                "Ask its author for a file with tensors only."
            ) from None
        raise DerainError(f"{path}: not a checkpoint ({_first_line(error)}).") from None
    except Exception as error:  # the restricted unpickler raises whatever broken bytes provoke
        raise DerainError(f"{path}: not a checkpoint, or damaged ({_first_line(error)}).") from None
    if isinstance(content, torch.nn.Module) or not isinstance(content, Mapping):
        raise DerainError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors.")
    nest, state = _find_state(content)
    if not state:
        raise DerainError(f"{path}: no tensors found; the first keys are {_first_keys(content)}.")
    facts = {key: content[key] for key in STEPS if isinstance(content.get(key), int | float)}
    return Tensors(_without_prefix(state), nest, facts)


def _find_state(content: Mapping[Any, Any], nest: str = "") -> tuple[str, dict[str, Tensor]]:
    """The state dict inside nested dictionaries: at the top, else below a customary key, else
    below the only key that has one. Single numbers beside a dictionary are a training code's notes."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    children = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    if any(tensor.ndim for tensor in tensors.values()) or (tensors and not children):
        return nest, tensors
    customary = [key for key in NESTS if key in children]
    others = [key for key in children if key not in customary and not key.startswith("opt")]
    for key in customary + others:
        found = _find_state(children[key], f"{nest}.{key}" if nest else key)
        if found[1]:
            return found
    return nest, {}


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes what training codes put before all names, and the tensors of loss networks beside them."""
    for prefix in PREFIXES:
        inside = {name: tensor for name, tensor in state.items() if not name.startswith(LOSS_NETWORKS)}
        while inside and all(name.startswith(prefix) for name in inside):
            inside = state = {name.removeprefix(prefix): tensor for name, tensor in inside.items()}
    return state


def _first_keys(content: Mapping[Any, Any], count: int = 5) -> str:
    keys = [str(key)[:60] for key in list(content)[:count]]
    return ", ".join(keys) + (", ..." if len(content) > count else "") if keys else "none"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160] if text else type(error).__name__


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes weights as safetensors, whole or not at all.

    Args:
        path: replaced atomically when it exists.
        state: the network's state dict.
        facts: JSON-serialisable; by custom `network`, `config`, `step`, `note`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    replace_file(path, save(tensors, metadata={"derain": json.dumps(dict(facts), sort_keys=True)}))
