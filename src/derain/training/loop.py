"""The training loop, one for all methods.

What an update does is a pure function of the recipe and the state before it: items are numbered
(`streams.py`), rates are functions of the step (`schedule.py`), and the state on disk holds all the
rest (`state.py`). So a run that was cut off anywhere goes on as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from derain.atomic import remove_leftovers, replace_file
from derain.checkpoints import open_checkpoint, save_checkpoint
from derain.errors import DerainError, UsageError, unknown_name
from derain.locks import only_here
from derain.methods import network_names
from derain.methods.contract import Architecture, Loss
from derain.methods.network import RainNetwork
from derain.training.log import RunLog
from derain.training.memory import checkpoint_activations
from derain.training.optimizers import make_optimizer
from derain.training.progress import Progress
from derain.training.recipe import Recipe, checked
from derain.training.schedule import rate_at
from derain.training.signals import Signals, Stopped
from derain.training.state import RunState, load_state, save_state
from derain.training.streams import HeldOut, batches, open_sources, to_device
from derain.training.validation import means, validate

MAY_CHANGE = ("steps", "workers", "log_every", "save_every", "tensorboard", "origin")


def train(recipe: Recipe, run: str | Path, progress: bool = False) -> None:
    """Trains into the folder `run`, from the start or from where the run there stopped.

    Every process of `torchrun` or `accelerate launch` calls this; results do not depend on their
    number, up to rounding.

    Args:
        progress: show a bar with the time left on standard error.

    Raises:
        DerainError: something is wrong with the recipe, the pictures or the disk, or the loss is no
            longer finite; says at which step, with which files. Or another process trains into `run`.
        Stopped: SIGINT or SIGTERM came; the state was saved.
    """
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[recipe.precision]
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    try:
        with contextlib.ExitStack() as held:
            signals = held.enter_context(Signals())
            if accelerator.is_main_process:
                held.enter_context(only_here(Path(run)))
                remove_leftovers(Path(run))
            _Trainer(recipe, Path(run), accelerator, signals).run(progress)
    finally:
        accelerator.free_memory()  # what it prepared outlives the process group otherwise
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)


class _Outputs(nn.Module):
    """A network whose `forward` is `outputs`, for the wrappers that replace `forward`."""

    def __init__(self, network: RainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> dict[str, Tensor]:
        return self.network.outputs(rainy)


class _Trainer:
    def __init__(self, recipe: Recipe, run: Path, accelerator: Accelerator, signals: Signals) -> None:
        self.recipe, self.folder, self.accelerator, self.signals = recipe, run, accelerator, signals
        self.main = accelerator.is_main_process
        self.architecture, self.config = architecture_of(recipe)
        self.loss = loss_of(recipe, self.architecture)
        self.sources, self.held_out = open_sources(recipe)
        state = load_state(run)
        if self.main:
            _claim(run, recipe, state)

        torch.manual_seed(recipe.seed)
        network = fresh_network(recipe, self.architecture, self.config)
        layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        network = network.to(accelerator.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.network: RainNetwork = network.train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False) if recipe.ema else None
        if recipe.checkpointing:
            checkpoint_activations(self.network)
        self.optimizer = accelerator.prepare(make_optimizer(recipe.optimizer, self.network))
        self.step, self.best = 0, -math.inf
        torch.manual_seed(recipe.seed + accelerator.process_index)
        if state is not None:
            self._restore(state)
        self.model = accelerator.prepare(_Outputs(self.network))

    def run(self, show: bool) -> None:
        """Updates up to the recipe's number of steps."""
        recipe, process = self.recipe, self.accelerator.process_index
        log = RunLog(self.folder, self.step, recipe.tensorboard) if self.main else None
        stream = batches(recipe, self.sources, self.step, process, self.accelerator.num_processes)
        sums: dict[str, Tensor] = {}
        began, begun_at = time.perf_counter(), self.step
        with Progress(recipe.steps, self.step, show and self.main) as bar, contextlib.closing(stream):
            for parts in stream:
                terms = self._update(parts)
                for name, value in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value
                bar.advance(self.step, terms)
                if self.step % recipe.log_every == 0:
                    count = self.step - begun_at
                    values = {name: float(self._mean(value)) / count for name, value in sums.items()}
                    seconds = (time.perf_counter() - began) / count
                    if log:
                        log.write("training", self.step, rate=self._rate(), **values, seconds=seconds)
                    sums, began, begun_at = {}, time.perf_counter(), self.step
                last = self.step == recipe.steps
                if self.held_out and recipe.validation and (self.step % recipe.validation.every == 0 or last):
                    bar.note(self._validate(self.held_out, log))
                stop = self._any(self.signals.received is not None)
                if self.step % recipe.save_every == 0 or last or stop:
                    self._save()
                if stop and not last:
                    raise Stopped(self.signals.received, self.step, self.folder)
        if log:
            save_checkpoint(self.folder / "last.safetensors", self._judged().state_dict(), self._facts())
            log.close()
        self.accelerator.wait_for_everyone()  # a process that ends early would break the others' connections

    def _update(self, parts: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One step of the optimizer; returns the terms of the loss, averaged over the parts."""
        recipe, accelerator = self.recipe, self.accelerator
        rate = rate_at(recipe.schedule, recipe.optimizer.rate, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            rainy, clean = to_device(part, accelerator.device, recipe.channels_last)
            final = number + 1 == len(parts)
            with contextlib.nullcontext() if final else accelerator.no_sync(self.model):
                outputs = {name: value.float() for name, value in self.model(rainy).items()}
                terms = self.loss(outputs, clean, rainy)
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
            _follow(self.average, self.network, recipe.ema or 0.0)
        return sums

    def _stop_if_not_finite(self, loss: Tensor, terms: Mapping[str, Tensor], names: list[str]) -> None:
        bad = not bool(torch.isfinite(loss))
        if not self._any(bad):
            return
        if not bad:
            raise DerainError(f"step {self.step + 1}: the loss is not finite in another process.")
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
        raise DerainError(
            f"step {self.step + 1}: the loss is not finite ({values}); the pictures were {', '.join(names)}. "
            f"The last good state is in {self.folder}; try a smaller 'optimizer.rate', or float32."
        )

    def _validate(self, held_out: HeldOut, log: RunLog | None) -> str:
        accelerator = self.accelerator
        scores, sample = validate(
            self._judged(), self.recipe, held_out, accelerator.process_index, accelerator.num_processes,
            accelerator.device,
        )  # fmt: skip
        if accelerator.num_processes > 1:
            gathered: list[Any] = [None] * accelerator.num_processes
            torch.distributed.all_gather_object(gathered, scores)
            scores = [score for part in gathered for score in part]
        figures = means(scores)
        if log:
            log.write("validation", self.step, **figures)
            if sample is not None:
                log.picture("rainy, restored, clean", self.step, sample)
        if figures["psnr"] > self.best:
            self.best = figures["psnr"]
            if self.main:
                assert self.recipe.validation is not None
                facts = {"psnr": self.best, "protocol": self.recipe.validation.protocol}
                state = self._judged().state_dict()
                save_checkpoint(self.folder / "best.safetensors", state, {**self._facts(), **facts})
        return f"{figures['psnr']:.2f} dB"

    def _judged(self) -> RainNetwork:
        """The network that is validated and handed out: the average, where there is one."""
        return self.average if self.average is not None else self.network

    def _facts(self) -> dict[str, Any]:
        return {"network": self.architecture.name, "config": self.config, "step": self.step}

    def _save(self) -> None:
        for name, value in self.network.named_parameters():
            if not torch.isfinite(value).all():
                raise DerainError(
                    f"step {self.step}: {name} is no longer finite, the state is not saved; the last good "
                    f"one is in {self.folder}. Try a smaller 'optimizer.rate' or 'optimizer.clip'."
                )
        random = {"cpu": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        everyone: list[Any] = [random]
        if self.accelerator.num_processes > 1:
            everyone = [None] * self.accelerator.num_processes
            torch.distributed.all_gather_object(everyone, random)
        if self.main:
            scaler = self.accelerator.scaler
            state = RunState(
                recipe=self.recipe.model_dump(mode="json"),
                step=self.step,
                network=self.network.state_dict(),
                average=self.average.state_dict() if self.average is not None else {},
                optimizer=self.optimizer.state_dict(),
                scaler=scaler.state_dict() if scaler is not None else {},
                random=everyone,
                best=self.best,
            )
            save_state(self.folder, state)
        self.accelerator.wait_for_everyone()

    def _restore(self, state: RunState) -> None:
        self.network.load_state_dict(state.network)
        if self.average is not None:
            self.average.load_state_dict(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        mine = self.accelerator.process_index
        if mine < len(state.random):
            torch.set_rng_state(state.random[mine]["cpu"])
            if "cuda" in state.random[mine] and self.accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(state.random[mine]["cuda"])
        self.step, self.best = state.step, state.best

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them learn of it at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum") > 0)

    def _mean(self, value: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return value
        mean: Tensor = self.accelerator.reduce(value, "mean")
        return mean


def architecture_of(recipe: Recipe) -> tuple[Architecture, dict[str, Any]]:
    """The recipe's architecture and the keyword arguments of its network.

    Raises:
        UsageError: no such network, or nothing says how it is trained.
    """
    if recipe.network not in network_names():
        raise unknown_name("network", recipe.network, network_names())
    architecture, variant = network_names()[recipe.network]
    if architecture.loss is None:
        raise UsageError(f"{recipe.network} is not trained with pairs of pictures.")
    return architecture, {**architecture.variants[variant], **recipe.options}


def loss_of(recipe: Recipe, architecture: Architecture) -> Loss:
    """The loss with the recipe's options.

    Raises:
        UsageError: an option is not known or not given.
    """
    kind = architecture.loss
    assert kind is not None
    options = {field.name: field for field in dataclasses.fields(kind)}
    for name in recipe.loss:
        if name not in options:
            known = f"known: {', '.join(options)}" if options else "it has none"
            raise UsageError(f"'loss': the loss of {recipe.network} has no option '{name}'; {known}.")
    for name, option in options.items():
        if option.default is dataclasses.MISSING and name not in recipe.loss:
            about = " ".join((inspect.getdoc(kind) or "").partition("Attributes:")[2].split())
            raise UsageError(f"'loss.{name}' is not given; {recipe.network}: {about}")
    return kind(**recipe.loss)


def fresh_network(recipe: Recipe, architecture: Architecture, config: dict[str, Any]) -> RainNetwork:
    """The network with random weights, or with those of the recipe's `start`.

    Raises:
        UsageError: `options` do not fit the network.
        DerainError: `start` cannot be opened or belongs to another network.
    """
    try:
        network = architecture.build(**config)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last for sizes beyond memory
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(f"'options': {recipe.network}: {first}.") from None
    if recipe.start is None:
        return network
    checkpoint = open_checkpoint(recipe.start)
    if checkpoint.architecture.name != architecture.name:
        raise UsageError(
            f"'start': {recipe.start} holds {checkpoint.architecture.name}, not {recipe.network}."
        )
    try:
        network.load_state_dict(checkpoint.network.state_dict())
    except RuntimeError as error:
        raise UsageError(
            f"'start': {recipe.start} does not fit: {str(error).splitlines()[1].strip()}"
        ) from None
    return network


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """One step of the moving average; buffers are copied."""
    for parameter, new in zip(average.parameters(), network.parameters(), strict=True):
        parameter.lerp_(new, 1 - decay)
    for buffer, latest in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(latest)


def _claim(run: Path, recipe: Recipe, state: RunState | None) -> None:
    """Writes the recipe into the run's folder; a run that goes on must have the same one."""
    file = run / "recipe.yaml"
    now = recipe.model_dump(mode="json")
    if state is not None:
        before = checked(state.recipe, f"{run}: the recipe of its run").model_dump(mode="json")
        changed = [k for k in now if k not in MAY_CHANGE and now[k] != before[k]]
        if changed:
            raise UsageError(
                f"{run}: holds a run with another '{changed[0]}' ({before[changed[0]]}, now "
                f"{now[changed[0]]}); choose another folder, or set it back."
            )
    replace_file(file, yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())
