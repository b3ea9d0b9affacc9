"""`derain publish MODEL OWNER/NAME`: shares weights on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say
from derain.cli.shared import CHECKPOINT


def publish(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=CHECKPOINT)],
    target: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The repository; created if it does not exist.")
    ],
    card: Annotated[
        Path | None, typer.Option(help="The model card, README.md. Default: one made from the weights.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Add a revision to a repository that already holds weights.")
    ] = False,
) -> None:
    """Upload weights to a repository of the Hugging Face Hub, for `derain run --model hf:OWNER/NAME`.

    Log in first with hf auth login. Needs pip install ".[hub]" in a copy of derain.

    Example: derain publish runs/first/best.safetensors me/spanet-streaks
    """
    from derain.checkpoints import open_checkpoint
    from derain.checkpoints.hub import repository
    from derain.checkpoints.publishing import publish as upload
    from derain.errors import UsageError

    where = repository(target)
    try:
        text = None if card is None else card.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{card}: cannot be read as text.") from None
    opened = open_checkpoint(model, own_code=None)
    address = upload(opened, where, card=text, private=private, overwrite=overwrite)
    say(f"{where}: {opened.checkpoint.name} -> {address}")
