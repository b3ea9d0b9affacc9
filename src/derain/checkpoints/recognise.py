"""Opens checkpoints: recognises the network of a state dict by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from derain.checkpoints import hub
from derain.checkpoints.bundled import find_model
from derain.checkpoints.rain_threshold import threshold_of
from derain.errors import DerainError, Remedy, UsageError, first_line
from derain.methods import all_architectures, method_of
from derain.methods.contract import Architecture, Method, StateDict
from derain.methods.network import RainNetwork
from derain.methods.own import is_own, own_method
from derain.nn.unfilled import to_be_loaded, unfilled
from derain.tensors import Tensors, parts, read_tensors, save_checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """What is known about a checkpoint file.

    Attributes:
        path: the file.
        method: the published system to which it belongs.
        architecture: its kind of network.
        variant: the name of the variant with the same hyper-parameters, None if there is none.
        config: hyper-parameters; `architecture.build(**config)` makes such a network.
        nest: the dotted key of the weights in the file; "" if they are at the top level.
        facts: what the file states about itself (training step, ...).
    """

    path: Path
    method: Method
    architecture: Architecture
    variant: str | None
    config: dict[str, Any]
    nest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What users call the network, e.g. `everyday-small`; the architecture's name for an unusual size."""
        return self.architecture.called(self.variant)

    @property
    def rain_threshold(self) -> float | None:
        """The signal above which a picture counts as rainy; None if it was not measured for these weights."""
        return threshold_of(self.facts)


class Model(NamedTuple):
    """A network with its weights, and the checkpoint from which they come.

    Attributes:
        network: the network, with the weights loaded (strictly), in eval mode, on the CPU.
        checkpoint: the file.
    """

    network: RainNetwork
    checkpoint: Checkpoint


def open_checkpoint(model: str | Path, *, own_code: bool | None = False) -> Model:
    """Opens a checkpoint of any known network, from its authors or from this project.

    Examples:
        >>> import derain
        >>> network, checkpoint = derain.open_checkpoint("spanet")
        >>> checkpoint.architecture.name, checkpoint.variant
        ('spanet', 'published')
        >>> network.spec.multiple_of
        1

    Args:
        model: a file; the name of bundled weights; or "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" for a
            repository, see `hub`.
        own_code: if the file holds a network of the user's own (`package.module:name` of a recipe), run that
            code with all rights of this process. None refuses like False, but the error does not say how to
            allow it.

    Raises:
        UsageError: no weights have this name, or they are of a network whose code may not run.
        DerainError: the file is unreadable, unsafe, unknown or does not match its network; the message says
            what was found.
    """
    if hub.names_repository(model):
        found = hub.download(hub.repository(model))
        opened = _open_file(found.weights, None)
        hub.check_config(found, opened.checkpoint.architecture.name, opened.checkpoint.config)
        return opened
    return _open_file(find_model(model), own_code)


def save_model(path: Path, model: Model) -> None:
    """Writes weights as a safetensors file that names their network and what is known about them.

    Raises:
        DerainError: the file cannot be written.
    """
    checkpoint = model.checkpoint
    facts = {**checkpoint.facts, "network": checkpoint.architecture.name, "config": checkpoint.config}
    save_checkpoint(path, model.network.state_dict(), facts)


def _open_file(path: str | Path, own_code: bool | None) -> Model:
    tensors = read_tensors(path)
    target = str(tensors.facts.get("network", ""))
    if is_own(target):
        method = _own_method(target, str(path), own_code)
        architecture, config = method.architectures[0], _own_config(tensors)
    else:
        architecture, config, tensors = _recognised(tensors, str(path))
        method = method_of(architecture)
    network = _load(architecture, config, tensors, str(path))
    variants = (name for name, wanted in architecture.variants.items() if _same(wanted, config))
    checkpoint = Checkpoint(
        path=Path(path),
        method=method,
        architecture=architecture,
        variant=next(variants, None),
        config=config,
        nest=tensors.nest,
        facts=tensors.facts,
    )
    return Model(network, checkpoint)


def _own_method(target: str, source: str, own_code: bool | None) -> Method:
    if own_code:
        return own_method(target)
    raise UsageError(
        f"{source}: holds a custom network, {target}: Python code that runs with all your rights.",
        None if own_code is None else Remedy("run it", {"own_code": True}),
    )


def _own_config(tensors: Tensors) -> dict[str, Any]:
    config = tensors.facts.get("config", {})
    return config if isinstance(config, dict) else {}


def _recognised(tensors: Tensors, source: str) -> tuple[Architecture, dict[str, Any], Tensors]:
    """A known network in a file: all of its tensors, or one of several networks stored side by side.

    Raises:
        DerainError: see `identify`.
    """
    for state in (tensors.state, *parts(tensors.state)):
        with suppress(DerainError):
            found = _matched(state)
            if found is not None:
                return *found, replace(tensors, state=state)
    return *identify(tensors.state, source), tensors


def _matched(state: StateDict) -> tuple[Architecture, dict[str, Any]] | None:
    """The first architecture that recognises a state dict as its own, and its hyper-parameters."""
    for architecture in all_architectures():
        try:
            config = architecture.recognise(state)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, DerainError):
                raise DerainError(f"looks like {architecture.name}, but {error}") from None
            config = None  # names of this network, but tensors of other shapes
        if config is not None:
            return architecture, config
    return None


def identify(state: StateDict, source: str = "state dict") -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a state dict and its hyper-parameters.

    Raises:
        DerainError: no known network has such names; the message states the nearest and the first keys found.
    """
    found = _matched(state)
    if found is not None:
        return found
    nearest, shared = max(
        ((a, len(_names(a).intersection(state))) for a in all_architectures()), key=lambda pair: pair[1]
    )
    hint = (
        f"The nearest known network is {nearest.name}, with {shared} of its names."
        if shared
        else f"Known networks: {', '.join(a.name for a in all_architectures())}."
    )
    first = ", ".join(list(state)[:4])
    raise DerainError(f"{source}: not a known network. First of its {len(state)} keys: {first}. {hint}")


def _load(architecture: Architecture, config: dict[str, Any], tensors: Tensors, source: str) -> RainNetwork:
    try:
        with unfilled():
            network = architecture.build(**config)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        reason = first_line(error).rstrip(".")
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
    with to_be_loaded():
        network = architecture.build(**config)
    network.load_state_dict(tensors.state, strict=True)
    return network.eval()


def _names(architecture: Architecture) -> set[str]:
    with unfilled():
        network = architecture.build(**next(iter(architecture.variants.values())))
    return set(network.state_dict())


def _same(wanted: Any, config: dict[str, Any]) -> bool:
    return all(_plain(config.get(key)) == _plain(value) for key, value in wanted.items())


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
