"""A network as an ONNX graph with dynamic batch, height and width.

The graph is recorded by tracing the plain form. What has no operation in such graphs, as a recurrence,
is a node of the domain "derain"; the network's spec says what it means.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from derain.errors import DerainError
from derain.export.facts import INPUT, OUTPUT
from derain.extras import extra
from derain.methods.network import RainNetwork

OPSET = 18
AXES = {0: "batch", 2: "height", 3: "width"}


def trace(network: RainNetwork) -> Any:
    """The `onnx.ModelProto` of a network: `INPUT` (batch, 3, height, width) to `OUTPUT` of the same shape.

    Raises:
        DerainError: the network uses an operation that cannot be exported, or onnx is not installed.
    """
    onnx = extra("onnx", "onnx")
    multiple = network.spec.multiple_of
    side = 2 * multiple * -(-16 // multiple)
    network = network.eval().requires_grad_(False)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every size that Python looks at
        try:
            torch.onnx.export(
                network,
                (torch.rand(2, 3, side, 2 * side),),
                file,  # type: ignore[arg-type]  # the tracing exporter takes streams
                # The newer exporter keeps track of symbolic sizes: minutes where tracing takes seconds.
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: AXES, OUTPUT: AXES},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise DerainError(f"cannot be exported: {str(error).splitlines()[0][:200]}") from None
    return _with_functions(onnx, onnx.load_model_from_string(file.getvalue()), network.spec.onnx_functions)


def _with_functions(onnx: Any, model: Any, functions: Sequence[str]) -> Any:
    """The model with the nodes of our own replaced by what they mean."""
    if not functions:
        return model
    inliner = extra("onnx.inliner", "onnx")
    model.functions.extend(onnx.parser.parse_function(text) for text in functions)
    model.opset_import.append(onnx.helper.make_opsetid("derain", 1))
    return inliner.inline_local_functions(model)
