"""Writing a network as a file for another runtime, and checking that it computes the same there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.atomic import new_file, replace_file
from derain.checkpoints import Checkpoint
from derain.errors import DerainError, UsageError
from derain.export.extras import extra
from derain.export.facts import KEY, Facts, facts_of
from derain.export.graph import trace
from derain.export.memory import bytes_per_pixel
from derain.export.running import EXTENSIONS, onnx_network, openvino_network

# Half a level of an 8-bit picture: more than rounding, less than anyone can see.
TOLERANCE = 0.5 / 255


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file; OpenVINO's weights lie beside it, as .bin.
        difference: largest absolute difference from PyTorch over all test pictures.
        shapes: (batch, height, width) of the test pictures.
    """

    path: Path
    difference: float
    shapes: tuple[tuple[int, int, int], ...]


def export(checkpoint: Checkpoint, target: str, path: Path) -> Exported:
    """Writes a network as ONNX or OpenVINO, for batches and pictures of any size.

    The file appears only if its runtime computes what PyTorch does, within `TOLERANCE`.

    Args:
        checkpoint: of a network in PyTorch.
        target: a key of `EXTENSIONS`.
        path: the file to write, replaced when it exists.

    Raises:
        UsageError: the extension does not belong to the target.
        DerainError: an optional package is missing, the network cannot be exported, the results
            differ, or the file cannot be written.
    """
    if path.suffix != EXTENSIONS[target]:
        raise UsageError(f"{path}: a file for {target} must end in {EXTENSIONS[target]}.")
    network: nn.Module = checkpoint.network
    model = trace(network)
    facts = facts_of(checkpoint, bytes_per_pixel(model, network.size_multiple))  # type: ignore[arg-type]
    if target == "onnx":
        model.metadata_props.add(key=KEY, value=facts.model_dump_json())
        content = model.SerializeToString()
        difference, shapes = compare(network, onnx_network(content, str(path)), facts.size_multiple, path)
        replace_file(path, content)
    else:
        # The new files wait beside their places while they are checked.
        with new_file(path) as xml, new_file(path.with_suffix(".bin")) as weights:
            _save_openvino(model, facts, xml)
            xml.with_suffix(".bin").replace(weights)
            exported = openvino_network(xml.read_bytes(), weights.read_bytes(), str(path))
            difference, shapes = compare(network, exported, facts.size_multiple, path)
    return Exported(path, difference, shapes)


def _save_openvino(model: Any, facts: Facts, xml: Path) -> None:
    """Writes `xml` and, beside it, the .bin file that OpenVINO names after it."""
    openvino = extra("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:  # OpenVINO reads ONNX from files
        graph = Path(folder) / "graph.onnx"
        graph.write_bytes(model.SerializeToString())
        converted = openvino.convert_model(graph)
    converted.set_rt_info(facts.model_dump_json(), [KEY])
    openvino.save_model(converted, str(xml), compress_to_fp16=False)


def compare(
    network: nn.Module, exported: nn.Module, multiple: int, path: Path
) -> tuple[float, tuple[tuple[int, int, int], ...]]:
    """The largest difference between PyTorch and a runtime, and the shapes that were tried.

    Raises:
        DerainError: it is above `TOLERANCE`.
    """
    shapes, most = [], 0.0
    for rainy in _pictures(multiple):
        with torch.no_grad():
            wanted, found = network(rainy), exported(rainy)
        batch, _, height, width = rainy.shape
        difference = float((found - wanted).abs().max())
        if not difference <= TOLERANCE:
            raise DerainError(
                f"{path}: not written, because on {batch} x {width}x{height} pixels it differs from PyTorch "
                f"by {difference:.1e}; at most {TOLERANCE:.1e} is allowed."
            )
        shapes.append((batch, height, width))
        most = max(most, difference)
    return most, tuple(shapes)


def _pictures(multiple: int) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) of smooth random pictures with grain, of sizes unlike that of the tracing."""
    generator = torch.Generator().manual_seed(0)
    unit = multiple * -(-32 // multiple)
    for batch, height, width in (
        (1, multiple, 2 * multiple),
        (1, 2 * unit, 2 * unit),
        (2, 2 * unit + multiple, unit),
        (3, unit, unit + multiple),
    ):
        coarse = torch.rand(batch, 3, 5, 5, generator=generator)
        smooth = F.interpolate(coarse, (height, width), mode="bilinear")
        yield (0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1)
