"""`derain bench [MODEL...]`: speed and memory on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.messages import printable
from derain.cli.output import tables, tell
from derain.cli.shared import MODEL, AsJson, Device, Overwrite, Precision

if TYPE_CHECKING:
    from derain.bench import Measurement


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"{MODEL} Without bundled weights, random ones are measured. "
            "Default: what `derain run` takes.",
            show_default=False,
        ),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="WxH,...", help="Widths and heights of the pictures in pixels.")
    ] = "256x256,512x512",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: PyTorch's choice.")
    ] = None,
    passes: Annotated[int, typer.Option(min=1, help="Timed pictures of each size; the median counts.")] = 3,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Also draw seconds against picture size.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure time and memory of restoring one picture, each size in its own process.

    Example: derain bench spanet drsformer --sizes 256x256,640x480 --plot speed.png
    """
    from derain.bench import Task, check, measure, parse_sizes
    from derain.bench import plot as draw
    from derain.checkpoints.bundled import DEFAULT
    from derain.cli.progress import bar
    from derain.errors import Remedy, UsageError

    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"{plot}: the plot must end in .png.")
    if plot is not None and plot.exists() and not overwrite:
        raise UsageError(f"{plot}: exists already.", Remedy("replace it", {"overwrite": True}))
    tasks = [
        Task(model, height, width, device, precision, threads, passes)
        for model in dict.fromkeys(models or [DEFAULT])
        for height, width in parse_sizes(sizes)
    ]
    for task in {task.model: task for task in tasks}.values():
        check(task)
    measured = []
    with bar("measuring", len(tasks)) as progress:
        for task in tasks:
            measured.append(measure(task))
            progress.advance()
    if plot is not None:
        draw(measured, plot)
    if as_json:
        typer.echo(json.dumps([m.to_json() for m in measured], indent=2))
    else:
        _print(measured)


def _print(measured: list[Measurement]) -> None:
    from rich.table import Table

    table = Table("model", box=None, pad_edge=False, header_style="bold")
    table.columns[0].overflow = "fold"
    for title in ("pixels", "s", "CPU s", "pictures/s", "Mpixel/s", "MiB", "of peak"):
        table.add_column(title, justify="right", no_wrap=True)
    for m in measured:
        table.add_row(
            printable(m.model),
            f"{m.width}x{m.height}",
            f"{m.seconds:.3g}",
            f"{m.cpu_seconds:.3g}",
            f"{1 / m.seconds:.3g}",
            f"{m.megapixels / m.seconds:.3g}",
            "" if m.peak_bytes is None else f"{m.peak_bytes / 2**20:,.0f}",
            f"{m.share:.0%}",
        )
    tables().print(table)
    first, rates = measured[0], sorted(m.matrix_flops / 1e9 for m in measured)
    typer.echo(
        f"\n{first.how}; median of {first.passes} pictures.\n"
        "MiB: most memory above that of the process with the network loaded.\n"
        f"Beside it, matrix products in {first.precision} ran at {rates[0]:,.0f} to {rates[-1]:,.0f} "
        "GFLOP/s.\n"
        "Of peak: the network's multiply-adds a second against theirs."
    )
    for m in measured:
        if m.note:
            tell(f"{m.model} at {m.width}x{m.height}: {m.note}.")
