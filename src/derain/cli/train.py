"""`derain train RECIPE -o RUN`: trains any network on any data set."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli.output import say, tell
from derain.cli.progress import bar, duration

if TYPE_CHECKING:
    from derain.training import Recipe, Stopped
    from derain.training.loop import TrainingProgress


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A YAML file, or a published recipe (see --list).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default=False)
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PART.KEY=VALUE", help="Replace a value of the recipe: --set data.clean=FOLDER."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART.KEY=[...]",
            help="Run once per value: --sweep seed=[0,1,2]; given several times, once per combination.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be read and what a step costs, without training."),
    ] = False,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Only try increasing learning rates, and suggest one.")
    ] = False,
    own_code: Annotated[
        bool, typer.Option("--own-code", help="Run the Python code that the recipe names: network or loss.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the run in this folder to RUN/plot.png.", show_default=False)
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the published recipes.")] = False,
) -> None:
    """Train a network. To resume an interrupted run exactly where it stopped, give the command again.

    Example: derain train spanet/synthetic --set data.clean=PHOTOS -o runs/first

    Example: derain train my.yaml -o runs/rates --sweep optimizer.rate=[1e-3,3e-4] --sweep seed=[0,1,2]
    """
    from derain.errors import UsageError
    from derain.training.recipe import load_recipe, published_recipes

    if show_list:
        for name in published_recipes():
            typer.echo(f"{name:32} {load_recipe(name).origin}")
        return
    if plot is not None:
        from derain.training.plot import plot_run

        tell(f"{plot_run(plot)}")
        return
    if dry_run + find_rate + bool(sweep) > 1:
        raise UsageError("--dry-run, --find-rate and --sweep cannot be combined; give one.")
    if recipe is None or (output is None and not (dry_run or find_rate)):
        raise UsageError(
            "give a recipe and the run's folder: derain train RECIPE -o RUN (or --list, --plot RUN)."
        )
    wanted = load_recipe(recipe, change or [])
    if dry_run:
        _say_cost(wanted, own_code)
    elif find_rate:
        _say_rates(wanted, own_code)
    elif output is not None:
        from derain.training import Stopped

        try:
            if sweep:
                _sweep(recipe, change or [], sweep, output, own_code)
            else:
                _train(wanted, output, own_code)
        except Stopped as stopped:
            _say_how_to_go_on(stopped, own_code, bool(sweep))
            raise


def _train(wanted: Recipe, output: Path, own_code: bool) -> None:
    from derain.training import train as run

    last, begun_at = "", None  # the figures of the last step, and the steps done in earlier runs

    with _progress() as progress:

        def shown(done: int, steps: int, note: str) -> None:
            nonlocal last, begun_at
            last = f", {note}" if note else ""
            begun_at = done if begun_at is None else begun_at
            if progress:
                progress(done, steps, note)

        run(wanted, output, shown, own_code)
    if begun_at == wanted.steps:  # already reported
        return
    say(f"{output}: {wanted.steps} steps done{last}; weights in {output / 'last.safetensors'}.")


@contextmanager
def _progress() -> Iterator[TrainingProgress | None]:
    """Shows the progress of training, in the first process only."""
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    with bar("training", None) as shown:
        before: int | None = None

        def tell(done: int, steps: int, note: str) -> None:
            nonlocal before
            if before is None or done <= before:  # the first run, or the next one of a sweep
                shown.restart(done, steps)
                if note:
                    shown.say(f"{note}.")
            else:
                shown.reach(done, steps, note)
            before = done

        yield tell


def _say_how_to_go_on(stopped: Stopped, own_code: bool, is_sweep: bool) -> None:
    recipe = str(stopped.run / "recipe.yaml")
    again = shlex.join(["derain", "train", recipe, "-o", str(stopped.run), *["--own-code"][: int(own_code)]])
    how = "give the command again" if is_sweep else f"continue with: {again}"
    stopped.message = f"stopped after step {stopped.step}, saved; {how}"


def _say_cost(wanted: Recipe, own_code: bool) -> None:
    from derain.training.dry_run import dry_run

    found = dry_run(wanted, own_code)
    typer.echo(f"{wanted.network}: {found.parameters:,} parameters, on {found.device}")
    for name, count in found.pictures.items():
        tell(f"{name}: {count} pictures")
    typer.echo(f"validation: {found.held_out} pictures")
    for stage in found.stages:
        memory = "" if stage.peak_bytes is None else f", {stage.peak_bytes / 2**20:,.0f} MiB"
        typer.echo(
            f"{stage.steps} steps of {stage.batch} patches of {stage.patch}: {stage.seconds:.3f} s per step, "
            f"{stage.waiting:.3f} s waiting for patches{memory}; {duration(stage.total)}"
        )
    typer.echo(f"about {duration(sum(stage.total for stage in found.stages))} in total, without validation")


def _say_rates(wanted: Recipe, own_code: bool) -> None:
    from derain.training.rate_finder import find_rate

    curve = find_rate(wanted, own_code=own_code)
    typer.echo("rate       loss")
    for number in range(0, len(curve.rates), 5):
        typer.echo(f"{curve.rates[number]:.2e}   {curve.losses[number]:.5f}")
    typer.echo(f"The loss falls fastest at a rate of {curve.suggested:.1e}.")


def _sweep(recipe: str, changes: list[str], sweeps: list[str], output: Path, own_code: bool) -> None:
    from derain.training.sweep import plan_sweep, run_sweep

    runs = plan_sweep(recipe, changes, sweeps)
    with _progress() as progress:
        results = run_sweep(runs, output, progress, own_code, lambda run: say(f"{output / run.folder}"))
    for result in results:
        settings = ", ".join(f"{key} {value}" for key, value in result.settings.items()) or recipe
        spread = "" if result.deviation is None else f" ± {result.deviation:.3f}"
        tell(f"{settings}: {result.mean:.3f}{spread} dB ({len(result.psnr)} runs)")
