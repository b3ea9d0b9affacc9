"""`derain data check PATH`: which public set a folder is, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from derain.data.duplicates import Duplicate
    from derain.data.layouts import Split

app = typer.Typer(help="Public and own data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Public and own data sets."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder with one or several sets, as unpacked.")],
    against: Annotated[
        Path | None, typer.Option(help="A folder whose pictures must not occur in FOLDER, e.g. a test set.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say which public set a folder holds, what is missing or unpaired, and where it officially comes from.

    Also finds scenes that occur in both training and test pictures. Exits with 1 if something is wrong.

    Example: derain data check datasets/Rain200L

    Example: derain data check photographs/ --against datasets/Rain100L/test
    """
    from derain.cli.progress import bar
    from derain.data.duplicates import find_duplicates
    from derain.data.layouts import find_splits, pictures_to_compare, problems
    from derain.evaluation.files import cores

    splits = find_splits(folder, required=against is None)
    with bar("checking", sum(len(split.pairing.pairs) for split in splits)) as progress:
        found = [(split, problems(split, progress.advance)) for split in splits]
    first, second = pictures_to_compare(folder, splits, against)
    with bar("comparing", len(first) + len(second)) as progress:
        duplicates = find_duplicates(first, second, cores(), progress.advance)
    if as_json:
        content = {
            "splits": [_split_as_json(split, wrong) for split, wrong in found],
            "compared": [len(first), len(second)],
            "duplicates": [_duplicate_as_json(d) for d in duplicates],
        }
        typer.echo(json.dumps(content, indent=2))
    else:
        _print(found, (len(first), len(second)), duplicates)
    if duplicates or any(wrong for _, wrong in found):
        raise typer.Exit(1)


def _print(
    found: list[tuple[Split, list[str]]], compared: tuple[int, int], duplicates: list[Duplicate]
) -> None:
    for split, wrong in found:
        typer.echo(
            f"{split.title}: {len(split.pairing.pairs)} pairs, names like {split.pairing.rule.summary}"
        )
        typer.echo(f"  rainy  {split.rainy}\n  clean  {split.clean}")
        for line in wrong:
            typer.echo(f"  WRONG  {line}")
        for source in dict.fromkeys(s.source for s in split.sets):
            typer.echo(f"  from   {source}")
    if not all(compared):
        return
    typer.echo(f"{compared[0]} clean pictures compared with {compared[1]}: {len(duplicates)} scenes in both")
    for d in duplicates:
        typer.echo(f"  WRONG  {d.first} is {d.second}{' mirrored' if d.mirrored else ''} ({d.likeness:.4f})")


def _split_as_json(split: Split, wrong: list[str]) -> dict[str, Any]:
    return {
        "sets": [s.name for s in split.sets],
        "sources": [s.source for s in split.sets],
        "purpose": split.purpose,
        "rainy": str(split.rainy),
        "clean": str(split.clean),
        "paired_like": split.pairing.rule.summary,
        "pairs": len(split.pairing.pairs),
        "expected": list(split.expected),
        "problems": wrong,
    }


def _duplicate_as_json(d: Duplicate) -> dict[str, Any]:
    return {"first": str(d.first), "second": str(d.second), "likeness": d.likeness, "mirrored": d.mirrored}
