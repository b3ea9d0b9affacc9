"""How much memory a graph's intermediate values take: those alive together when nodes run in order."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from derain.errors import DerainError, first_line
from derain.export.graph import AXES
from derain.extras import extra
from derain.nn.padding import round_up

SIDE = 256


def bytes_per_pixel(model: Any, multiple_of: int) -> float:
    """The most bytes alive at the same time, per pixel of a picture of about `SIDE` x `SIDE`.

    Args:
        model: `onnx.ModelProto` with the dimensions `AXES`.
        multiple_of: the sides of pictures must be multiples of this.
    """
    side = round_up(SIDE, multiple_of)
    graph = _with_fixed_size(model, side).graph
    # Values of unknown type count as 4 bytes each: nearly all are float32.
    sizes = {
        value.name: 4 * math.prod(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    last_use = {name: number for number, node in enumerate(graph.node) for name in node.input}
    alive: dict[str, int] = {}
    most = 0
    for number, node in enumerate(graph.node):
        alive |= {name: sizes.get(name, 0) for name in node.output}
        most = max(most, sum(alive.values()))
        for name in (*node.input, *node.output):
            if last_use.get(name, -1) <= number:
                alive.pop(name, None)
    return most / side**2


def _with_fixed_size(model: Any, side: int) -> Any:
    """The model for one size, so that all shapes are known."""
    onnx, runtime = extra("onnx", "onnx"), extra("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    for name, length in zip(AXES.values(), (1, side, side), strict=True):
        options.add_free_dimension_override_by_name(name, length)
    with tempfile.TemporaryDirectory() as folder:
        fixed = Path(folder) / "fixed.onnx"
        options.optimized_model_filepath = str(fixed)
        try:
            runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exception classes, also if the file cannot be written
            raise DerainError(
                f"ONNX Runtime refuses the network, or the disk of {folder} is full ({first_line(error)})."
            ) from error
        return onnx.shape_inference.infer_shapes(onnx.load(fixed))
