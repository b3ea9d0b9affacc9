"""A network as an ONNX graph; named dimensions (batch, height, width) are free.

The graph is recorded by tracing the plain form. Operations that such graphs lack, such as a recurrence,
become nodes of the domain "derain", which the network's spec defines.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from derain.checkpoints.exported.facts import INPUT, OUTPUT
from derain.errors import DerainError, first_line
from derain.extras import extra
from derain.methods.network import RainNetwork

OPSET = 18
AXES = {0: "batch", 2: "height", 3: "width"}


def trace(network: RainNetwork) -> Any:
    """The `onnx.ModelProto` of a network: `INPUT` (batch, 3, height, width) to `OUTPUT` of the same shape.

    Raises:
        DerainError: the network uses an operation that cannot be exported, or onnx is not installed.
    """
    multiple = network.spec.multiple_of
    side = 2 * multiple * -(-16 // multiple)
    example = torch.rand(2, 3, side, 2 * side)
    return record(network, example, INPUT, OUTPUT, AXES, network.spec.onnx_functions)


def record(
    module: nn.Module,
    example: Tensor,
    input_name: str,
    output_name: str,
    axes: Mapping[int, str],
    functions: Sequence[str],
) -> Any:
    """The `onnx.ModelProto` of a module, from one picture to another of the same shape.

    Args:
        module: the module; it is set to eval mode.
        example: (B, 3, H, W), the picture with which it is traced.
        input_name, output_name: the names in the graph.
        axes: {number: name} of the dimensions that stay free; the others are those of the example.
        functions: as in `Spec.onnx_functions`.

    Raises:
        DerainError: see `trace`.
    """
    onnx = extra("onnx", "onnx")
    module = module.eval().requires_grad_(False)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about every size that Python code reads
        try:
            torch.onnx.export(
                module,
                (example,),
                file,  # type: ignore[arg-type]  # the tracing exporter takes streams
                # The newer exporter tracks symbolic sizes, which takes minutes instead of seconds.
                dynamo=False,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_axes={input_name: axes, output_name: axes},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise DerainError(f"cannot be exported: {first_line(error)}") from None
    model = onnx.load_model_from_string(file.getvalue())
    # The tracer does not notice all sizes that are fixed.
    model.graph.output[0].type.CopyFrom(model.graph.input[0].type)
    return _with_functions(onnx, model, functions)


def _with_functions(onnx: Any, model: Any, functions: Sequence[str]) -> Any:
    """The model with the nodes of the domain "derain" replaced by their definitions."""
    if not functions:
        return model
    inliner = extra("onnx.inliner", "onnx")
    model.functions.extend(onnx.parser.parse_function(text) for text in functions)
    model.opset_import.append(onnx.helper.make_opsetid("derain", 1))
    return inliner.inline_local_functions(model)
