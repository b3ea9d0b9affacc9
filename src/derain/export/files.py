"""Writes a network as a file for another runtime, and checks that it computes the same there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.atomic import new_file, replace_file
from derain.checkpoints import Model
from derain.checkpoints.exported.facts import KEY, Facts, exported_facts
from derain.checkpoints.exported.running import onnx_network, openvino_network
from derain.errors import DerainError, UsageError
from derain.export import TARGETS
from derain.export.graph import trace
from derain.export.graph_memory import bytes_per_pixel
from derain.export.integers import LEAST_DB, agreement, pieces, with_integers
from derain.extras import extra
from derain.methods.network import RainNetwork
from derain.nn.padding import round_up

# Half a level of an 8-bit picture: more than rounding errors, less than is visible.
TOLERANCE = 0.5 / 255
TRIES = 4  # pictures that are tried per size, if one cannot be compared


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file; OpenVINO's weights are beside it, as .bin.
        difference: largest absolute difference from PyTorch over the test pictures, see `compare`; 0 for
            8-bit integers, for which `agreement` is measured.
        shapes: (batch, height, width) of the test pictures.
        agreement: for 8-bit integers, the PSNR in dB against PyTorch on the worst picture; otherwise None.
    """

    path: Path
    difference: float
    shapes: tuple[tuple[int, int, int], ...]
    agreement: float | None = None


def files_at(target: str, path: Path) -> tuple[Path, ...]:
    """The files that an export to `path` writes: OpenVINO keeps its weights in a second one.

    Raises:
        UsageError: the extension of `path` does not belong to the target.
    """
    if path.suffix != TARGETS[target]:
        raise UsageError(f"{path}: a file for {target} must end in {TARGETS[target]}.")
    return (path, path.with_suffix(".bin")) if target == "openvino" else (path,)


def export(model: Model, target: str, path: Path, calibrate: Path | None = None) -> Exported:
    """Writes a network as ONNX or OpenVINO, for batches and pictures of any size.

    The file appears only if its runtime agrees with PyTorch to within `TOLERANCE`, or, in 8-bit
    integers, to `integers.LEAST_DB`.

    Args:
        model: a network in PyTorch.
        target: "onnx" or "openvino"; for "dtmodel" see `darktable.export_package`.
        path: the file to write; existing files of `files_at` are replaced.
        calibrate: a folder of rainy pictures, to compute in 8-bit integers with ranges measured on
            them; None computes in float32.

    Raises:
        UsageError: the extension does not belong to the target, or there are too few pictures.
        DerainError: an optional package is missing, the network cannot be exported, the results
            differ, or the file cannot be written.
    """
    places = files_at(target, path)
    network, multiple = model.network, model.network.spec.multiple_of
    measured, compared = pieces(calibrate, network.spec) if calibrate else ([], [])
    graph = trace(network)
    facts = exported_facts(model, bytes_per_pixel(graph, multiple), "int8" if calibrate else "float32")
    if calibrate:
        graph = with_integers(graph, measured)
    if target == "onnx":
        graph.metadata_props.add(key=KEY, value=facts.model_dump_json())
        content = graph.SerializeToString()
        done = _checked(network, onnx_network(content, str(path)), compared, path)
        replace_file(path, content)
        return done
    # The new files are checked beside their final places.
    with new_file(places[0]) as xml, new_file(places[1]) as weights:
        _save_openvino(graph, facts, xml)
        xml.with_suffix(".bin").replace(weights)
        exported = openvino_network(xml.read_bytes(), weights.read_bytes(), str(path))
        return _checked(network, exported, compared, path)


def _checked(network: RainNetwork, exported: RainNetwork, compared: Sequence[Tensor], path: Path) -> Exported:
    """The report on a file. Raises `DerainError` if its results differ too much."""
    shapes = _shapes(network.spec.multiple_of)
    if not compared:
        return Exported(path, compare(network, exported, shapes, path), shapes)
    for shape in shapes:
        exported(_pictures(shape, torch.Generator().manual_seed(0)))
    found = agreement(network, exported, compared)
    if found < LEAST_DB:
        raise DerainError(
            f"{path}: not written: in 8-bit integers, the worst of {len(compared)} held-out pictures agrees "
            f"with PyTorch to only {found:.1f} dB; at least {LEAST_DB:.0f} dB are needed. Calibrate "
            "with more pictures of the kind to be restored, or export in float32."
        )
    return Exported(path, 0.0, shapes, found)


def _save_openvino(graph: Any, facts: Facts, xml: Path) -> None:
    """Writes `xml` and, beside it, the .bin file that OpenVINO names after it."""
    openvino = extra("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:  # OpenVINO reads ONNX from files
        file = Path(folder) / "graph.onnx"
        file.write_bytes(graph.SerializeToString())
        converted = openvino.convert_model(file)
    converted.set_rt_info(facts.model_dump_json(), [KEY])
    try:
        openvino.save_model(converted, str(xml), compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError("OpenVINO does not say why; the disk may be full") from error


def compare(
    network: nn.Module,
    exported: Callable[[Tensor], Tensor],
    shapes: Iterable[tuple[int, int, int]],
    path: Path,
) -> float:
    """The largest difference between PyTorch and a runtime, on pictures of some (batch, height, width).

    Pictures on which rounding alone changes PyTorch's own result are replaced by others.

    Raises:
        DerainError: the difference is above `TOLERANCE`, or no picture of some size can be compared.
    """
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for shape in shapes:
        batch, height, width = shape
        place = f"{path}: not written, because on {batch} x {width}x{height} pixels"
        for _ in range(TRIES):
            rainy = _pictures(shape, generator)
            with torch.no_grad():
                wanted, found = network(rainy), exported(rainy)
            difference = float((found - wanted).abs().max())
            if difference <= TOLERANCE:
                break
            if not _jumps(network, rainy, wanted, generator):
                raise DerainError(
                    f"{place} it differs from PyTorch by {difference:.1e}; "
                    f"at most {TOLERANCE:.1e} is allowed."
                )
        else:
            raise DerainError(f"{place} even PyTorch's own result changes with rounding.")
        most = max(most, difference)
    return most


def _shapes(multiple: int) -> tuple[tuple[int, int, int], ...]:
    """(batch, height, width) of test pictures, which differ from those used for tracing."""
    unit = round_up(32, multiple)
    return (
        (1, multiple, 2 * multiple),
        (1, 2 * unit, 2 * unit),
        (2, 2 * unit + multiple, unit),
        (3, unit, unit + multiple),
    )


def _pictures(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Smooth random pictures with grain, (B, 3, H, W)."""
    batch, height, width = shape
    coarse = torch.rand(batch, 3, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return (0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1)


def _jumps(network: nn.Module, rainy: Tensor, wanted: Tensor, generator: torch.Generator) -> bool:
    """Whether noise as small as rounding errors changes PyTorch's own result by nearly as much as is allowed.

    It does in networks that select the largest entries (DRSformer, UDR-S2Former) where two entries at the
    cut-off are nearly equal.
    """
    for _ in range(4):
        noise = 1e-6 * torch.randn(rainy.shape, generator=generator)
        with torch.no_grad():
            if float((network(rainy + noise) - wanted).abs().max()) > TOLERANCE / 2:
                return True
    return False
