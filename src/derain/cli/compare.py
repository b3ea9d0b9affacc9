"""`derain compare A B...`: a page for choosing the better of two results by eye."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from derain.cli.messages import printable
from derain.cli.output import say
from derain.cli.shared import Overwrite


def compare(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER...", help="Folders of results; pictures are paired by name."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, an HTML file.")] = Path(
        "compare.html"
    ),
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide the names of the folders until all choices are made.")
    ] = False,
    rainy: Annotated[
        Path | None, typer.Option(help="Folder of the rainy pictures, shown between the two.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Maximum number of choices.")] = 60,
    crop: Annotated[int, typer.Option(min=16, help="Side of the crops in pixels.")] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write a page for choosing the better of two results of the same crop by eye, with the keyboard.

    Crops are taken where the two differ most. The page needs no server; it remembers the choices, and shows
    wins with 95 % intervals at the end. A picture that cannot be shown is reported and left out.

    Example: derain compare ours/ theirs/ --rainy rainy/ --blind -o look.html
    """
    from derain.atomic import refuse_existing, replace_file
    from derain.cli.evaluate import named_folder
    from derain.errors import UsageError
    from derain.evaluation.blind import comparison_page

    refuse_existing(output, overwrite)
    results = dict(map(named_folder, folders))
    if len(results) < len(folders):
        raise UsageError("two folders have the same name; write NAME=FOLDER.")
    page = comparison_page(results, rainy, blind=blind, count=count, side=crop, seed=seed)
    replace_file(output, page.html.encode())
    for line in page.failed:
        print(f"derain: {printable(line)}", file=sys.stderr)
    say(f"page: {output}")
    if page.failed:
        raise typer.Exit(1)
