"""What is found out before a run, and runs that belong together."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from command_line import derain_here
from derain.errors import DerainError, UsageError
from derain.training.dry_run import dry_run
from derain.training.log import read_log
from derain.training.rate_finder import find_rate
from derain.training.sweep import plan_sweep, run_sweep
from training.conftest import content, recipe

VALIDATION = {"hold_out": 5, "every": 2, "patch": 24}


def test_a_dry_run_says_what_every_stage_reads_and_costs(photos: Path) -> None:
    stages = [{"patch": 16, "batch": 4, "steps": 100}, {"patch": 40, "batch": 2}]
    found = dry_run(recipe(photos, steps=150, stages=stages, validation=VALIDATION))
    assert (found.pictures, found.held_out, found.device) == ({"data": 8}, 2, "cpu")
    assert [(stage.patch, stage.batch, stage.steps) for stage in found.stages] == [(16, 4, 100), (40, 2, 50)]
    assert all(stage.seconds > 0 and stage.waiting > 0 for stage in found.stages)
    assert all(stage.peak_bytes is None or stage.peak_bytes > 2**20 for stage in found.stages)
    assert found.stages[0].total == 100 * (found.stages[0].seconds + found.stages[0].waiting)
    assert 1000 < found.parameters < 100_000


def test_a_rate_is_found_between_too_small_and_too_large(photos: Path) -> None:
    stages = [{"patch": 16, "batch": 4}]
    curve = find_rate(recipe(photos, options={"width": 8}, stages=stages), steps=50, highest=10.0)
    assert 1e-5 < curve.suggested < 1.0
    assert list(curve.rates) == sorted(curve.rates)
    assert min(curve.losses) < curve.losses[0]
    with pytest.raises(DerainError, match="the loss never fell"):
        find_rate(recipe(photos), steps=5, lowest=1e30, highest=1e31)


def test_a_sweep_compares_values_over_seeds(photos: Path, tmp_path: Path) -> None:
    file, runs = tmp_path / "r.yaml", tmp_path / "runs"
    small = {"steps": 2, "stages": [{"patch": 16, "batch": 2}], "validation": VALIDATION}
    file.write_text(yaml.safe_dump(content(photos, **small)))
    planned = plan_sweep(file, ["log_every=2"], ["optimizer.rate=[1.0e-3, 1.0e-9]", "seed=[0, 1]"])
    assert [run.folder for run in planned][:2] == [
        "optimizer.rate=0.001,seed=0",
        "optimizer.rate=0.001,seed=1",
    ]
    assert [(run.recipe.optimizer.rate, run.recipe.seed) for run in planned][-1] == (1e-9, 1)
    results = run_sweep(planned, runs)
    assert sorted(result.settings["optimizer.rate"] for result in results) == [1e-9, 1e-3]
    assert results[0].mean >= results[1].mean
    of_seeds = [
        max(
            e["psnr"]
            for e in read_log(runs / f"optimizer.rate=0.001,seed={seed}")
            if e["kind"] == "validation"
        )
        for seed in (0, 1)
    ]
    (result,) = (result for result in results if result.settings["optimizer.rate"] == 1e-3)
    assert result.mean == pytest.approx(sum(of_seeds) / 2)
    assert result.deviation == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / 2**0.5)
    with (runs / "sweep.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["psnr"]) for row in rows][:2] == of_seeds


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("seed", r"a sweep is written key=\[value, value\]"),
        ("seed=3", r"a sweep is written key=\[value, value\]"),
        ("seed=[]", r"a sweep is written key=\[value, value\]"),
        ("seed=[1, 1]", "two runs of this sweep would have the same folder"),
        ("seed=[0, -1]", "'seed': give a number from 0 on"),
        ("validation=[null]", "a sweep compares validations"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said(photos: Path, tmp_path: Path, sweep: str, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(content(photos, validation=VALIDATION)))
    with pytest.raises(UsageError, match=message):
        plan_sweep(file, [], [sweep])


def test_a_dry_run_and_a_sweep_on_the_command_line(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    small = {"steps": 1, "stages": [{"patch": 16, "batch": 2}], "validation": VALIDATION}
    file.write_text(yaml.safe_dump(content(photos, **small)))
    costs = derain_here("train", file, "--dry-run")
    assert (costs.returncode, costs.stderr) == (0, "")
    assert "1 steps of 2 patches of 16: " in costs.stdout
    done = derain_here("train", file, "-o", tmp_path / "runs", "--sweep", "seed=[0,1]")
    assert done.returncode == 0, done.stderr
    assert "dB (2 runs)" in done.stdout.splitlines()[-1]
