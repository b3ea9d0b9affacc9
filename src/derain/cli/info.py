"""`derain info MODEL`: describes a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from derain.cli.output import tell
from derain.cli.shared import MODEL, AsJson, OwnCode


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    own_code: OwnCode = False,
    as_json: AsJson = False,
) -> None:
    """Describe a model: network, hyperparameters, size, training step.

    Example: derain info latest.pth
    """
    from derain.checkpoints import open_checkpoint

    network, checkpoint = open_checkpoint(model, own_code=own_code)
    parameters = sum(p.numel() for p in network.parameters())
    facts: dict[str, Any] = {
        "file": model,
        "method": checkpoint.method.title,
        "network": checkpoint.architecture.name,
        "variant": checkpoint.variant or "custom",
        "config": checkpoint.config,
        "parameters": parameters,
        "tensors": len(network.state_dict()),
        "nested_under": checkpoint.nest,
        **{f"file says: {key}" if not as_json else key: value for key, value in checkpoint.facts.items()},
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if value not in ("", None):
            told = f"{value:,}" if key == "parameters" else value
            tell(f"{key.replace('_', ' '):>20}  {told}")
