"""`derain evaluate`: restore and score a set, with the published figures beside the measured ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from derain.cli.output import say
from derain.cli.shared import MODEL, AsJson, Device, Precision

if TYPE_CHECKING:
    from derain.evaluation.report import Report


def evaluate(
    rainy: Annotated[Path, typer.Argument(help="A public set as unpacked, or the folder of rainy pictures.")],
    clean: Annotated[Path | None, typer.Argument(help="The folder of clean pictures.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path(
        "evaluation"
    ),
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help=f"{MODEL} May be given several times."),
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            metavar="NAME",
            help="See `derain score --list`; may be given several times. Default: that of the public set.",
        ),
    ] = None,
    quantise: Annotated[
        str, typer.Option(metavar="round|floor", help="How results become bytes; PReNet's script truncates.")
    ] = "round",
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; 0: never tile.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Average over the eight flips and turns.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore and score a set with one or several networks: tables, an HTML page, a sheet of pictures.

    Goes on where an earlier run into the same folder stopped.

    Example: derain evaluate datasets/Rain200L/test -m drsformer_200L.pth -o report

    Example: derain evaluate rainy/ clean/ -p matlab_y_uint8 -p matlab_y_double
    """
    from derain.cli.progress import bar
    from derain.evaluation.report import to_json
    from derain.front import evaluate as run

    with bar("evaluating", None) as progress:
        report = run(
            rainy,
            clean,
            models or [None],
            protocols=protocols or (),
            output=output,
            quantise=cast(Any, quantise),
            device=device,
            precision=precision,
            tile=tile,
            ensemble=ensemble,
            on_picture=progress.reach,
        )
    if as_json:
        typer.echo(json.dumps(to_json(report), indent=2, allow_nan=False))
    else:
        _print(report)
        say(f"report: {output / 'index.html'}")


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from derain.evaluation import protocol
    from derain.evaluation.report import MEASURED, SIDE, multiply_adds, table
    from derain.evaluation.scores import UNITS, figure

    console = Console()
    for note in report.notes:
        console.print(note)
    for name in report.protocols:
        measures = protocol(name).measures
        title = f"{name}, {report.dataset or 'own set'}, {len(report.pairs)} pictures"
        shown = Table("network", title=title, box=None, pad_edge=False, title_justify="left")
        for measure in measures:
            shown.add_column(UNITS[measure], justify="right")
        shown.add_column("source", no_wrap=True)
        for row in table(report, name):
            values = (figure(m, row.values[m]) if m in row.values else "" for m in measures)
            own = f"; published {row.own.psnr:.2f} / {row.own.ssim:.4f}" if row.own else ""
            style = "bold" if row.source == MEASURED else None
            shown.add_row(row.name, *values, row.source + own, style=style)
        console.print(shown, "")
    costs = Table(
        "network",
        box=None,
        pad_edge=False,
        title_justify="left",
        title=f"Cost on {report.device}; multiply-adds at {SIDE}x{SIDE}",
    )
    for title in ("parameters", "G mult-adds", "s/picture", "Mpixel/s", "peak MiB"):
        costs.add_column(title, justify="right")
    for r in report.networks:
        adds = multiply_adds(r) or 0
        costs.add_row(
            r.contender.name,
            f"{r.contender.parameters:,}",
            f"{adds / 1e9:.2f}",
            f"{r.seconds:.2f}",
            f"{r.megapixels_per_second:.3f}",
            f"{r.peak_bytes / 2**20:,.0f}",
        )
    console.print(costs)
