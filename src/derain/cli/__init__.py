"""The command line: one small module per command, without logic of its own."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated

import typer

from derain import __version__
from derain.cli import (
    adapt,
    background,
    bench,
    compare,
    config,
    convert,
    data,
    evaluate,
    export,
    info,
    live,
    models,
    preview,
    publish,
    run,
    score,
    serve,
    synth,
    train,
)
from derain.cli.messages import complain, terminal
from derain.cli.output import log
from derain.cli.shared import Command, Group, use_defaults
from derain.errors import DerainError, foreign

app = typer.Typer(
    name="derain",
    cls=Group,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"derain {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    ctx: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Remove rain from pictures and videos."""
    use_defaults(ctx)


COMMANDS = (
    *(run.run, live.live, preview.preview, adapt.adapt, background.background, serve.serve, models.models),
    *(score.score, evaluate.evaluate, compare.compare, train.train, synth.synth),
    *(info.info, convert.convert, export.export, publish.publish, bench.bench, config.config),
)
for command in COMMANDS:
    app.command(command.__name__, cls=Command)(command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point; exits with 0 if all went well, 1 on failure, 2 for wrong usage, 130 on Ctrl-C."""
    # Loading PyTorch creates many objects but hardly any garbage; collection would take a tenth of that time.
    gc.set_threshold(20_000, 10, 10)
    # The memory is freed with the process; a last garbage collection would take 0.3 seconds.
    atexit.register(gc.freeze)
    try:
        with terminal():
            app(prog_name="derain")
    except DerainError as error:
        complain(error)
        log.debug("traceback of the error:", exc_info=error)
        sys.exit(error.exit_code)
    except Exception as error:
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
        complain(DerainError(f"{place}{foreign(error)}."))
        sys.exit(DerainError.exit_code)
