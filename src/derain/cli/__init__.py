"""The command line: one small module per command, no logic of its own."""

from __future__ import annotations

import sys

import typer

from derain.cli import (
    adapt,
    background,
    bench,
    convert,
    data,
    evaluate,
    export,
    info,
    models,
    publish,
    run,
    score,
    serve,
    synth,
    train,
)
from derain.cli.messages import complain, terminal
from derain.errors import DerainError

app = typer.Typer(
    name="derain",
    help="Takes the rain out of pictures and video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("score")(score.score)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("adapt")(adapt.adapt)
app.command("background")(background.background)
app.command("synth")(synth.synth)
app.command("models")(models.models)
app.command("serve")(serve.serve)
app.command("info")(info.info)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("publish")(publish.publish)
app.command("bench")(bench.bench)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point: exit 0 if all went well, 1 on failure, 2 for wrong usage, 130 on Ctrl-C."""
    with terminal():
        try:
            app()
        except DerainError as error:
            complain(error)
            sys.exit(error.exit_code)
