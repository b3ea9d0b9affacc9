"""`derain bench [MODEL...]`: speed and memory on this machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from derain.cli.messages import printable
from derain.cli.output import tables, tell
from derain.cli.shared import MODEL, AsJson, Device, Overwrite, Precision

if TYPE_CHECKING:
    from rich.table import Table

    from derain.bench import Choice, Measurement, Task

WORTH_IT = 0.95  # share of PyTorch's time in float32 above which nothing else is recommended
# The columns of a table: {title: function from a measurement to its cell's text}.
Columns: TypeAlias = "dict[str, Callable[[Measurement], str]]"
SPEED: Columns = {"s": lambda m: f"{m.seconds:.3g}", "CPU s": lambda m: f"{m.cpu_seconds:.3g}"}
RATES: Columns = {
    "pictures/s": lambda m: f"{1 / m.seconds:.3g}",
    "Mpixel/s": lambda m: f"{m.megapixels / m.seconds:.3g}",
}
PEAKS: Columns = {
    "MiB": lambda m: "" if m.peak_bytes is None else f"{m.peak_bytes / 2**20:,.0f}",
    "of peak": lambda m: f"{m.share:.0%}",
}
SHARES: Columns = {
    "read": lambda m: f"{m.read_seconds / m.all_seconds:.1%}",
    "pad": lambda m: f"{m.pad_seconds / m.all_seconds:.1%}",
    "network": lambda m: f"{m.seconds / m.all_seconds:.1%}",
    "write": lambda m: f"{m.write_seconds / m.all_seconds:.1%}",
}


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"{MODEL} Networks without bundled weights get random ones. Default: that of `derain run`.",
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
    passes: Annotated[int, typer.Option(min=1, help="Pictures timed per size; the median is reported.")] = 3,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also measure every precision and installed runtime, and say which is fastest.",
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Also plot seconds against picture size.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure the time and memory that restoring a picture takes, each size in its own process.

    Example: derain bench spanet drsformer --sizes 256x256,640x480 --plot speed.png

    Example: derain bench --compare --sizes 2000x1000
    """
    from derain.atomic import refuse_existing
    from derain.bench import Task, as_chosen, check_task, choices, measure, parse_sizes
    from derain.bench import plot as draw
    from derain.checkpoints.bundled import DEFAULT
    from derain.cli.progress import bar
    from derain.errors import UsageError

    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise UsageError(f"{plot}: the file name must end in .png.")
        refuse_existing(plot, overwrite)
    tasks = [
        Task(model, height, width, device, precision, threads, passes)
        for model in dict.fromkeys(models or [DEFAULT])
        for height, width in parse_sizes(sizes)
    ]
    for task in {task.model: task for task in tasks}.values():
        check_task(task)
    ways = [(task, way) for task in tasks for way in (choices(task) if compare else [None])]
    measured = []
    with tempfile.TemporaryDirectory() as folder, bar("measuring", len(ways)) as progress:
        for task, way in ways:
            place = Path(folder) / str(models.index(task.model) if models else 0)
            done = measure(task if way is None else as_chosen(task, way, place))
            measured.append(replace(done, model=task.model))
            progress.advance()
    advice = [
        _advice(task, [(m, way) for m, (t, way) in zip(measured, ways, strict=True) if t == task and way])
        for task in tasks
        if compare
    ]
    if plot is not None:
        draw(measured, plot)
    if as_json:
        rows = [
            {**m.to_json(), **({} if way is None else {"how": str(way)})}
            for m, (_, way) in zip(measured, ways, strict=True)
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print(measured, ["" if way is None else str(way) for _, way in ways])
        for line in advice:
            tell(line)


def _advice(task: Task, measured: Sequence[tuple[Measurement, Choice]]) -> str:
    """Which runtime and precision are the fastest, and how to use them, in one line."""
    usual = min(m.seconds for m, way in measured if way.precision == "float32")
    fastest, way = min(measured, key=lambda pair: pair[0].seconds)
    ratio = fastest.seconds / usual
    size = f"{task.model} at {task.width}x{task.height}"
    if ratio > WORTH_IT:
        return f"{size}: nothing is at least 5 % faster than PyTorch in float32."
    if way.runtime:
        how = f"derain export {task.model} --to {way.runtime} -o FILE, then derain run --model FILE"
    else:
        how = f"derain run --precision {way.precision}"
    return f"{size}: fastest is {way}, at {ratio:.2f} of PyTorch's time in float32: {how}"


def _print(measured: list[Measurement], ways: list[str]) -> None:
    console = tables()
    console.print(_table(measured, ways, SPEED | ({} if any(ways) else RATES) | PEAKS))
    console.print()
    console.print(_table(measured, ways, SHARES))
    first, matrices = measured[0], sorted(m.matrix_flops / 1e9 for m in measured)
    precisions = ", ".join(dict.fromkeys(m.precision for m in measured))
    typer.echo(
        f"\n{first.how if not any(ways) else first.machine}; median of {first.passes} pictures.\n"
        "MiB: peak memory above that of the process with the network loaded.\n"
        f"Measured alongside, matrix products in {precisions} ran at {matrices[0]:,.0f} to "
        f"{matrices[-1]:,.0f} GFLOP/s.\n"
        "Of peak: the network's multiply-adds per second relative to those of the matrix products.\n"
        "Read, pad, network, write: shares of the time of `derain run` for a JPEG of that size."
    )
    for m in measured:
        if m.note:
            tell(f"{m.model} at {m.width}x{m.height}: {m.note}.")


def _table(measured: list[Measurement], ways: list[str], columns: Columns) -> Table:
    """A row for each measurement; `ways` names the runtime and precision of each, or is "" for all."""
    from rich.table import Table

    made = Table("model", box=None, pad_edge=False, header_style="bold")
    made.columns[0].overflow = "fold"
    if any(ways):
        made.add_column("runtime", no_wrap=True)
    for title in ("pixels", *columns):
        made.add_column(title, justify="right", no_wrap=True)
    for m, way in zip(measured, ways, strict=True):
        cells = (cell(m) for cell in columns.values())
        made.add_row(printable(m.model), *([way] if way else []), f"{m.width}x{m.height}", *cells)
    return made
