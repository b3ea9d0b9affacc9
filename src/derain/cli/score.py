"""`derain score RESTORED CLEAN`: scores pictures under the published protocols."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.messages import printable
from derain.cli.output import tables

if TYPE_CHECKING:
    from derain.evaluation.scores import SetScore


def _list_protocols(wanted: bool) -> None:
    if wanted:
        from derain.evaluation import PROTOCOLS

        for protocol in PROTOCOLS.values():
            typer.echo(f"{protocol.name:<20}{protocol.summary}")
        raise typer.Exit


def score(
    restored: Annotated[Path, typer.Argument(help="A restored picture or video, or a folder of pictures.")],
    clean: Annotated[
        Path | None, typer.Argument(help="The clean picture, video or folder; NIQE and BRISQUE need none.")
    ] = None,
    rainy: Annotated[
        Path | None,
        typer.Option(help="The rainy picture, video or folder, for real rain without clean pictures."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="The rain mask, or a folder of masks; white is rain.")
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option("--protocol", "-p", metavar="NAME", help="A protocol; may be given several times."),
    ] = None,
    crop_to_common: Annotated[
        bool,
        typer.Option("--crop-to-common", help="Crop pictures of different sizes to their common centre."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; an infinite value is null.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a row per picture and protocol.")] = False,
    _: Annotated[
        bool,
        typer.Option("--list", help="List the protocols and exit.", is_eager=True, callback=_list_protocols),
    ] = False,
) -> None:
    """Score restored pictures under one or more published protocols.

    Pictures are paired by name, never by order; one without a partner is an error. One that cannot be read
    or scored is reported and left out.

    Example: derain score restored/ clean/ -p matlab_y_uint8 -p matlab_y_double --json

    Example: derain score restored/ --rainy rainy/ --masks masks/ -p real_rain

    Example: derain score dry.mp4 clean.mp4 -p flicker_truth

    Example: derain score restored/ -p niqe_stable
    """
    from derain.cli.progress import bar
    from derain.errors import UsageError
    from derain.evaluation.clips import with_frames
    from derain.evaluation.scoring import plan_of, score_files

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be combined; give one.")
    if not protocols:
        raise UsageError(
            "no protocol is named; give one, such as -p matlab_y_uint8 (`derain score --list` shows all)."
        )
    with with_frames({"restored": restored, "clean": clean, "rainy": rainy, "masks": masks}) as places:
        items = plan_of(places, protocols)
        with bar("scoring", len(items)) as progress:
            scored = score_files(items, protocols, crop_to_common, progress.advance)
    failed = dict.fromkeys(message for s in scored.sets for message in s.failed)
    for line in (*scored.notes, *failed):
        print(f"derain: {printable(line)}", file=sys.stderr)
    if as_json:
        content = {"protocols": {s.protocol: s.to_json() for s in scored.sets}}
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    elif as_csv:
        _print_csv(scored.sets)
    else:
        _print_table(scored.sets)
    if failed:
        raise typer.Exit(1)


def _print_csv(sets: tuple[SetScore, ...]) -> None:
    measures = list(dict.fromkeys(m for s in sets for m in s.mean))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["protocol", "name", *measures])
    for s in sets:
        for picture in s.pictures:
            writer.writerow([s.protocol, picture.name, *(picture.values.get(m, "") for m in measures)])


def _print_table(sets: tuple[SetScore, ...]) -> None:
    from rich.table import Table

    from derain.evaluation.measures import MEASURES, figure

    table = Table("protocol", "measure", box=None, pad_edge=False, header_style="bold")
    for title in ("pictures", "mean", "lowest", "highest"):
        table.add_column(title, justify="right", no_wrap=True)
    for s in sets:
        for measure, mean in s.mean.items():
            by_value = sorted(s.pictures, key=lambda p: p.values[measure])
            ends = [f"{figure(measure, p.values[measure])} {p.name}" for p in (by_value[0], by_value[-1])]
            cells = (MEASURES[measure].title, str(s.count), figure(measure, mean), *map(printable, ends))
            table.add_row(s.protocol, *cells)
    tables().print(table)
    for s in sets:
        if s.infinite and s.mean_finite:
            others = ", ".join(f"{MEASURES[m].title} {figure(m, v)}" for m, v in s.mean_finite.items())
            print(f"{s.protocol}: {s.infinite} pictures equal their truth; mean of the others: {others}.")
        elif s.infinite:
            print(f"{s.protocol}: all pictures equal their truth.")
