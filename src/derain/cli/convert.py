"""`derain convert MODEL -o X.safetensors`: writes any checkpoint as one safe file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import CHECKPOINT, Overwrite


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=CHECKPOINT)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a checkpoint of a known network as safetensors: weights only, safe to share.

    Example: derain convert latest.pth -o spanet.safetensors
    """
    from derain.atomic import refuse_existing
    from derain.checkpoints import open_checkpoint, save_model
    from derain.errors import UsageError

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the file name must end in .safetensors.")
    refuse_existing(output, overwrite)
    opened = open_checkpoint(model, own_code=None)
    save_model(output, opened)
    name, tensors = opened.checkpoint.name, len(opened.network.state_dict())
    say(f"{output}: {name}, {tensors} tensors.")
