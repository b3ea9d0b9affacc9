"""`derain export MODEL --to onnx -o FILE`: a network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import MODEL, Overwrite


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .onnx or .xml.")],
    to: Annotated[str, typer.Option(help="onnx, or openvino (an .xml file and a .bin file).")] = "onnx",
    overwrite: Overwrite = False,
) -> None:
    """Write a network as ONNX or OpenVINO, for pictures and batches of any size.

    The result is compared with PyTorch on several sizes; `derain run --model FILE` runs it.

    Example: derain export spanet --to onnx -o spanet.onnx
    """
    from derain.checkpoints import open_checkpoint
    from derain.errors import Remedy, UsageError, unknown_name
    from derain.export import EXTENSIONS
    from derain.export.files import TOLERANCE, files_at
    from derain.export.files import export as write

    if to not in EXTENSIONS:
        raise unknown_name("target", to, EXTENSIONS)
    there = [path for path in files_at(to, output) if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]}: exists already.", Remedy("replace it", {"overwrite": True}))
    checkpoint = open_checkpoint(model)
    done = write(checkpoint, to, output)
    tried = ", ".join(f"{batch} x {width}x{height}" for batch, height, width in done.shapes)
    say(
        f"{output}: {checkpoint.architecture.name}; differs from PyTorch by at most "
        f"{done.difference:.1e} on {tried} pixels (allowed: {TOLERANCE:.1e})."
    )
