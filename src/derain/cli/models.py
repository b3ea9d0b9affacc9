"""`derain models`: what there is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the networks: size, work, published figures, bundled weights.

    Example: derain models
    """
    from rich.console import Console
    from rich.table import Table

    rows = [_row(name) for name in _names()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(
        "network", "from", "parameters", "G multiply-adds / megapixel", "published", "bundled weights"
    )
    for row in rows:
        figures = [f"{f['dataset']} {f['psnr']} dB / {f['ssim']} ({f['protocol']})" for f in row["published"]]
        work = f"{row['multiply_adds_per_megapixel'] / 1e9:,.0f}"
        weights = row["bundled_weights"] or "-"
        table.add_row(
            row["network"], row["method"], f"{row['parameters']:,}", work, "\n".join(figures) or "-", weights
        )
    Console().print(table)


def _names() -> list[str]:
    from derain.methods import network_names

    return list(network_names())


def _row(name: str) -> dict[str, Any]:
    import torch

    from derain.checkpoints.bundled import bundled_names
    from derain.methods import all_methods, create_network, network_names

    architecture, variant = network_names()[name]
    method = next(method for method in all_methods() if architecture in method.architectures)
    with torch.device("meta"):
        network: Any = create_network(name)
    figures = [figure for figure in architecture.figures if figure.variant == variant]
    return {
        "network": name,
        "method": method.title,
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds_per_megapixel": network.multiply_adds(1024, 1024) * 1_000_000 // 1024**2,
        "published": [
            {"dataset": f.dataset, "psnr": f.psnr, "ssim": f.ssim, "protocol": f.protocol, "source": f.source}
            for f in figures
        ],
        "bundled_weights": name if name in bundled_names() else None,
    }
