"""A learning rate range test (Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017).

The rate grows exponentially from step to step while the loss is recorded: it falls, fastest at a rate that is
about right, and rises once the rate is too large.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from derain.errors import DerainError
from derain.training.batches import batches, open_sources
from derain.training.learner import Learner, NotFinite
from derain.training.loop import accelerated
from derain.training.recipe import Recipe

KEEP = 0.9  # weight that the running mean of the loss keeps from step to step
SETTLED = 10  # updates until the running mean is no longer dominated by single batches


@dataclass(frozen=True)
class RateCurve:
    """The losses at increasing rates.

    Attributes:
        rates: the rate of each update.
        losses: the running mean of the loss at each update.
        suggested: the rate at which the loss fell fastest, per decade of the rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_rate(
    recipe: Recipe, steps: int = 100, lowest: float = 1e-6, highest: float = 1.0, own_code: bool = False
) -> RateCurve:
    """Trains with increasing rates on the patches of the first stage, and keeps only the losses.

    Args:
        recipe: what to train; its own rate and schedule do not matter.
        steps: updates between the lowest and the highest rate.
        lowest, highest: the range of the rates that are tried.
        own_code: run the Python code that the recipe names, its network or its loss.

    Raises:
        DerainError: as `train`, or the loss never fell.
    """
    stage = recipe.stages[0].model_copy(update={"steps": None})
    short = recipe.model_copy(update={"steps": steps, "stages": [stage], "ema": None})
    rates: list[float] = []
    losses: list[float] = []
    with accelerated(short) as accelerator:
        sources, _ = open_sources(short)
        learner = Learner(short, accelerator, own_code)
        stream = batches(short, sources, 0, accelerator.process_index, accelerator.num_processes)
        mean = 0.0
        with contextlib.closing(stream):
            for number, parts in enumerate(stream):
                rate = lowest * (highest / lowest) ** (number / max(steps - 1, 1))
                try:
                    terms = learner.update(parts, rate)
                except NotFinite:
                    break
                mean = KEEP * mean + (1 - KEEP) * sum(float(value) for value in terms.values())
                rates.append(rate)
                losses.append(mean / (1 - KEEP ** (number + 1)))
                if _diverged(losses):
                    break
    return RateCurve(tuple(rates), tuple(losses), _steepest(rates, losses))


def _diverged(losses: list[float]) -> bool:
    """Whether the loss has risen further above its first value than its best value lies below that."""
    first, best, last = losses[0], min(losses), losses[-1]
    return best < first and last > 2 * first - best


def _steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest, between where its mean has settled and where it is lowest."""
    settled = losses[SETTLED:]
    best = int(np.argmin(settled)) if settled else 0
    if best < 2:
        raise DerainError(
            "the loss never fell; the network may be trained already, or the lowest rate is too large."
        )
    window = slice(SETTLED, SETTLED + best + 1)
    slopes = np.gradient(np.array(losses[window]), np.log(rates[window]))
    return float(rates[SETTLED + int(np.argmin(slopes))])
