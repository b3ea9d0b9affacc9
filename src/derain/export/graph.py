"""A network as an ONNX graph with dynamic batch, height and width.

The graph is recorded by tracing. Networks ask `nn.tracing` where a graph needs another form: all
layers in one window, no branch that looks at values, and SPANet's recurrence as one node, whose
meaning is given here.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch

from derain.errors import DerainError
from derain.export.facts import INPUT, OUTPUT
from derain.extras import extra
from derain.methods.network import RainNetwork

OPSET = 18
AXES = {0: "batch", 2: "height", 3: "width"}

# x (B, L, M, C); weights q and biases r (C,) of the sweep from the last step and of that from the
# first; h (B, L, M, 2C). See `nn/irnn.py`; the first step of either sweep goes without the bias.
# A Loop, because OpenVINO does not run Scan on sizes that are not fixed.
SWEEP_BOTH = """
<domain: "derain", opset_import: ["" : 18]>
SweepBoth (x, q0, q1, r0, r1) => (h)
{
  lines = Transpose <perm = [1, 0, 2, 3]> (x)
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  length = Shape <start = 0, end = 1> (lines)
  count = Squeeze (length)
  last = Sub (count, one)
  slab = Gather <axis = 0> (lines, zero)
  shape = Shape (slab)
  start = ConstantOfShape (shape)
  always = Constant <value = int64 {1}> ()
  on = Cast <to = 9> (always)
  end0, end1, reversed, forth = Loop <
    body = step (int64 i, bool go, s0, s1) => (go_on, h0, h1, y0, y1)
    {
      go_on = Identity (go)
      j = Sub (last, i)
      v0 = Gather <axis = 0> (lines, j)
      v1 = Gather <axis = 0> (lines, i)
      later = Greater (i, zero)
      factor = Cast <to = 1> (later)
      b0 = Mul (factor, r0)
      b1 = Mul (factor, r1)
      p0 = Mul (s0, q0)
      p1 = Mul (s1, q1)
      t0 = Add (p0, b0)
      t1 = Add (p1, b1)
      u0 = Add (t0, v0)
      u1 = Add (t1, v1)
      h0 = Relu (u0)
      h1 = Relu (u1)
      y0 = Identity (h0)
      y1 = Identity (h1)
    }> (count, on, start, start)
  end = Constant <value = int64[1] {-1}> ()
  before = Constant <value = int64[1] {-9223372036854775807}> ()
  axis = Constant <value = int64[1] {0}> ()
  back = Slice (reversed, end, before, axis, end)
  both = Concat <axis = 3> (back, forth)
  h = Transpose <perm = [1, 0, 2, 3]> (both)
}
"""


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
    return _with_sweeps(onnx, onnx.load_model_from_string(file.getvalue()))


def _with_sweeps(onnx: Any, model: Any) -> Any:
    """The model with the nodes of our own replaced by what they mean."""
    if all(node.domain != "derain" for node in model.graph.node):
        return model
    inliner = extra("onnx.inliner", "onnx")
    model.functions.append(onnx.parser.parse_function(SWEEP_BOTH))
    model.opset_import.append(onnx.helper.make_opsetid("derain", 1))
    return inliner.inline_local_functions(model)
