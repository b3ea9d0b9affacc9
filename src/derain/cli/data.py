"""`derain data`: shows which public set a folder holds, whether it is complete, and where sets come from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.cli.output import tell
from derain.cli.shared import AsJson, Command, Group

if TYPE_CHECKING:
    from derain.data.duplicates import Duplicate
    from derain.data.layouts import Split

app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Check data sets, and show where public ones come from."""


@app.command(cls=Command)
def check(
    folder: Annotated[Path, typer.Argument(help="A folder with one or more sets, as unpacked.")],
    against: Annotated[
        Path | None, typer.Option(help="A folder whose pictures must not occur in FOLDER, e.g. a test set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which public set a folder holds, what is missing or unpaired, and its official source.

    Also finds scenes that are in both training and test pictures. Exits with 1 if anything is wrong.

    Example: derain data check datasets/Rain200L

    Example: derain data check photographs/ --against datasets/Rain100L/test
    """
    from derain.cli.progress import bar
    from derain.cores import cores
    from derain.data.duplicates import find_duplicates
    from derain.data.layouts import find_splits, made_clips, pictures_to_compare, problems

    clips = made_clips(folder)
    if clips is not None:
        if as_json:
            typer.echo(json.dumps({"clips": asdict(clips)}, indent=2))
        else:
            tell(
                f"{clips.made}: {len(clips.clips)} rainy clips, each with its clean picture",
                *(f"  WRONG  {line}" for line in clips.problems),
            )
        if clips.problems:
            raise typer.Exit(1)
        return
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


@app.command(cls=Command)
def sources(
    name: Annotated[
        str | None, typer.Argument(metavar="SET", help="Show only this set.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where the public sets come from, what they hold, and by which protocol they are scored.

    Check a download with `derain data check FOLDER`: it counts and pairs the pictures.

    Example: derain data sources SPA-Data
    """
    from derain.data.layouts import SETS
    from derain.errors import unknown_name
    from derain.sources import NO_ADDRESS, published_by

    wanted = [s for s in SETS if name is None or s.name.lower() == name.lower()]
    if name is not None and not wanted:
        raise unknown_name("set", name, [s.name for s in SETS])
    if as_json:
        content = [
            {
                "set": s.name,
                "pairs": dict(s.sizes),
                "protocol": s.protocol,
                "sources": [asdict(source) for source in published_by(s.name)],
            }
            for s in wanted
        ]
        typer.echo(json.dumps(content, indent=2))
        return
    for s in wanted:
        sizes = ", ".join(f"{split} {size:,}" for split, size in s.sizes.items())
        tell(f"{s.name}: {sizes} pairs; scored by {s.protocol}")
        for source in published_by(s.name):
            details = f" ({source.details})" if source.details else ""
            tell(f"  {source.what}{details}", f"    {source.address or NO_ADDRESS}")


def _print(
    found: list[tuple[Split, list[str]]], compared: tuple[int, int], duplicates: list[Duplicate]
) -> None:
    from derain.data.pairing import RULES

    for split, wrong in found:
        rule = split.pairing.rule
        names = "equal names" if rule == RULES[0] else f"names like {rule.summary}"
        tell(
            f"{split.title}: {len(split.pairing.pairs)} pairs, {names}",
            f"  rainy  {split.rainy}",
            f"  clean  {split.clean}",
            *(f"  WRONG  {line}" for line in wrong),
            *(f"  from   {address}" for address in dict.fromkeys(s.address for s in split.sets) if address),
        )
    if not all(compared):
        return
    tell(f"{compared[0]} clean pictures compared with {compared[1]}: {len(duplicates)} scenes in both")
    for d in duplicates:
        tell(f"  WRONG  {d.first} is {d.second}{' mirrored' if d.mirrored else ''} ({d.likeness:.4f})")


def _split_as_json(split: Split, wrong: list[str]) -> dict[str, Any]:
    return {
        "sets": [s.name for s in split.sets],
        "sources": [s.address for s in split.sets if s.address],
        "made": split.made,
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
