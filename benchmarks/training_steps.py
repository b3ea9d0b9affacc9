"""A training step of every recipe, in the ways that `precision` and `channels_last` offer.

    python benchmarks/training_steps.py                              all recipes
    python benchmarks/training_steps.py spanet/synthetic --patch 64 --steps 5

One patch in one thread: the network, its loss, the gradients and the optimizer, without making the patch. The
base of the ratios is the plain form, float32 in the usual memory layout; seconds are the processor's own. `*`
marks what the recipe itself says. Recipes that differ only in data, rate or length are measured once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from derain.training.learner import Learner
from derain.training.loop import accelerated
from derain.training.recipe import Recipe, load_recipe, published_recipes


class Way(NamedTuple):
    """How a step is made; the names are those of a recipe."""

    precision: str
    channels_last: bool

    def __str__(self) -> str:
        return self.precision + (", channels last" if self.channels_last else "")


PLAIN = Way("float32", False)
WAYS = (PLAIN, Way("float32", True), Way("bfloat16", True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="recipe")
    parser.add_argument("--patch", type=int, default=128, help="pixels a side, a multiple of 64 (128)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, whose median counts (3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'recipe':<26} {'way':<26} {'CPU seconds':>12} {'ratio':>6}")
    for name in options.recipes or different(published_recipes()):
        report(name, options.patch, options.steps)


def different(names: Iterable[str]) -> Iterator[str]:
    """The first recipe of each kind of step."""
    seen = list[tuple[object, ...]]()
    for name in names:
        recipe = load_recipe(name)
        step = recipe.network, recipe.options, recipe.loss, recipe.precision, recipe.channels_last
        if step not in seen:
            seen.append(step)
            yield name


def report(name: str, patch: int, steps: int) -> None:
    """Prints a line for each way in which a step can be made."""
    recipe, base = load_recipe(name), 0.0
    for way in WAYS:
        mark = "*" if way == (recipe.precision, recipe.channels_last) else ""
        seconds = seconds_of(recipe, way, patch, steps)
        base = base or seconds
        print(f"{name:<26} {f'{way}{mark}':<26} {seconds:>12.2f} {seconds / base:>6.2f}", flush=True)


def seconds_of(recipe: Recipe, way: Way, patch: int, steps: int) -> float:
    """CPU seconds of a step; the first one is not counted."""
    # Without UDR-S2Former's perceptual term, whose weights are a file of the user's.
    loss = {**recipe.loss, "vgg": None} if recipe.network == "udr_s2former" else recipe.loss
    changed = {**way._asdict(), "loss": loss, "stages": [{"patch": patch, "batch": 1}]}
    ready = Recipe.model_validate({**recipe.model_dump(), **changed})
    taken = []
    with accelerated(ready) as accelerator:
        learner = Learner(ready, accelerator)
        for _ in range(steps + 1):
            began = time.process_time()
            learner.update([batch(patch)])
            taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def batch(patch: int) -> dict[str, Any]:
    """A patch of noise, and the same a little darker as its truth."""
    rainy = torch.rand(1, 3, patch, patch, generator=torch.Generator().manual_seed(1))
    return {"rainy": rainy, "clean": 0.9 * rainy, "name": ["noise"], "source": torch.tensor([0])}


if __name__ == "__main__":
    main()
