"""`derain info MODEL`: describes a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from derain.cli.output import tell
from derain.cli.shared import CHECKPOINT, AsJson, OwnCode

NAMES = {  # of facts whose keys are not clear enough
    "config": "hyperparameters",
    "step": "training steps",
    "psnr": "best validation, dB",
    "positions": "trained on positions",
    "rain": "rain threshold",
}


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=CHECKPOINT)],
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
    }
    if as_json:
        typer.echo(json.dumps({**facts, **checkpoint.facts}, indent=2))
        return
    _tell(facts)
    shown = {key: _in_words(value) for key, value in facts.items()}
    stated = {key: value for key, value in checkpoint.facts.items() if shown.get(key) != _in_words(value)}
    if stated:
        tell("stated in the file:")
        _tell(stated)


def _tell(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if value not in ("", None):
            told = f"{value:,}" if key == "parameters" else _in_words(value)
            tell(f"{NAMES.get(key, key).replace('_', ' '):>24}  {told}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
