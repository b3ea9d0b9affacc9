"""`derain evaluate`: restores and scores a set, with the published figures beside the measured ones."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.messages import printable
from derain.cli.options import grouped
from derain.cli.output import say, tables
from derain.cli.shared import MODEL, AsJson, Device, Ensemble, OwnCode
from derain.paths import exists, real

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from derain.evaluation.tables import Cell, Line, Table


WIDE = 120  # characters: terminals at least this wide show intervals; the page always does
LEAST_NAME = 20  # characters of a network's name that a narrow terminal does not fold


@dataclass(frozen=True)
class Scoring:
    """How results are scored, and what the set is called."""

    protocols: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            metavar="NAME",
            help="A protocol, see `derain score --list`; may be given several times. Default: the set's own.",
        ),
    ] = None
    name: Annotated[str, typer.Option(help="Name of the set in tables. Default: its public name.")] = ""
    quantise: Annotated[
        str,
        typer.Option(
            metavar="round|floor", help="How results are rounded to 8 bits; PReNet's script uses floor."
        ),
    ] = "round"


@dataclass(frozen=True)
class Restoring:
    """How the networks run."""

    device: Device = "auto"
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16 or float16.")] = "auto"
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; 0: never tile.")] = None
    ensemble: Ensemble = False
    test_time: Annotated[
        list[str] | None,
        typer.Option(
            "--test-time",
            metavar="flips|turns|phases",
            help="Also measure every network averaged over flips or rotations, or applied to the four "
            "half-size phases one by one; may be given several times.",
        ),
    ] = None
    own_code: OwnCode = False


@dataclass(frozen=True)
class Printing:
    """What is printed."""

    table: Annotated[
        str | None,
        typer.Option(
            metavar="latex|markdown|csv|html",
            help="Print one table in this format, and write it to the report's folder.",
        ),
    ] = None
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="REPORT",
            help="Folder of an earlier report to add to the tables; may be given several times.",
        ),
    ] = None
    as_json: AsJson = False


@grouped
def evaluate(
    rainy: Annotated[Path, typer.Argument(help="A public set as unpacked, or the folder of rainy pictures.")],
    clean: Annotated[Path | None, typer.Argument(help="The folder of clean pictures.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path(
        "evaluation"
    ),
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="[NAME=]MODEL",
            help=f"{MODEL} Also any ONNX file, or package.module:factory, which RUNS YOUR OWN CODE. "
            "NAME is its name in tables. May be given several times.",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--results", metavar="NAME=FOLDER", help="Results of another program; may be given several times."
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Rain masks, for real rain without clean pictures; white is rain.")
    ] = None,
    *,
    scoring: Scoring,
    restoring: Restoring,
    printing: Printing,
) -> None:
    """Restore and score a set with one or more networks; write tables, an HTML page and a sheet of pictures.

    Continues where an earlier run with the same --output stopped. A picture that fails is reported and left
    out.

    Example: derain evaluate datasets/Rain200L/test -m drsformer_200L.pth -o report

    Example: derain evaluate rainy/ clean/ -p matlab_y_uint8 -p matlab_y_double

    Example: derain evaluate rainy/ --masks masks/ -o real --with report --table latex
    """
    from derain.cli.progress import bar
    from derain.errors import UsageError, refuse_unknown
    from derain.evaluation.formats import FORMATS
    from derain.evaluation.page import write_table
    from derain.evaluation.tables import make_table, read_report
    from derain.front import evaluate as run

    table, as_json = printing.table, printing.as_json
    if table is not None:
        refuse_unknown("table format", table, FORMATS)
    if as_json and table:
        raise UsageError("--json and --table cannot be combined; give one.")
    if as_json and printing.others:
        raise UsageError("--json prints this report alone and cannot be combined with --with.")
    chosen = [*map(_named_model, models)] if models else [] if results else [None]
    earlier = [read_report(folder) for folder in printing.others or ()]
    with bar("evaluating", None) as progress:
        report = run(
            rainy,
            clean,
            chosen,
            masks=masks,
            results=dict(map(named_folder, results or ())),
            output=output,
            **{**vars(scoring), "protocols": scoring.protocols or ()},
            **{**vars(restoring), "test_time": restoring.test_time or ()},
            on_picture=progress.reach,
        )
    content = read_report(output)
    for line in report.failed:
        print(f"derain: {printable(line)}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    elif table:
        if earlier:
            write_table(output, table, make_table([*earlier, content]))
        typer.echo((output / f"table{FORMATS[table][0]}").read_text("utf-8"), nl=False)
    else:
        _print(make_table([*earlier, content]))
        say(f"report: {output / 'index.html'}")
    if report.failed:
        raise typer.Exit(1)


def named_folder(text: str) -> tuple[str, Path]:
    """Name and folder of NAME=FOLDER, or of a folder alone, whose own name is used."""
    name, separator, folder = text.partition("=")
    return (name, Path(folder)) if separator else (real(Path(text)).name, Path(text))


def _named_model(text: str) -> str | tuple[str, str]:
    """Name and model of NAME=MODEL; a model alone is returned as it is, even a file with = in its path."""
    name, separator, model = text.partition("=")
    return (name, model) if separator and not exists(Path(text)) else text


def _print(found: Table) -> None:
    """Prints a table for each set and protocol, and what the networks cost."""
    console = tables()
    for text in (*found.settings, *found.notes):
        console.print(printable(text))
    start = 0
    for group in found.groups:
        places = range(start, start + group.columns)
        start += group.columns
        title = printable(f"{group.protocol}, {group.dataset}")
        console.print(_figures(found, places, title, with_intervals=console.width >= WIDE), "")
    costs = _costs(found)
    if costs is not None:
        console.print(costs)


def _figures(found: Table, places: range, title: str, with_intervals: bool) -> Shown:
    """The columns of one set and protocol, with a row for each network that has figures in them."""
    from rich.table import Table as Shown

    from derain.evaluation.formats import interval_text, value_text

    lines = [line for line in found.lines if any(_at(line, places))]
    sourced = any(line.source or any(c and c.published for c in _at(line, places)) for line in lines)
    shown = Shown(title=title, box=None, pad_edge=False, title_justify="left")
    # A row is useless without its name, so long names are folded and titles of figures wrapped.
    longest = max(len(printable(line.name)) for line in lines)
    shown.add_column("network", overflow="fold", min_width=min(longest, LEAST_NAME))
    for i in places:
        shown.add_column(found.columns[i].title, justify="right")
    if sourced:
        shown.add_column("source", overflow="fold", min_width=24)
    for line in lines:
        cells = []
        for i in places:
            cell, column = line.cells[i], found.columns[i]
            if cell is None:
                cells.append("")
                continue
            interval = interval_text(column, cell) if with_intervals else ""
            cells.append(f"{value_text(column, cell)} {interval}".strip())
        theirs = [c.published for c in _at(line, places) if c and c.published is not None]
        published = " / ".join(f"{value:g}" for value in theirs)
        source = line.source or "measured here" + (f"; published {published}" if published else "")
        style = None if line.source else "bold"
        shown.add_row(printable(line.name), *cells, *[printable(source)] * sourced, style=style)
    return shown


def _costs(found: Table) -> Shown | None:
    """A table of what the networks cost; None if nothing was measured."""
    from rich.table import Table as Shown

    from derain.evaluation.tables import COSTS, cost_text, costs_shown

    names = costs_shown(found)
    if not names:
        return None
    costs = Shown("network", box=None, pad_edge=False, title_justify="left", title="Cost")
    for name in names:
        costs.add_column(COSTS[name], justify="right")
    for line in found.measured:
        costs.add_row(printable(line.name), *(cost_text(line, name) for name in names))
    return costs


def _at(line: Line, places: range) -> list[Cell | None]:
    """A line's figures in some columns."""
    return [line.cells[i] for i in places]
