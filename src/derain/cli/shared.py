"""What all commands share: `-h`, `-q`, `-v`, defaults set by the user, full summaries in lists."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from derain.cli.defaults import Default, default_map, defaults, options_of
from derain.cli.output import be_quiet, be_verbose, log
from derain.errors import number_wanted
from derain.paths import exists

# What a user can name as a model: the help of all options and arguments that take one.
MODEL = "A name that `derain models` lists, a checkpoint or exported file, or hf:OWNER/NAME."
CHECKPOINT = "A name that `derain models` lists, a checkpoint, or hf:OWNER/NAME."
# Options that mean the same in every command that has them.
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision: TypeAlias = Annotated[
    str,
    typer.Option(
        help="auto, float32, bfloat16 or float16. auto: bfloat16 for 8-bit pictures where the processor "
        "supports it and the model tolerates it, else float32."
    ),
]
Ensemble: TypeAlias = Annotated[
    bool,
    typer.Option("--ensemble", help="Average over the flips and rotations that the weights were trained on."),
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs to read.")]
FullSize: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--full-size",
        help="Look for rain at full size only, not in reduced copies: finds thinner streaks in large "
        "pictures but hardly any wide ones, and takes longer.",
    ),
]
FrameByFrame: TypeAlias = Annotated[
    bool,
    typer.Option("--frame-by-frame", help="Restore each frame alone: faster, but more rain stays."),
]
OwnCode: TypeAlias = Annotated[
    bool, typer.Option("--own-code", help="Run the Python code of a custom network that the weights name.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")
]
# Spellings of earlier versions, which still work but are not documented.
OLD_OPTIONS = ("--weights", "--from")
_DEFAULTS = "derain.defaults"  # key in the context's `meta`


def _shared(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and what was asked for.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also print how the work is done, and where errors come from."),
    ] = False,
) -> None:
    """Not a command: its options are those of all commands."""


def _shared_options() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_shared)
    return list(typer.main.get_command(app).params)


class Command(TyperCommand):
    """A command that also has the options common to all commands."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params += _shared_options()
        self.old: dict[str, str] = {}
        parameter: Any
        for parameter in self.params:
            parameter.process_value = _exactly(parameter)
            names = [name for name in parameter.opts if name not in OLD_OPTIONS]
            if names and names != parameter.opts:
                self.old |= {name: names[0] for name in parameter.opts if name not in names}
                parameter.opts = names

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accepts old spellings; an error about a default names the place where it was set.

        An empty argument is often an unset variable; as a path it would mean the current folder.
        """
        for argument in args:
            name, equals, value = argument.partition("=")
            if not argument.strip() or (name.startswith("--") and equals and not value.strip()):
                raise typer.BadParameter(f"{argument.strip() or 'an argument'} is empty; give a value.", ctx)
        renamed = [self._renamed(argument) for argument in args]
        try:
            rest: list[str] = super().parse_args(ctx, renamed)
        except typer.BadParameter as error:
            error.message += _origin(ctx, error)
            raise
        return rest

    def get_help(self, ctx: Any) -> str:
        """The help, with <path>, not <list[Path]>, as the type of several values; columns stay aligned."""

        def of_one(found: re.Match[str]) -> str:
            return f"<{found[1].lower()}>" + (found[2] and found[2] + " " * len("list[]"))

        return re.sub(r"<list\[(\w+)\]>( *)", of_one, super().get_help(ctx))

    def _renamed(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        return f"{self.old.get(name, name)}{equals}{value}"

    def invoke(self, ctx: Any) -> Any:
        be_quiet(ctx.params.pop("quiet"))
        be_verbose(ctx.params.pop("verbose"))
        for default in _in_force(ctx):
            log.info("--%s %s, from %s", default.option, default.value, default.origin)
        return super().invoke(ctx)


class Group(TyperGroup):
    """A group of commands, each listed with its whole summary."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A file in place of a command is an error that says what to type instead."""
        if ctx.parent is None and args[0] not in self.commands and exists(Path(args[0])):
            run = f"derain run {shlex.join(args)}"
            ctx.fail(f"unknown command '{args[0]}'. To restore this file, run: {run}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [
            (name, command.get_short_help_str(1000))
            for name, command in self.commands.items()
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _exactly(parameter: Any) -> Callable[[Any, Any], Any]:
    """The parameter's `process_value`; for text that is not a valid number, the error says which are valid.

    What Python does not accept as a number never reaches pydantic, which drops leading zeros and so reads
    0-20 as -20.
    """
    read: Callable[[Any, Any], Any] = parameter.process_value
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    kind = next(iter(get_args(annotation)), annotation)  # of each value, where an option takes several
    if kind not in (int, float):
        return read

    def process(ctx: Any, given: Any) -> Any:
        if isinstance(given, list) and len(given) > 1:
            return [value for one in given for value in process(ctx, [one])]
        text = given[0] if isinstance(given, list) and given else given
        if not isinstance(text, str):
            return read(ctx, given)
        if _is_number(text):
            with suppress(typer.BadParameter):
                return read(ctx, given)
        wanted = number_wanted(text, whole=kind is int, least=parameter.min, most=parameter.max)
        raise typer.BadParameter(f"{text}: {wanted}", ctx, parameter)

    return process


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def use_defaults(ctx: typer.Context) -> None:
    """Gives the options of all commands the defaults that the user set."""
    options = options_of(ctx.command)
    found = defaults(options, os.environ)
    ctx.default_map = default_map(found, options)
    ctx.meta[_DEFAULTS] = found


def _in_force(ctx: Any) -> list[Default]:
    """This command's defaults from files and the environment."""
    path: list[str] = []
    place = ctx
    while place.parent is not None:
        path, place = [place.info_name, *path], place.parent
    found: list[Default] = ctx.meta.get(_DEFAULTS, [])
    parameters = {name: p.name for name, p in options_of(place.command).get(tuple(path), {}).items()}
    return [
        default
        for default in found
        if default.command == tuple(path)
        and getattr(ctx.get_parameter_source(parameters[default.option]), "name", "") == "DEFAULT_MAP"
    ]


def typed(ctx: typer.Context) -> set[str]:
    """The parameters given on the command line.

    The others are defaults, which are ignored where they do not apply: `compare = true` in a derain.toml
    must not keep anyone from restoring a clip.
    """
    return {
        name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _origin(ctx: Any, error: typer.BadParameter) -> str:
    """Where a bad value was set, if not on the command line."""
    bad = getattr(error.param, "opts", ())
    origins = [d.origin for d in _in_force(ctx) if f"--{d.option}" in bad]
    return f"; it is set by {origins[0]}" if origins else ""
