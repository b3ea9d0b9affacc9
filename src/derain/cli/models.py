"""`derain models`: lists the known models."""

from __future__ import annotations

import itertools
import json
import textwrap
from typing import Annotated, Any

import typer

from derain.cli.output import tables
from derain.cli.shared import AsJson


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show this model, with published figures and sources.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models by name, or show one: size, published figures, where its authors publish weights.

    Example: derain models

    Example: derain models nerd_rain-s
    """
    from derain.errors import refuse_unknown

    names = _names()
    if name is not None:
        refuse_unknown("model", name, names)
    in_short = name is None and not as_json
    rows = [_row(each, in_short) for each in (names if name is None else [name])]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif name is None:
        _print_list(rows)
    else:
        _print_one(rows[0])


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("network", "method", box=None, pad_edge=False, header_style="bold")
    for title in ("parameters", "weights"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        weights = "bundled" if row["bundled_weights"] else ""
        title = row["method"].partition(" (")[0]
        table.add_row(row["network"], title, f"{row['parameters']:,}", weights)
    tables().print(table)
    typer.echo("\nderain models NAME: multiply-adds, published figures, where to get weights.")


def _print_one(row: dict[str, Any]) -> None:
    lines = {
        "network": row["network"],
        "method": row["method"],
        "paper": row["paper"],
        "parameters": f"{row['parameters']:,}",
        "multiply-adds": f"{row['multiply_adds_per_megapixel'] / 1e9:,.0f} G per megapixel",
        "bundled weights": row["bundled_weights"] or "none",
    }
    for key, value in lines.items():
        typer.echo(textwrap.fill(f"{key:<17}{value}", 80, subsequent_indent=17 * " "))
    for title, figures in itertools.groupby(row["published"], key=lambda f: f["source"]):
        typer.echo(f"published, {title}:")
        for f in figures:
            typer.echo(f"  {f['dataset']:<21}{f['psnr']:.2f} dB / {f['ssim']:<8}{f['protocol']}")
    if row["sources"]:
        typer.echo("from its authors' pages (derain info FILE describes a weights file):")
    for source in row["sources"]:
        details = f" ({source['details']})" if source["details"] else ""
        typer.echo(f"  {source['what']}{details}\n    {source['address']}")


def _names() -> list[str]:
    from derain.methods import network_names

    return list(network_names())


def _row(name: str, in_short: bool) -> dict[str, Any]:
    """What is known about a model; `in_short` leaves out multiply-adds, which take a second to count."""
    from derain.checkpoints.bundled import bundled_names
    from derain.methods import create_network, method_of, network_names
    from derain.nn.unfilled import unfilled
    from derain.sources import published_by

    architecture, variant = network_names()[name]
    method = method_of(architecture)
    with unfilled():
        network: Any = create_network(name)
    figures = [figure for figure in architecture.figures if figure.variant == variant]
    work = (
        {}
        if in_short
        else {"multiply_adds_per_megapixel": network.multiply_adds(1024, 1024) * 10**6 // 2**20}
    )
    return {
        "network": name,
        "method": method.title,
        "paper": method.paper,
        "parameters": sum(p.numel() for p in network.parameters()),
        **work,
        "published": [
            {"dataset": f.dataset, "psnr": f.psnr, "ssim": f.ssim, "protocol": f.protocol, "source": f.source}
            for f in figures
        ],
        "bundled_weights": name if name in bundled_names() else None,
        "sources": [
            {"what": s.what, "address": s.address, "details": s.details}
            for s in published_by(method.name, name)
        ],
    }
