"""`derain evaluate`: restore and score a set, with the published figures beside the measured ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from derain.data.layouts import Split
    from derain.evaluation.evaluate import Contender
    from derain.evaluation.report import Report
    from derain.restore import Derainer


def evaluate(
    rainy: Annotated[Path, typer.Argument(help="A public set as unpacked, or the folder of rainy pictures.")],
    clean: Annotated[Path | None, typer.Argument(help="The folder of clean pictures.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path(
        "evaluation"
    ),
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="NAME|FILE", help="Bundled weights or a checkpoint; repeatable."
        ),
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option("--protocol", "-p", metavar="NAME", help="By default the one usual for a public set."),
    ] = None,
    quantise: Annotated[
        str, typer.Option(metavar="round|floor", help="How results become bytes; PReNet's script truncates.")
    ] = "round",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (fp32), fp32, bf16 or fp16.")] = "auto",
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; 0: never tile.")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Average over the eight flips and turns.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Restore and score a set with one or several networks: tables, an HTML page, a sheet of pictures.

    Goes on where an earlier run into the same folder stopped.

    Example: derain evaluate datasets/Rain200L/test -m drsformer_200L.pth -o report

    Example: derain evaluate rainy/ clean/ -p matlab_y_uint8 -p matlab_y_double
    """
    from derain.cli.progress import bar
    from derain.errors import UsageError
    from derain.evaluation.evaluate import evaluate as run
    from derain.evaluation.page import write_report
    from derain.evaluation.report import Report, to_json

    if quantise not in ("round", "floor"):
        raise UsageError(f"--quantise {quantise}: choose round or floor.")
    test_set, chosen = _test_set(rainy, clean, protocols)
    pairs = test_set.pairing.pairs
    settings = {"device": device, "precision": precision, "tile": tile, "ensemble": ensemble}
    contenders, device_used = _contenders(models or [None], settings)
    with bar("evaluating", len(contenders) * len(pairs)) as progress:
        results = run(contenders, pairs, chosen, output, cast(Any, quantise), progress.advance)
    notes = _notes(test_set)
    report = Report(test_set.dataset, pairs, chosen, results, output, device_used, notes)
    page = write_report(report)
    if as_json:
        typer.echo(json.dumps(to_json(report), indent=2, allow_nan=False))
    else:
        _print(report, page)


def _test_set(rainy: Path, clean: Path | None, protocols: list[str] | None) -> tuple[Split, tuple[str, ...]]:
    """A whole set of pairs, and the protocols to score it by."""
    from derain.data.layouts import find_splits, split_of
    from derain.data.pairing import refuse_leftovers
    from derain.errors import UsageError
    from derain.evaluation import protocol

    if clean is None:
        splits = find_splits(rainy)
        if len(splits) > 1:
            found = ", ".join(str(split.rainy) for split in splits)
            raise UsageError(f"{rainy}: holds {len(splits)} sets; name one of them: {found}.")
        split = splits[0]
    else:
        split = split_of(rainy, clean)
    refuse_leftovers(split.pairing, split.rainy, split.clean)
    usual = [s.protocol for s in split.sets]
    if not protocols and not usual:
        raise UsageError(f"{rainy}: not a known public set; name a protocol with -p.")
    chosen = tuple(dict.fromkeys(protocols or usual))
    for name in chosen:
        protocol(name)
    return split, chosen


def _notes(test_set: Split) -> tuple[str, ...]:
    """What a reader must know before comparing with published figures."""
    count = len(test_set.pairing.pairs)
    whole = [size for s in test_set.sets for split, size in s.sizes.items() if split != "train"]
    if test_set.purpose not in (None, "train"):
        whole = list(test_set.expected)
    if not whole or count in whole:
        return ()
    sizes = " or ".join(map(str, whole))
    return (f"These are {count} pictures; published figures are means over the {sizes} of the test set.",)


def _contenders(models: list[str] | list[None], settings: dict[str, Any]) -> tuple[list[Contender], str]:
    """The rainy picture and every network, with names of their own; and the device that they run on."""
    from derain import load
    from derain.checkpoints.hub import names_repository, repository
    from derain.evaluation.evaluate import rainy_contender

    contenders, device = [rainy_contender()], ""
    for model in models:
        derainer = load(model, **settings)
        device = str(derainer.device)
        on_hub = model is not None and names_repository(model)
        stem = repository(str(model)).name if on_hub else derainer.checkpoint.path.stem
        taken = [c.name for c in contenders]
        names = (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 2)))
        contenders.append(_contender(derainer, next(name for name in names if name not in taken)))
    return contenders, device


def _contender(derainer: Derainer, name: str) -> Contender:
    from derain.evaluation.evaluate import Contender
    from derain.methods import network_names
    from derain.restore.clips import identity

    def restore(rainy: Tensor) -> Tensor:
        return derainer.restore(rainy).image

    size = (derainer.name, derainer.checkpoint.variant)
    known = (
        n for n, (architecture, variant) in network_names().items() if (architecture.name, variant) == size
    )
    return Contender(
        name=name,
        method=next(known, ""),
        restore=restore,
        identity=f"{identity(derainer)} {derainer.device}",
        parameters=sum(p.numel() for p in derainer.network.parameters()),
        multiply_adds=cast(Any, derainer.network).multiply_adds,
    )


def _print(report: Report, page: Path) -> None:
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
    typer.echo(f"report: {page}")
