"""Broken checkpoints and exported files: opened, and used on a small picture."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from derain.methods import create_network
from derain.restore import load
from fuzz.mutations import NUMBERS, mutated
from fuzz.pictures import SHARED
from fuzz.trial import Kind

State = dict[Any, Any]
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16),
)


def weights() -> State:
    torch.manual_seed(0)
    return dict(create_network("spanet", width=4).state_dict())


@functools.cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """{kind of file: good files}."""
    state = weights()
    training = {"state_dict": state, "epoch": 3, "options": argparse.Namespace(width=4)}
    found = {
        ".pth": [_saved(state), _saved(training), _saved({"params": state}, zipped=False)],
        ".safetensors": [save(state), save(state, metadata={"derain": json.dumps({"network": "spanet"})})],
        ".pkl": [pickle.dumps({"epoch": 3}), pickle.dumps(argparse.Namespace(width=4))],
        ".onnx": [],
    }
    for path in sorted([*(SHARED / "checkpoints").glob("*"), *(SHARED / "formats").glob("*")]):
        suffix = {".ckpt": ".pth"}.get(path.suffix, path.suffix)
        if suffix in found:
            found[suffix].append(path.read_bytes())
    return {name: tuple(files) for name, files in found.items() if files}


def _saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def make(rng: np.random.Generator, folder: Path) -> Path:
    if rng.random() < 0.4:
        return _structured(rng, folder)
    kinds = sorted(seeds())
    name = kinds[int(rng.integers(len(kinds)))]
    files = seeds()[name]
    content, other = (files[int(rng.integers(len(files)))] for _ in range(2))
    path = folder / f"a{name}"
    path.write_bytes(mutated(content, other, rng))
    return path


def _structured(rng: np.random.Generator, folder: Path) -> Path:
    """A file that is whole, and whose content is not what it should be."""
    state = weights()
    for _ in range(int(rng.integers(1, 4))):
        CHANGES[int(rng.integers(len(CHANGES)))](state, rng)
    if rng.random() < 0.3:
        path = folder / "a.safetensors"
        path.write_bytes(_odd_header(save(weights()), rng))
        return path
    content: Any = state
    for _ in range(int(rng.integers(4))):
        key = ("state_dict", "params", "model", "optimizer", 0, None, "x" * 300)[int(rng.integers(7))]
        content = {key: content, "epoch": int(rng.integers(10))}
    if rng.random() < 0.1:
        content["self"] = content
    path = folder / "a.pth"
    path.write_bytes(_saved(content, zipped=bool(rng.random() < 0.7)))
    return path


def _name(state: State, rng: np.random.Generator) -> Any:
    return list(state)[int(rng.integers(len(state)))]


def _tensor(state: State, rng: np.random.Generator) -> tuple[Any, Tensor]:
    """A tensor, and its name; an empty one where what was drawn is something else."""
    name = _name(state, rng)
    value = state[name]
    return name, value if isinstance(value, Tensor) and value.layout is torch.strided else torch.zeros(())


def another_type(state: State, rng: np.random.Generator) -> None:
    name, tensor = _tensor(state, rng)
    state[name] = tensor.to(DTYPES[int(rng.integers(len(DTYPES)))])


def another_shape(state: State, rng: np.random.Generator) -> None:
    name, tensor = _tensor(state, rng)
    sizes = [int(rng.integers(5)) for _ in range(int(rng.integers(6)))]
    shapes = (tensor.flatten(), tensor[None], torch.zeros(()), torch.zeros(sizes))
    state[name] = shapes[int(rng.integers(len(shapes)))]


def repeated(state: State, rng: np.random.Generator) -> None:
    """A few numbers that stand for many."""
    name, tensor = _tensor(state, rng)
    size = (1, 64, 4096, 200_000)[int(rng.integers(4))]
    state[name] = torch.zeros(1).expand(size, *tensor.shape)


def shared(state: State, rng: np.random.Generator) -> None:
    state[_name(state, rng)] = state[_name(state, rng)]


def not_finite(state: State, rng: np.random.Generator) -> None:
    name, tensor = _tensor(state, rng)
    state[name] = torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor


def huge(state: State, rng: np.random.Generator) -> None:
    name, tensor = _tensor(state, rng)
    state[name] = tensor * 1e30 if tensor.is_floating_point() else tensor


def gone(state: State, rng: np.random.Generator) -> None:
    if len(state) > 1:
        del state[_name(state, rng)]


def renamed(state: State, rng: np.random.Generator) -> None:
    prefix = ("module.", "_orig_mod.", "\x1b[31m", "net.", "ü" * 50)[int(rng.integers(5))]
    names = list(state) if rng.random() < 0.6 else [_name(state, rng)]
    for name in names:
        state[f"{prefix}{name}"] = state.pop(name)


def odd_value(state: State, rng: np.random.Generator) -> None:
    values = ("text", 3, None, [1, 2], {"a": {}}, 1e308, collections.OrderedDict(), ("\x1b]0;\x07",))
    state[_name(state, rng)] = values[int(rng.integers(len(values)))]


def odd_layout(state: State, rng: np.random.Generator) -> None:
    name, tensor = _tensor(state, rng)
    if tensor.dtype is not torch.float32:
        return
    with_layout: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda t: t.to_sparse(),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        lambda t: t.to("meta"),
        lambda t: t.transpose(0, -1) if t.ndim else t,
        lambda t: t.clone().requires_grad_(),
        lambda t: torch.nn.Parameter(t),
    )
    state[name] = with_layout[int(rng.integers(len(with_layout)))](tensor)


def extra(state: State, rng: np.random.Generator) -> None:
    state[("total_ops", "n_averaged", "optimizer", 7, "")[int(rng.integers(5))]] = torch.zeros(2)


CHANGES = (
    *(another_type, another_shape, repeated, shared, not_finite, huge, gone, renamed),
    *(odd_value, odd_layout, extra),
)


def _odd_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Safetensors whose header says something else."""
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(int(rng.integers(1, 4))):
        name = list(header)[int(rng.integers(len(header)))]
        match int(rng.integers(6)):
            case 0:
                header[name] = {"dtype": "F64", "shape": [2, 2], "data_offsets": [0, 32]}
            case 1:
                offset = NUMBERS[int(rng.integers(len(NUMBERS)))]
                header[name] = {"dtype": "F32", "shape": [offset], "data_offsets": [0, 4 * offset]}
            case 2:
                header[name] = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
            case 3:
                header[name] = [[[]]] * 3
            case 4:
                header["__metadata__"] = {"derain": '{"step": "' + "x" * 1000 + '"}', "a": "\x1b[2J"}
            case _:
                header[f"{name}.more"] = header[name]
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed) + int(rng.integers(2)) * int(rng.integers(9))) + packed + data


PICTURE = np.full((16, 24, 3), 0.5, np.float32)


def use(source: Path, _: Path) -> None:
    load(source)(PICTURE)


CHECKPOINTS = Kind("checkpoints", 5_000, make, use)
