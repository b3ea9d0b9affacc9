"""`derain train RECIPE -o RUN`: any method on any set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from derain.cli.output import say


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A YAML file, or a published recipe (see --list).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default=False)
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a value: --set data.clean=FOLDER.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the run in this folder as RUN/plot.png.", show_default=False)
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the published recipes.")] = False,
) -> None:
    """Train a network. A run that was cut off goes on exactly where it stopped: give the command again.

    Example: derain train spanet/synthetic --set data.clean=PHOTOS -o runs/first
    """
    from derain.errors import UsageError
    from derain.training.recipe import load_recipe, published_recipes

    if show_list:
        for name in published_recipes():
            typer.echo(f"{name:32} {load_recipe(name).origin}")
        return
    if plot is not None:
        from derain.training.plot import plot_run

        typer.echo(f"{plot_run(plot)}")
        return
    if recipe is None or output is None:
        raise UsageError(
            "give a recipe and the run's folder: derain train RECIPE -o RUN (or --list, --plot RUN)."
        )
    wanted = load_recipe(recipe, change or [])
    from derain.training import Stopped
    from derain.training.loop import train as run

    try:
        run(wanted, output, progress=True)
    except Stopped as stopped:
        again = shlex.join(["derain", "train", str(output / "recipe.yaml"), "-o", str(output)])
        stopped.message = f"stopped after step {stopped.step}, saved; go on with: {again}"
        raise
    say(f"{output}: {wanted.steps} steps done; weights in {output / 'last.safetensors'}.")
