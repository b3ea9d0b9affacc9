"""The command line: one small module per command, no logic of its own."""

from __future__ import annotations

import sys

import click
import typer

from derain.cli import background, convert, info, run
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
app.command("background")(background.background)
app.command("info")(info.info)
app.command("convert")(convert.convert)


def main() -> None:
    """Entry point: exit 0 if all went well, 1 on failure, 2 for wrong usage, 130 on Ctrl-C."""
    try:
        code = app(standalone_mode=False)
    except DerainError as error:
        print(f"derain: {error}", file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        print("derain: stopped; nothing half written was left behind.", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
