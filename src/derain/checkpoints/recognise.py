"""Which network a state dict belongs to, read off its names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from derain.checkpoints import hub
from derain.checkpoints.bundled import find
from derain.errors import DerainError
from derain.methods import all_architectures, method_of
from derain.methods.contract import Architecture, Method, StateDict
from derain.methods.network import RainNetwork
from derain.tensors import Tensors, read_tensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that was opened and understood.

    Attributes:
        path: of the file.
        method: the published system it belongs to.
        architecture: its kind of network.
        variant: the name of the variant with the same hyper-parameters, None for an unusual size.
        config: hyper-parameters; `architecture.build(**config)` is the network.
        network: with the weights loaded (strictly), in eval mode, on the CPU.
        nest: the dotted key below which the weights lay in the file, "" at the top.
        facts: what the file says of itself (training step, ...).
    """

    path: Path
    method: Method
    architecture: Architecture
    variant: str | None
    config: dict[str, Any]
    network: RainNetwork
    nest: str
    facts: dict[str, Any]


def open_checkpoint(model: str | Path) -> Checkpoint:
    """Opens an official or own checkpoint of any known network.

    Examples:
        >>> import derain
        >>> checkpoint = derain.open_checkpoint("spanet")
        >>> checkpoint.architecture.name, checkpoint.variant
        ('spanet', 'published')

    Args:
        model: a file; the name of bundled weights; or "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" for a
            repository, see `hub`.

    Raises:
        UsageError: no weights have this name.
        DerainError: unreadable, unsafe, unknown or not matching its network; says what was seen.
    """
    if hub.names_repository(model):
        found = hub.download(hub.repository(model))
        checkpoint = _open_file(found.weights)
        hub.check_config(found, checkpoint.architecture.name, checkpoint.config)
        return checkpoint
    return _open_file(find(model))


def _open_file(path: str | Path) -> Checkpoint:
    tensors = read_tensors(path)
    architecture, config = identify(tensors.state, str(path))
    network = _load(architecture, config, tensors, str(path))
    variants = (name for name, wanted in architecture.variants.items() if _same(wanted, config))
    return Checkpoint(
        path=Path(path),
        method=method_of(architecture),
        architecture=architecture,
        variant=next(variants, None),
        config=config,
        network=network,
        nest=tensors.nest,
        facts=tensors.facts,
    )


def identify(state: StateDict, source: str = "state dict") -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a state dict and its hyper-parameters.

    Raises:
        DerainError: no known network has such names; names the nearest and the first keys seen.
    """
    for architecture in all_architectures():
        try:
            config = architecture.recognise(state)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, DerainError):
                raise
            config = None  # names of this network on tensors of another shape
        if config is not None:
            return architecture, config
    nearest, shared = max(
        ((a, len(_names(a).intersection(state))) for a in all_architectures()), key=lambda pair: pair[1]
    )
    hint = (
        f"The nearest known network is {nearest.name}, with {shared} of its names."
        if shared
        else f"Known networks: {', '.join(a.name for a in all_architectures())}."
    )
    first = ", ".join(list(state)[:4])
    raise DerainError(f"{source}: no known network. First of its {len(state)} keys: {first}. {hint}")


def _load(architecture: Architecture, config: dict[str, Any], tensors: Tensors, source: str) -> RainNetwork:
    try:
        with torch.device("meta"):
            network = architecture.build(**config)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DerainError(f"{source}: looks like {architecture.name} but does not fit: {reason}.") from None
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    problems = [f"{name} is missing" for name in wanted if name not in tensors.state]
    problems += [f"{name} is not part of it" for name in tensors.state if name not in wanted]
    problems += [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(wanted[name])}"
        for name, tensor in tensors.state.items()
        if name in wanted and tensor.shape != wanted[name]
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DerainError(
            f"{source}: looks like {architecture.name} but does not fit: {'; '.join(problems[:3])}{more}."
        )
    kinds = {name: tensor.is_floating_point() for name, tensor in network.state_dict().items()}
    problems = [n for n, tensor in tensors.state.items() if tensor.is_floating_point() != kinds[n]]
    if problems:
        kind = str(tensors.state[problems[0]].dtype).removeprefix("torch.")
        raise DerainError(f"{source}: {problems[0]} is of type {kind}, which it cannot be in a network.")
    bad = [name for name, tensor in tensors.state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise DerainError(f"{source}: {bad[0]} holds values that are not finite.")
    network = architecture.build(**config)
    network.load_state_dict(tensors.state, strict=True)
    return network.eval()


def _names(architecture: Architecture) -> set[str]:
    with torch.device("meta"):
        network = architecture.build(**next(iter(architecture.variants.values())))
    return set(network.state_dict())


def _same(wanted: Any, config: dict[str, Any]) -> bool:
    return all(_plain(config.get(key)) == _plain(value) for key, value in wanted.items())


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
