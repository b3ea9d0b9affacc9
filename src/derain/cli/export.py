"""`derain export MODEL --to onnx -o FILE`: writes a network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import CHECKPOINT, Overwrite, OwnCode


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=CHECKPOINT)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .onnx, .xml or .dtmodel.")
    ],
    to: Annotated[
        str, typer.Option(help="onnx, openvino (an .xml file and a .bin file) or dtmodel (for darktable).")
    ] = "onnx",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="onnx, openvino: rainy pictures on which the ranges of values for int8 are measured.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="onnx, openvino: float32; or int8, up to twice as fast on "
            "processors that support it, with results that agree with float32 to 45 dB or more."
        ),
    ] = "float32",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="dtmodel: accept tiles of any size, not only 768x768.")
    ] = False,
    overwrite: Overwrite = False,
    own_code: OwnCode = False,
) -> None:
    """Write a network for other programs: ONNX, OpenVINO, or a package for darktable.

    The result is compared with PyTorch. ONNX and OpenVINO files take pictures and batches of any size;
    `derain run --model FILE` runs them.

    Example: derain export spanet --to onnx -o spanet.onnx

    Example: derain export everyday --precision int8 --calibrate rainy -o fast.onnx
    """
    from derain.atomic import refuse_existing
    from derain.checkpoints import open_checkpoint
    from derain.errors import UsageError, refuse_unknown
    from derain.export import TARGETS
    from derain.export.darktable import TILE, export_package
    from derain.export.files import TOLERANCE, files_at
    from derain.export.files import export as write
    from derain.export.integers import LEAST_DB

    refuse_unknown("target", to, TARGETS)
    refuse_unknown("precision", precision, ("float32", "int8"))
    if (precision == "int8") != (calibrate is not None) or (calibrate is not None and to == "dtmodel"):
        raise UsageError(
            "give --precision int8 and --calibrate FOLDER together, and only for onnx or openvino."
        )
    for path in files_at(to, output):
        refuse_existing(path, overwrite)
    opened = open_checkpoint(model, own_code=own_code)
    if to == "dtmodel":
        package = export_package(opened, output, None if any_size else TILE)
        say(
            f"{output}: {package.config['name']}, version {package.config['version']}; differs from PyTorch "
            f"by at most {package.difference:.1e} (allowed: {TOLERANCE:.1e})."
        )
        return
    done = write(opened, to, output, calibrate)
    if done.agreement is not None:
        say(
            f"{output}: {opened.checkpoint.name} in 8-bit integers; agrees with PyTorch to "
            f"{done.agreement:.1f} dB on the worst of the held-out pictures (required: {LEAST_DB:.0f} dB)."
        )
        return
    tried = ", ".join(f"{batch} x {width}x{height}" for batch, height, width in done.shapes)
    say(
        f"{output}: {opened.checkpoint.name}; differs from PyTorch by at most "
        f"{done.difference:.1e} on {tried} pixels (allowed: {TOLERANCE:.1e})."
    )
