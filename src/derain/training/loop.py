"""The training loop, the same for all methods.

An update is a pure function of the recipe and the state before it: items are numbered (`batches.py`), rates
are functions of the step (`schedule.py`), and the state on disk contains everything else (`state.py`). So a
run that was interrupted anywhere resumes as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor

from derain.atomic import replace_file
from derain.checkpoints import save_checkpoint
from derain.errors import DerainError, UsageError
from derain.locks import exclusive_lock
from derain.training.batches import HeldOut, batches, open_sources
from derain.training.learner import Learner
from derain.training.log import RunLog
from derain.training.recipe import Recipe, Validation, checked
from derain.training.signals import Signals, Stopped
from derain.training.state import RunState, load_state, save_state
from derain.training.tracking import trackers
from derain.training.validation import means, validate

# Called with the updates done, their total, and a note: before the first update, where a resumed run
# continues; after each update, the latest loss and validation.
TrainingProgress = Callable[[int, int, str], None]
MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # accelerate's names
MAY_CHANGE = ("steps", "workers", "log_every", "save_every", "tensorboard", "wandb", "origin")


def train(
    recipe: Recipe, run: str | Path, progress: TrainingProgress | None = None, own_code: bool = False
) -> None:
    """Trains into the folder `run`, from the beginning or from where an earlier run there stopped.

    Every process of `torchrun` or `accelerate launch` calls this; apart from rounding, results do not
    depend on their number.

    Args:
        recipe: what to train, and how.
        run: the folder for weights, state and log.
        progress: called by the main process with the updates done, their total, and a note: before the first
            update of this call, from which file a resumed run continues; after each, the loss and validation
            that were logged last.
        own_code: run the Python code that the recipe names, its network or its loss, with all rights of
            this process; recipes may come from others.

    Raises:
        DerainError: something is wrong with the recipe, the pictures or the disk, the loss is no longer
            finite (the message says at which step, with which files), or another process trains into `run`.
        Stopped: SIGINT or SIGTERM came; the state was saved.
    """
    with accelerated(recipe) as accelerator, contextlib.ExitStack() as held:
        signals = held.enter_context(Signals())
        if accelerator.is_main_process:
            held.enter_context(exclusive_lock(Path(run)))
        _Trainer(recipe, Path(run), accelerator, signals, own_code).run(progress)


@contextlib.contextmanager
def accelerated(recipe: Recipe) -> Iterator[Accelerator]:
    """The processes and devices of this program, in the recipe's precision."""
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=MIXED_PRECISION[recipe.precision],
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    try:
        yield accelerator
    finally:
        accelerator.free_memory()  # otherwise the objects it prepared outlive the process group
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)


class _Trainer:
    def __init__(
        self, recipe: Recipe, run: Path, accelerator: Accelerator, signals: Signals, own_code: bool
    ) -> None:
        self.recipe, self.folder, self.accelerator, self.signals = recipe, run, accelerator, signals
        self.main = accelerator.is_main_process
        self.learner = Learner(recipe, accelerator, own_code)
        self.sources, self.held_out = open_sources(recipe)
        self.best = -math.inf
        self.resumed = ""
        loaded = load_state(run)
        if self.main:
            _claim(run, recipe, loaded and loaded[0])
        if loaded is not None:
            state, file = loaded
            self._restore(state)
            self.resumed = f"{run}: continues after step {state.step} of {recipe.steps}, from {file.name}"
            if state.step == recipe.steps:
                self.resumed = f"{run}: all {recipe.steps} steps were done before (state in {file.name})"
            if file.name != "last.pt":
                self.resumed += ", as last.pt is damaged or missing"

    def run(self, progress: TrainingProgress | None) -> None:
        """Makes updates up to the recipe's number of steps."""
        recipe, learner, accelerator = self.recipe, self.learner, self.accelerator
        log = self._log() if self.main else None
        mine = accelerator.process_index, accelerator.num_processes
        stream = batches(recipe, self.sources, learner.step, *mine)
        sums: dict[str, Tensor] = {}
        began, begun_at = time.perf_counter(), learner.step
        loss, validated, validation = "", "", recipe.validation

        def tell(words: str) -> None:
            if progress and self.main:
                progress(learner.step, recipe.steps, words)

        tell(self.resumed)
        with contextlib.closing(stream):
            for parts in stream:
                terms = learner.update(parts)
                for name, value in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value
                last = learner.step == recipe.steps
                if learner.step % recipe.log_every == 0 or last:
                    count = learner.step - begun_at
                    values = {name: float(self._mean(value)) / count for name, value in sums.items()}
                    seconds = (time.perf_counter() - began) / count
                    if log:
                        log.write("training", learner.step, rate=learner.rate, **values, seconds=seconds)
                    loss = f"loss {sum(values.values()):.4f}"
                    sums, began, begun_at = {}, time.perf_counter(), learner.step
                if validation and self.held_out and (last or learner.step % validation.every == 0):
                    validated = self._validate(validation, self.held_out, log)
                tell(" ".join(filter(None, (loss, validated))))
                stop = learner.any_process(self.signals.received is not None)
                if learner.step % recipe.save_every == 0 or last or stop:
                    self._save()
                if stop and not last:
                    raise Stopped(self.signals.received, learner.step, self.folder)
        if log:
            save_checkpoint(self.folder / "last.safetensors", learner.result.state_dict(), self._facts())
            log.close()
        accelerator.wait_for_everyone()  # a process that exits early would break the others' connections

    def _log(self) -> RunLog:
        step = self.learner.step
        return RunLog(self.folder, step, trackers(self.recipe, self.folder, step))

    def _validate(self, validation: Validation, held_out: HeldOut, log: RunLog | None) -> str:
        accelerator = self.accelerator
        scores, sample = validate(
            self.learner.result, validation, held_out, accelerator.process_index, accelerator.num_processes,
            accelerator.device,
        )  # fmt: skip
        if accelerator.num_processes > 1:
            gathered: list[Any] = [None] * accelerator.num_processes
            torch.distributed.all_gather_object(gathered, scores)
            scores = [score for part in gathered for score in part]
        figures = means(scores)
        if log:
            log.write("validation", self.learner.step, **figures)
            if sample is not None:
                log.picture("rainy, restored, clean", self.learner.step, sample)
        if figures["psnr"] > self.best:
            self.best = figures["psnr"]
            if self.main:
                facts = {"psnr": self.best, "protocol": validation.protocol}
                state = self.learner.result.state_dict()
                save_checkpoint(self.folder / "best.safetensors", state, {**self._facts(), **facts})
        return f"{figures['psnr']:.2f} dB"

    def _facts(self) -> dict[str, Any]:
        return {
            "network": self.learner.architecture.name,
            "config": self.learner.config,
            "step": self.learner.step,
        }

    def _save(self) -> None:
        for name, value in self.learner.network.named_parameters():
            if not torch.isfinite(value).all():
                raise DerainError(
                    f"step {self.learner.step}: {name} is no longer finite, the state is not saved; the last "
                    f"good one is in {self.folder}. Try a smaller 'optimizer.rate' or 'optimizer.clip'."
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
                step=self.learner.step,
                network=self.learner.network.state_dict(),
                average=self.learner.average.state_dict() if self.learner.average is not None else {},
                optimizer=self.learner.optimizer.state_dict(),
                scaler=scaler.state_dict() if scaler is not None else {},
                random=everyone,
                best=self.best,
            )
            save_state(self.folder, state)
        self.accelerator.wait_for_everyone()

    def _restore(self, state: RunState) -> None:
        learner = self.learner
        learner.network.load_state_dict(state.network)
        if learner.average is not None:
            learner.average.load_state_dict(state.average)
        learner.optimizer.load_state_dict(state.optimizer)
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        mine = self.accelerator.process_index
        if mine < len(state.random):
            torch.set_rng_state(state.random[mine]["cpu"])
            if "cuda" in state.random[mine] and self.accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(state.random[mine]["cuda"])
        learner.step, self.best = state.step, state.best

    def _mean(self, value: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return value
        mean: Tensor = self.accelerator.reduce(value, "mean")
        return mean


def _claim(run: Path, recipe: Recipe, state: RunState | None) -> None:
    """Writes the recipe to the run's folder; a resumed run must have the same one."""
    file = run / "recipe.yaml"
    now = recipe.model_dump(mode="json")
    if state is not None:
        before = checked(state.recipe, f"{run}: the recipe of its run").model_dump(mode="json")
        changed = [k for k in now if k not in MAY_CHANGE and now[k] != before[k]]
        if changed:
            raise UsageError(
                f"{run}: holds a run with a different '{changed[0]}' ({before[changed[0]]}, now "
                f"{now[changed[0]]}); choose another folder, or set it back."
            )
        if state.step > recipe.steps:
            raise UsageError(
                f"{run}: has already done {state.step} steps, more than these {recipe.steps}; ask for more, "
                "or choose another folder."
            )
    replace_file(file, yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())
