"""Convolutions in 8-bit integers: faster on processors with integer products, and not quite the same.

Weights get a scale per channel; the ranges of activations are measured on pictures. The convolutions closest
to the picture, at both ends of the network, stay in float32, as does everything that is not a convolution.
"""

from __future__ import annotations

import io
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from derain.checkpoints.exported.facts import INPUT
from derain.data.folders import pictures_in, read_rgb
from derain.errors import UsageError
from derain.extras import extra
from derain.methods.network import Spec
from derain.nn.padding import pad_to_multiple
from derain.pictures import Picture, to_tensor
from derain.restore.inference import source_of
from derain.restore.reduced import reduced, reduced_size

LEAST_DB = 45.0
SIDE = 256  # pixels: side of the crops that are used
MOST = 32  # crops that are used at most
CHECKED = 4  # one in this many is held out, to compare with PyTorch
# Percentage of the values at a point of the graph that its 8 bits must represent: a few outliers would make
# the steps coarse for all others.
REPRESENTED = 99.999
# The share of the convolutions that stays in float32 at each end of the network, where rounding errors are
# most visible.
EDGE = 1 / 8


def pieces(folder: Path, spec: Spec) -> tuple[list[Tensor], list[Tensor]]:
    """The centres of a folder's pictures, (1, 3, H, W) in [0, 1]: some to measure on, others to compare on.

    They have the size at which the network sees them; see `derain.restore.reduced`.

    Raises:
        UsageError: there are fewer than `CHECKED` pictures.
        DerainError: there is no such folder, or a picture cannot be read.
    """
    files = pictures_in(folder)
    if len(files) < CHECKED:
        raise UsageError(f"{folder}: holds {len(files)} pictures; 8-bit integers need at least {CHECKED}.")
    chosen = files[:: -(-len(files) // MOST)]
    found = [_piece(file, spec) for file in chosen]
    return [x for i, x in enumerate(found) if i % CHECKED], found[::CHECKED]


def _piece(file: Path, spec: Spec) -> Tensor:
    picture = to_tensor(Picture(read_rgb(file)))
    height, width = picture.shape[2:]
    size = reduced_size(height, width, spec.working_side)
    if size is not None:
        picture = reduced(source_of(picture).rows, height, size)
    top, left = (max(0, side - SIDE) // 2 for side in picture.shape[2:])
    middle = picture[..., top : top + SIDE, left : left + SIDE]
    return pad_to_multiple(middle, spec.multiple_of)


def with_integers(graph: Any, measured: Sequence[Tensor]) -> Any:
    """An `onnx.ModelProto` with its convolutions in 8-bit integers.

    Args:
        graph: the graph in float32, with the input `INPUT`.
        measured: pictures (1, 3, H, W) on which the ranges of values are measured.
    """
    onnx = extra("onnx", "onnx")
    quantization = extra("onnxruntime.quantization", "onnx")
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    edge = math.ceil(EDGE * len(convolutions))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, made = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        given.write_bytes(graph.SerializeToString())
        quantization.quantize_static(
            given,
            made,
            _reader(quantization.CalibrationDataReader, measured),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[*convolutions[:edge], *convolutions[-edge:]],
            calibrate_method=quantization.CalibrationMethod.Percentile,
            # One picture at a time: otherwise it holds all values of all pictures in memory.
            extra_options={"CalibPercentile": REPRESENTED, "CalibStridedMinMax": 1},
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(made)


def _reader(base: type, measured: Sequence[Tensor]) -> Any:
    """The pictures as ONNX Runtime's quantizer asks for them."""

    class Reader(base):  # type: ignore[misc]  # the class comes with the optional package
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(measured)

        def __len__(self) -> int:
            return len(measured)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(measured[start_index:end_index])

        def get_next(self) -> dict[str, Any] | None:
            piece = next(self.left, None)
            return None if piece is None else {INPUT: piece.numpy()}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences everything up to warnings, as the quantizer prints progress and advice to its own users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def agreement(network: nn.Module, exported: Callable[[Tensor], Tensor], compared: Sequence[Tensor]) -> float:
    """PSNR in dB of a file's results against PyTorch's, on the worst picture."""
    with torch.no_grad():
        errors = [(exported(x).clamp(0, 1) - network(x).clamp(0, 1)).square().mean() for x in compared]
    return float(-10 * torch.stack(errors).max().clamp(min=1e-12).log10())
