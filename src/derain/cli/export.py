"""`derain export MODEL --to onnx -o FILE`: a network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import MODEL, Overwrite, OwnCode


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .onnx, .xml or .dtmodel.")
    ],
    to: Annotated[
        str, typer.Option(help="onnx; openvino (an .xml file and a .bin file); dtmodel, for darktable.")
    ] = "onnx",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="dtmodel: for tiles of any size, not of 768x768 alone.")
    ] = False,
    overwrite: Overwrite = False,
    own_code: OwnCode = False,
) -> None:
    """Write a network for other programs: ONNX, OpenVINO, or a package for darktable.

    The result is compared with PyTorch. ONNX and OpenVINO files take pictures and batches of any size;
    `derain run --model FILE` runs them.

    Example: derain export spanet --to onnx -o spanet.onnx
    """
    from derain.checkpoints import open_checkpoint
    from derain.errors import Remedy, UsageError, unknown_name
    from derain.export import TARGETS
    from derain.export.darktable import TILE, export_package
    from derain.export.files import TOLERANCE, files_at
    from derain.export.files import export as write

    if to not in TARGETS:
        raise unknown_name("target", to, TARGETS)
    there = [path for path in files_at(to, output) if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]}: exists already.", Remedy("replace it", {"overwrite": True}))
    opened = open_checkpoint(model, own_code=own_code)
    if to == "dtmodel":
        package = export_package(opened, output, None if any_size else TILE)
        say(
            f"{output}: {package.config['name']}, version {package.config['version']}; differs from PyTorch "
            f"by at most {package.difference:.1e} (allowed: {TOLERANCE:.1e})."
        )
        return
    done = write(opened, to, output)
    tried = ", ".join(f"{batch} x {width}x{height}" for batch, height, width in done.shapes)
    say(
        f"{output}: {opened.checkpoint.architecture.name}; differs from PyTorch by at most "
        f"{done.difference:.1e} on {tried} pixels (allowed: {TOLERANCE:.1e})."
    )
