"""A network in training: makes single updates of a recipe, without files or a fixed end."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from derain.checkpoints import open_checkpoint, read_tensors
from derain.checkpoints.bundled import find_model
from derain.errors import DerainError, Remedy, UsageError, first_line, refuse_unknown
from derain.methods import network_names
from derain.methods.contract import Architecture
from derain.methods.network import RainNetwork
from derain.methods.own import is_own, own_method
from derain.nn.ema import move_average
from derain.own_code import own_function
from derain.training.batches import to_device
from derain.training.optimizers import make_optimizer
from derain.training.recipe import Recipe, Scalar, losses_of
from derain.training.recomputing import checkpoint_activations
from derain.training.schedule import rate_at

LossFunction = Callable[[Mapping[str, Tensor], Tensor, Tensor], dict[str, Tensor]]


class NotFinite(DerainError):
    """The loss is infinite or not a number."""


class _Outputs(nn.Module):
    """A network whose `forward` is `outputs`, for the wrappers that replace `forward`."""

    def __init__(self, network: RainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> dict[str, Tensor]:
        return self.network.outputs(rainy)


class Learner:
    """The network of a recipe with its loss, its optimizer and its moving average.

    Args:
        recipe: what to train.
        accelerator: the device, and the number of processes.
        own_code: run the Python code that the recipe names, its network or its loss.

    Attributes:
        network: in training mode; `average` is its moving average in evaluation mode, or None.
        step: the number of updates done.

    Raises:
        UsageError: the network, its options, its loss or the weights to start from do not exist or do not
            fit together.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator, own_code: bool = False) -> None:
        self.recipe, self.accelerator, self.step = recipe, accelerator, 0
        _refuse_code(recipe, own_code)
        self.architecture, self.config = architecture_of(recipe)
        self.losses = losses(recipe, self.architecture)
        torch.manual_seed(recipe.seed)
        network = fresh_network(recipe, self.architecture, self.config)
        if recipe.channels_last:
            network = network.in_channels_last()
        self.network: RainNetwork = network.to(accelerator.device).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False) if recipe.ema else None
        if recipe.checkpointing:
            checkpoint_activations(self.network)
        self.optimizer = accelerator.prepare(make_optimizer(recipe.optimizer, self.network))
        torch.manual_seed(recipe.seed + accelerator.process_index)
        self._model: nn.Module | None = None

    @property
    def result(self) -> RainNetwork:
        """The network that is validated and saved: the moving average, if there is one."""
        return self.average if self.average is not None else self.network

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, parts: list[dict[str, Any]], rate: float | None = None) -> dict[str, Tensor]:
        """Makes one step of the optimizer.

        Args:
            parts: the parts of a batch, as `batches.batches` yields them.
            rate: the learning rate; None takes the schedule's.

        Returns:
            The terms of the loss, averaged over the parts.

        Raises:
            NotFinite: a term is infinite or not a number; the message says which, at which step and with
                which pictures.
        """
        recipe, accelerator = self.recipe, self.accelerator
        if self._model is None:  # wrapped only after a saved state was loaded, as wrappers rename its keys
            self._model = accelerator.prepare(_Outputs(self.network))
        model = self._model
        if rate is None:
            rate = rate_at(recipe.schedule, recipe.optimizer.rate, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            rainy, clean = to_device(part, accelerator.device, recipe.channels_last)
            final = number + 1 == len(parts)
            with contextlib.nullcontext() if final else accelerator.no_sync(model):
                outputs = {name: value.float() for name, value in model(rainy).items()}
                terms = self.terms(outputs, clean, rainy, part.get("source"))
                loss = torch.stack(list(terms.values())).sum()
                self._stop_if_not_finite(loss, terms, part["name"])
                accelerator.backward(loss / len(parts))
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
        if recipe.optimizer.clip is not None:
            accelerator.clip_grad_norm_(self.network.parameters(), recipe.optimizer.clip)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            move_average(self.average, self.network, recipe.ema or 0.0)
            for buffer, latest in zip(self.average.buffers(), self.network.buffers(), strict=True):
                buffer.copy_(latest)
        return sums

    def terms(
        self, outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor, source: Tensor | None
    ) -> dict[str, Tensor]:
        """The terms of the loss; if there are several losses, each is weighted by the share of its pictures.

        Args:
            outputs, clean, rainy: see `derain.methods.contract.Loss`.
            source: (B,) the index of the source of each picture; None if there is only one.
        """
        if source is None or len(self.losses) == 1:
            (loss,) = self.losses.values()
            return loss(outputs, clean, rainy)
        sums: dict[str, Tensor] = {}
        for sources, loss in self.losses.items():
            mine = torch.isin(source, torch.tensor(sources)).nonzero()[:, 0]
            if not len(mine):
                continue
            here = mine.to(clean.device)
            terms = loss({name: value[here] for name, value in outputs.items()}, clean[here], rainy[here])
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * (len(mine) / len(source))
        return sums

    def _stop_if_not_finite(self, loss: Tensor, terms: Mapping[str, Tensor], names: list[str]) -> None:
        bad = not bool(torch.isfinite(loss))
        if not self.any_process(bad):
            return
        if not bad:
            raise NotFinite(f"step {self.step + 1}: the loss is not finite in another process.")
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
        raise NotFinite(
            f"step {self.step + 1}: the loss is not finite ({values}); the pictures were {', '.join(names)}. "
            "Try a smaller 'optimizer.rate', or float32."
        )

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all processes learn of it at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum") > 0)


def _refuse_code(recipe: Recipe, own_code: bool) -> None:
    """Raises `UsageError` for a recipe that names Python code, unless that is allowed to run."""
    named = {"network": recipe.network if is_own(recipe.network) else None, **recipe.loss}
    for place, key in (("network", "network"), ("loss", "function")):
        if named.get(key) and not own_code:
            raise UsageError(
                f"'{place}': this recipe runs Python code, {named[key]}, with all your rights. "
                "Read it first.",
                Remedy("run it", {"own_code": True}),
            )


def architecture_of(recipe: Recipe) -> tuple[Architecture, dict[str, Any]]:
    """The recipe's architecture and the keyword arguments of its network.

    RUNS THE CODE of a custom network.

    Raises:
        UsageError: there is no such network, or it has no loss.
    """
    if is_own(recipe.network):
        return own_method(recipe.network).architectures[0], dict(recipe.options)
    refuse_unknown("network", recipe.network, network_names())
    architecture, variant = network_names()[recipe.network]
    if architecture.loss is None:
        raise UsageError(f"{recipe.network} is not trained with pairs of pictures.")
    return architecture, {**architecture.variants[variant], **recipe.options}


def losses(recipe: Recipe, architecture: Architecture) -> dict[tuple[int, ...], LossFunction]:
    """The different losses of a recipe, by the indices of the sources that each is for.

    RUNS THE CODE of a custom loss.

    Raises:
        UsageError: an option is not known or not given, or there is no such function.
    """
    groups: dict[tuple[tuple[str, Scalar], ...], list[int]] = {}
    for source, options in enumerate(losses_of(recipe)):
        groups.setdefault(tuple(sorted(options.items())), []).append(source)
    found: dict[tuple[int, ...], LossFunction] = {}
    for given, sources in groups.items():
        place = "loss" if dict(given) == recipe.loss else f"data.sources.{sources[0]}.loss"
        found[tuple(sources)] = _loss(recipe.network, architecture, dict(given), place)
    return found


def _loss(network: str, architecture: Architecture, options: dict[str, Scalar], place: str) -> LossFunction:
    """The method's own loss, or the function that the options name; `place` is their key in the recipe."""
    target = options.pop("function", None)
    if target is not None:
        return _own_loss(str(target), options)
    kind = architecture.loss
    assert kind is not None
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in options:
        if name not in known:
            others = f"known: {', '.join(known)}" if known else "it has none"
            raise UsageError(f"'{place}': the loss of {network} has no option '{name}'; {others}.")
    for name, option in known.items():
        if option.default is dataclasses.MISSING and name not in options:
            about = " ".join((inspect.getdoc(kind) or "").partition("Attributes:")[2].split())
            raise UsageError(f"'{place}.{name}' is not given; {network}: {about}")
    return kind(**options)


def _own_loss(target: str, options: dict[str, Any]) -> LossFunction:
    found = own_function(target)
    is_class = isinstance(found, type)  # such as a subclass of `Loss`
    function, given = (found(**options), {}) if is_class else (found, options)

    def loss(outputs: Mapping[str, Tensor], clean: Tensor, rainy: Tensor) -> dict[str, Tensor]:
        terms = function(outputs, clean, rainy, **given)
        terms = terms if isinstance(terms, Mapping) else {"loss": terms}
        if not terms or not all(isinstance(term, Tensor) and term.ndim == 0 for term in terms.values()):
            raise UsageError(f"{target}: a loss must return a scalar tensor, or {{name: scalar tensor}}.")
        return dict(terms)

    return loss


def fresh_network(recipe: Recipe, architecture: Architecture, config: dict[str, Any]) -> RainNetwork:
    """A network with random weights, or with those of the recipe's `start`.

    Raises:
        UsageError: `options` do not fit the network.
        DerainError: `start` cannot be opened or belongs to another network.
    """
    try:
        network = architecture.build(**config)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last if memory runs out
        reason = first_line(error).rstrip(".")
        raise UsageError(f"'options': {recipe.network}: {reason}.") from None
    if recipe.start is None:
        return network
    try:
        network.load_state_dict(_state_to_start_from(recipe.start, recipe.network, architecture))
    except RuntimeError as error:
        raise UsageError(
            f"'start': {recipe.start} does not fit: {str(error).splitlines()[1].strip()}"
        ) from None
    return network


def _state_to_start_from(start: str, network: str, architecture: Architecture) -> Mapping[str, Tensor]:
    if is_own(network):  # code that the file names is not run, but the names of its tensors must fit
        return read_tensors(find_model(start)).state
    trained, checkpoint = open_checkpoint(start)
    if checkpoint.architecture.name != architecture.name:
        raise UsageError(f"'start': {start} holds {checkpoint.architecture.name}, not {network}.")
    return trained.state_dict()
