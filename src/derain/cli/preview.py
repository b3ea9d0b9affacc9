"""`derain preview PHOTO`: makes one sheet for choosing a model and a strength."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import Device, FullSize, Overwrite, Precision
from derain.strength import MAX_STRENGTH

STRENGTHS = (0.5, 1.0, 1.25)


def preview(
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model as in `derain run`; may be given several times. Default: all bundled models.",
        ),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=MAX_STRENGTH,
            help=f"How much of the change to apply, 0 to {MAX_STRENGTH:g}; may be given several times. "
            "Default: 0.5, 1 and 1.25.",
        ),
    ] = None,
    crops: Annotated[int, typer.Option(min=1, max=8, help="Number of crops.")] = 2,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The sheet. Default: beside the photo, as NAME-derained-preview.jpg."
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    full_size: FullSize = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what models do to a picture, at several strengths, on one sheet of crops.

    The crops are taken where the picture changes most; each row shows one crop with one model.

    Example: derain preview photo.jpg --model everyday --strength 0.7 --strength 1
    """
    from derain.atomic import refuse_existing
    from derain.checkpoints.bundled import bundled_names
    from derain.cli.progress import bar
    from derain.errors import UsageError
    from derain.paths import PREVIEW, exists
    from derain.pictures import EXTENSIONS, Picture, read_picture, write_picture
    from derain.restore import load
    from derain.restore.preview import preview_sheet, strengths_of

    if not exists(photo):
        raise UsageError(f"{photo}: no such file.")
    target = output or photo.with_name(f"{photo.stem}{PREVIEW}.jpg")
    if target.suffix.lower() not in EXTENSIONS:
        raise UsageError(f"{target}: pictures are written as {' '.join(EXTENSIONS)}.")
    refuse_existing(target, overwrite)
    names = model or list(bundled_names())
    picture, results = read_picture(photo), {}
    with bar("restoring", len(names)) as progress:
        for name in names:
            restore = load(name, device=device, precision=precision, full_size=full_size)
            results[name] = strengths_of(restore, picture, strength or STRENGTHS)
            progress.advance()
    write_picture(target, Picture(preview_sheet(picture, results, crops)))
    say(f"{target}: {', '.join(names)}")
