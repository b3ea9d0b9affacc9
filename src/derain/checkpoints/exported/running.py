"""Exported files as networks, with the same contract as PyTorch ones, so that `restore` treats them alike.

Files may come from anywhere. A file must be self-contained (tensors in other files are refused), use only
its runtime's own operators, and agree with the facts that it states.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.checkpoints.exported.facts import INPUT, KEY, OUTPUT, Facts, read_facts
from derain.checkpoints.recognise import Checkpoint, Model
from derain.errors import DerainError, last_line, reason
from derain.extras import extra
from derain.methods import all_architectures, method_of
from derain.methods.network import RainNetwork

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class ExportedNetwork(RainNetwork):
    """An exported file, run by its own runtime on the CPU, in float32."""

    def __init__(self, run: Run, facts: Facts, content: bytes, source: str) -> None:
        super().__init__()
        self.spec = facts.spec()
        self.facts, self._run, self._source = facts, run, source
        # Part of the state, so that results of this file can be told apart from those of another.
        digest = bytearray(hashlib.sha256(content).digest())
        self.register_buffer("digest", torch.frombuffer(digest, dtype=torch.uint8))

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """Only `image`, for pictures (B, 3, H, W) float32 on the CPU; without gradients.

        Raises:
            MemoryError: the runtime ran out of memory.
            DerainError: the file fails, or its result has the wrong shape.
        """
        try:
            image = self._run(np.ascontiguousarray(rainy.numpy(), np.float32))
        except Exception as error:  # runtimes have their own exception classes
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)) from None
            size = f"{rainy.shape[3]}x{rainy.shape[2]}"
            raise DerainError(f"{self._source}: fails on {size} pixels ({last_line(error)}).") from None
        if image.shape != tuple(rainy.shape):
            raise DerainError(f"{self._source}: made {image.shape} of a picture {tuple(rainy.shape)}.")
        return {"image": torch.from_numpy(np.ascontiguousarray(image, np.float32))}

    def activation_bytes(self, height: int, width: int) -> int:
        """The bytes of intermediate values, as measured when the file was made."""
        return round(self.facts.bytes_per_pixel * height * width)

    def multiply_adds(self, height: int, width: int) -> int:
        """The multiply-adds of the network that was exported."""
        return round(self.facts.multiply_adds_per_pixel * height * width)


def open_exported(path: Path) -> Model:
    """Opens a file of `derain export` as a network that runs it.

    Raises:
        DerainError: it cannot be read, is damaged, was made by something else, refers to other files,
            or its runtime is not installed.
    """
    content = read(path)
    if path.suffix == ".onnx":
        network = onnx_network(content, str(path))
    else:
        network = openvino_network(content, read(path.with_suffix(".bin")), str(path))
    facts = network.facts
    architecture = next((a for a in all_architectures() if a.name == facts.network), None)
    if architecture is None:
        raise DerainError(f"{path}: made from an unknown network '{facts.network}'.")
    checkpoint = Checkpoint(
        path,
        method_of(architecture),
        architecture,
        facts.variant,
        facts.config,
        facts=facts.of_weights(),
    )
    return Model(network, checkpoint)


def read(path: Path) -> bytes:
    """The content of a file. Raises `DerainError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None


def onnx_network(content: bytes, source: str) -> ExportedNetwork:
    """A network that runs the bytes of a file in ONNX Runtime. Raises as `open_exported` does."""
    model = onnx_model(content, source)
    facts = read_facts({entry.key: entry.value for entry in model.metadata_props}.get(KEY), source)
    session = onnx_session(model, content, source)
    names = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if names != ([INPUT], [OUTPUT]):
        raise DerainError(f"{source}: maps {names[0]} to {names[1]} instead of {INPUT} to {OUTPUT}.")

    def run(rainy: NDArray[np.float32]) -> NDArray[np.float32]:
        image: NDArray[np.float32] = session.run([OUTPUT], {INPUT: rainy})[0]
        return image

    return ExportedNetwork(run, facts, content, source)


def onnx_model(content: bytes, source: str) -> Any:
    """The `onnx.ModelProto` in the bytes of a file. Raises `DerainError` if there is none."""
    onnx = extra("onnx", "onnx")
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # the parser's own exception class
        raise DerainError(f"{source}: not an ONNX file, or damaged ({last_line(error)}).") from None


def onnx_session(model: Any, content: bytes, source: str) -> Any:
    """ONNX Runtime's CPU session for a model and the bytes from which it was read.

    Raises:
        DerainError: the model needs other files or may never terminate, or ONNX Runtime refuses it.
    """
    onnx, runtime = extra("onnx", "onnx"), extra("onnxruntime", "onnx")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise DerainError(f"{source}: refused, because it reads its tensors from other files.")
    if not _ends(model):
        raise DerainError(f"{source}: refused, because it has a loop that may never end.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes
        raise DerainError(f"{source}: ONNX Runtime refuses it ({last_line(error)}).") from None


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that an ONNX model stores, at any depth."""
    for part in _graphs(model):
        yield from getattr(part, "initializer", ())
        for sparse in getattr(part, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in part.node for attribute in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _graphs(model: Any) -> Iterator[Any]:
    """Every graph and function of an ONNX model, at any depth."""
    waiting = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(inner for node in part.node for inner in _inner(node))


def _inner(node: Any) -> list[Any]:
    """The graphs inside one node: the body of a loop, the branches of a conditional."""
    found = [graph for attribute in node.attribute for graph in attribute.graphs]
    return found + [attribute.g for attribute in node.attribute if attribute.HasField("g")]


# Operations allowed between the size of a tensor and a loop's trip count.
_SIZES = ("Squeeze", "Unsqueeze", "Reshape", "Gather", "Slice", "Cast", "Identity")


def _ends(model: Any) -> bool:
    """Whether a model certainly terminates: every loop's trip count is the length of a tensor, as in our
    sweeps, and no loop is nested in another."""
    for part in _graphs(model):
        makers = {name: node for node in part.node for name in node.output}
        for loop in (node for node in part.node if node.op_type == "Loop"):
            maker = makers.get(loop.input[0])
            while maker is not None and maker.op_type in _SIZES:
                maker = makers.get(maker.input[0])
            if maker is None or maker.op_type != "Shape":
                return False
            if any(node.op_type == "Loop" for body in _inner(loop) for node in body.node):
                return False
    return True


@functools.cache
def _openvino_core() -> Any:
    """OpenVINO, loaded once and kept for the life of the process.

    Each core installs a stack on which signals are handled. If the first of two is freed before the second,
    its freed stack is used again (2026.4), and the next signal, such as Ctrl-C, ends the process with a
    segmentation fault.
    """
    return extra("openvino", "openvino").Core()


def openvino_network(content: bytes, weights: bytes, source: str) -> ExportedNetwork:
    """A network that runs the bytes of an .xml and .bin file in OpenVINO. Raises as `open_exported` does."""
    core = _openvino_core()
    try:
        model = core.read_model(content, weights)
    except Exception as error:  # the runtime's own classes
        raise DerainError(f"{source}: not an OpenVINO file, or damaged ({last_line(error)}).") from None
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    facts = read_facts(text, source)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would compute in half precision otherwise
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # What OpenVINO 2026.4 caches from earlier sizes made UDR-S2Former's results wrong.
        "CPU_RUNTIME_CACHE_CAPACITY": "0",
    }
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # as above
        raise DerainError(f"{source}: OpenVINO refuses it ({last_line(error)}).") from None

    def run(rainy: NDArray[np.float32]) -> NDArray[np.float32]:
        image: NDArray[np.float32] = compiled(rainy)[0]
        return image

    return ExportedNetwork(run, facts, content + weights, source)
