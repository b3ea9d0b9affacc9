"""Several runs of one recipe that differ in some values, and their results."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.atomic import replace_file
from derain.errors import UsageError
from derain.plain_yaml import parse_yaml
from derain.training.log import read_log
from derain.training.loop import TrainingProgress, train
from derain.training.recipe import Recipe, load_recipe

SEED = "seed"


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: its own values, and its folder below the sweep's."""

    settings: dict[str, Any]
    folder: str
    recipe: Recipe


@dataclass(frozen=True)
class SweepResult:
    """Runs that differ only in their seed.

    Attributes:
        settings: their values, without the seed.
        psnr: the best validation PSNR of each, in dB.
    """

    settings: dict[str, Any]
    psnr: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the runs, in dB."""
        return statistics.fmean(self.psnr)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the runs (with n - 1), in dB; None for a single one."""
        return statistics.stdev(self.psnr) if len(self.psnr) > 1 else None


def plan_sweep(source: str | Path, changes: Sequence[str], sweeps: Sequence[str]) -> list[SweepRun]:
    """One run for every combination of the values.

    Args:
        source, changes: as for `load_recipe`.
        sweeps: "key=[value, value]" each, e.g. "seed=[0, 1, 2]".

    Raises:
        UsageError: something has another form, or the recipe has no validation by which to compare runs.
    """
    keys, lists = [], []
    for sweep in sweeps:
        key, equals, text = sweep.partition("=")
        try:
            values = parse_yaml(text)
        except ValueError:
            values = None
        if not equals or not isinstance(values, list) or not values:
            raise UsageError(f"'{sweep}': a sweep is written key=[value, value], e.g. seed=[0, 1, 2].")
        keys.append(key)
        lists.append(values)
    runs = []
    for values in itertools.product(*lists):
        settings = dict(zip(keys, values, strict=True))
        own = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        folder = re.sub(r"[^\w.=,+-]+", "_", ",".join(f"{k}={v}" for k, v in settings.items()))
        runs.append(SweepRun(settings, folder, load_recipe(source, [*changes, *own])))
    if any(run.recipe.validation is None for run in runs):
        raise UsageError("a sweep compares validations, and this recipe has none; give it 'validation'.")
    if len({run.folder for run in runs}) < len(runs):
        raise UsageError("two runs of this sweep would have the same folder; is a value given twice?")
    return runs


def run_sweep(
    runs: Sequence[SweepRun],
    folder: Path,
    progress: TrainingProgress | None = None,
    own_code: bool = False,
    on_run: Callable[[SweepRun], None] = lambda run: None,
) -> list[SweepResult]:
    """Trains all runs one after the other; interrupted runs are resumed, and finished ones not repeated.

    Args:
        runs: see `plan_sweep`.
        folder: receives a folder for each run, and `sweep.csv` with the best validation of each.
        progress, own_code: see `train`.
        on_run: called before each run.

    Returns:
        The runs grouped by all values but the seed, the best mean first.

    Raises:
        DerainError: as `train`.
    """
    best: list[float] = []
    for run in runs:
        on_run(run)
        train(run.recipe, folder / run.folder, progress, own_code)
        events = read_log(folder / run.folder)
        best.append(max(event["psnr"] for event in events if event["kind"] == "validation"))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*run.settings, "psnr"])
        table.writerows([*done.settings.values(), psnr] for done, psnr in zip(runs, best, strict=False))
        replace_file(folder / "sweep.csv", text.getvalue().encode())
    groups: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for run, psnr in zip(runs, best, strict=True):
        shared = {key: value for key, value in run.settings.items() if key != SEED}
        groups.setdefault(json.dumps(shared), (shared, []))[1].append(psnr)
    results = [SweepResult(settings, tuple(psnr)) for settings, psnr in groups.values()]
    return sorted(results, key=lambda result: -result.mean)
