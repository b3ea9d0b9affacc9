"""What a recipe would do and cost, measured by a few updates of each stage, which are discarded."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass

from accelerate import Accelerator

from derain.peak_memory import most_memory, start_memory
from derain.training.batches import Span, TrainingSource, batches, open_sources, spans
from derain.training.learner import Learner
from derain.training.loop import accelerated
from derain.training.recipe import Recipe, sources_of

UPDATES = 3  # that are timed, after one that is not


@dataclass(frozen=True)
class StageCost:
    """What one stage costs.

    Attributes:
        patch, batch: as in the recipe.
        steps: the number of updates that the run makes in this stage.
        seconds: seconds per update once its patches are ready.
        waiting: seconds per update for which the network waits for patches.
        peak_bytes: peak memory, of the accelerator if there is one, otherwise of this process without its
            workers; None if it cannot be measured.
    """

    patch: int
    batch: int
    steps: int
    seconds: float
    waiting: float
    peak_bytes: int | None

    @property
    def total(self) -> float:
        """Seconds for the whole stage, without validations."""
        return self.steps * (self.seconds + self.waiting)


@dataclass(frozen=True)
class DryRun:
    """What a run would read and cost.

    Attributes:
        parameters: the number of parameters of the network.
        pictures: {source as the recipe names it: the number of pictures or pairs to train on}.
        held_out: the number of pictures to validate on.
        device: the network's device, e.g. "cpu".
        stages: the costs of the stages, in the order of the recipe.
    """

    parameters: int
    pictures: dict[str, int]
    held_out: int
    device: str
    stages: tuple[StageCost, ...]


def dry_run(recipe: Recipe, own_code: bool = False) -> DryRun:
    """Makes a few updates of each stage, and keeps nothing.

    Args:
        recipe: what would be trained.
        own_code: run the Python code that the recipe names, its network or its loss.

    Raises:
        DerainError: as `train`.
    """
    with accelerated(recipe) as accelerator:
        sources, held_out = open_sources(recipe)
        learner = Learner(recipe, accelerator, own_code)
        costs = [_cost(learner, recipe, sources, span, accelerator) for span in spans(recipe)]
        count = sum(parameter.numel() for parameter in learner.network.parameters())
        pictures = dict(zip(sources_of(recipe), map(len, sources), strict=True))
        return DryRun(count, pictures, len(held_out), str(accelerator.device), tuple(costs))


def _cost(
    learner: Learner, recipe: Recipe, sources: list[TrainingSource], span: Span, accelerator: Accelerator
) -> StageCost:
    steps = span.end - span.first
    few = recipe.model_copy(update={"steps": span.first + min(UPDATES + 1, steps)})
    before = start_memory(accelerator.device)
    waiting, working = [], []
    stream = batches(few, sources, span.first, accelerator.process_index, accelerator.num_processes)
    with contextlib.closing(stream):
        began = time.perf_counter()
        for parts in stream:
            there = time.perf_counter()
            terms = learner.update(parts)
            sum(float(value) for value in terms.values())  # waits for the accelerator
            done = time.perf_counter()
            waiting.append(there - began)
            working.append(done - there)
            began = done
    peak = None if before is None else most_memory(accelerator.device)
    seconds, wait = (statistics.median(times[1:] or times) for times in (working, waiting))
    return StageCost(span.stage.patch, span.stage.batch, steps, seconds, wait, peak)
