"""Defaults of options that users set once: in a file `derain.toml`, or in environment variables.

    device = "cpu"           # for every command that has such an option

    [run]                    # for `derain run`
    jpeg-quality = 90

The same in the environment: DERAIN_DEVICE=cpu and DERAIN_RUN_JPEG_QUALITY=90. Each
option is taken from the first of these that sets it: the command line, the environment, `derain.toml` in the
current folder, `derain.toml` in the user's configuration folder. Within each, a value for one command takes
precedence over one for all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import typer

from derain.errors import DerainError, UsageError, reason, unknown_name

FILE = "derain.toml"
PREFIX = "DERAIN_"
# What may be set once. The other options name files of one task, or permit something in one command, such as
# replacing files: nobody should lose files because of a derain.toml in the current folder.
SETTABLE = frozenset(
    {
        *("backbone", "codec", "compare", "crf", "device", "ensemble", "format"),
        *("frame-by-frame", "full-size", "host", "jpeg-quality", "keep", "keep-fields", "maps", "max-clip"),
        *("max-pixels", "max-storage", "max-time", "max-upload", "max-waiting", "minutes", "model"),
        *("overlap", "passes", "port", "precision", "preset", "protocol", "quantise", "quiet", "seed"),
        *("sizes", "strength", "temporal", "threads", "tile", "verbose", "workers"),
    }
)

Place: TypeAlias = tuple[str, ...]  # a command, e.g. ("data", "check"); () for all
Options: TypeAlias = Mapping[Place, Mapping[str, Any]]  # command -> long name -> Click's parameter
# (command, option), (value, origin)
SetValues: TypeAlias = Iterator[tuple[tuple[Place, str], tuple[Any, str]]]


@dataclass(frozen=True)
class Default:
    """A default that a user set.

    Attributes:
        command: e.g. ("data", "check").
        option: its long name without dashes.
        value: its value, as if it had been typed.
        origin: the variable, or the file and the key in it.
    """

    command: Place
    option: str
    value: Any
    origin: str


def config_files() -> tuple[Path, ...]:
    """Where `derain.toml` is looked for, highest precedence first."""
    return Path(FILE), Path(typer.get_app_dir("derain")) / FILE


def options_of(group: Any) -> dict[Place, dict[str, Any]]:
    """The options of every command below a Click group, by their long names."""
    found: dict[Place, dict[str, Any]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= {(name, *below): options for below, options in options_of(command).items()}
        else:
            long = {_long(p): p for p in command.params if p.param_type_name == "option" and not p.hidden}
            found[(name,)] = long
    return found


def _long(parameter: Any) -> str:
    return str(max(parameter.opts, key=len)).removeprefix("--")


def defaults(options: Options, environment: Mapping[str, str]) -> list[Default]:
    """All defaults that the user set and that are in effect.

    Raises:
        UsageError: a file is not TOML, or sets something that is not an option or may not be set.
        DerainError: a file cannot be read.
    """
    levels = [dict(_of_environment(options, environment))]
    levels += [dict(_of_file(options, path)) for path in config_files()]
    found = []
    for command, named in options.items():
        for option, parameter in named.items():
            for level in levels:
                given = level.get((command, option)) or level.get(((), option))
                if given is not None:
                    value, origin = given
                    found.append(Default(command, option, _as_given(parameter, value), origin))
                    break
    return found


def problem(default: Default, options: Options, ctx: typer.Context) -> str:
    """Why the option's type rejects the default; "" if it accepts it."""
    parameter = options[default.command][default.option]
    try:
        parameter.process_value(ctx, default.value)
    except typer.BadParameter as error:
        return str(error.message).rstrip(".")
    return ""


def default_map(found: list[Default], options: Options) -> dict[str, Any]:
    """The defaults as Click expects them: {command: {parameter: value}}, groups nested."""
    content: dict[str, Any] = {}
    for default in found:
        place = content
        for name in default.command:
            place = place.setdefault(name, {})
        place[options[default.command][default.option].name] = default.value
    return content


def unused_variables(options: Options, environment: Mapping[str, str]) -> list[str]:
    """Environment variables with our prefix that set no option."""
    own = {v for named in options.values() for p in named.values() for v in _own_variables(p)}
    used = {origin for _, origin in dict(_of_environment(options, environment)).values()}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in used | own)


def _of_environment(options: Options, environment: Mapping[str, str]) -> SetValues:
    places: list[tuple[str, ...]] = [(), *options]
    for command in places:
        names = (
            options[command] if command else {n: p for named in options.values() for n, p in named.items()}
        )
        for option, parameter in names.items():
            variable = PREFIX + "_".join((*command, option)).replace("-", "_").upper()
            if environment.get(variable) and not _own_variables(parameter):
                _refuse_unsettable(option, variable)
                yield (command, option), (environment[variable], variable)


def _own_variables(parameter: Any) -> tuple[str, ...]:
    return (parameter.envvar,) if isinstance(parameter.envvar, str) else tuple(parameter.envvar or ())


def _of_file(options: Options, path: Path) -> SetValues:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path}: not TOML ({error}).") from None
    yield from _of_table(options, content, (), path)


def _of_table(options: Options, table: Mapping[str, Any], command: Place, path: Path) -> SetValues:
    known = options.get(command) or {name for named in options.values() for name in named}
    below = {
        place[len(command)] for place in options if place[: len(command)] == command and place != command
    }
    for key, value in table.items():
        option, place = key.replace("_", "-"), ".".join((*command, key))
        if isinstance(value, Mapping) and key in below:
            yield from _of_table(options, value, (*command, key), path)
        elif option not in known or isinstance(value, Mapping):
            kind = "command" if isinstance(value, Mapping) else "option"
            error = unknown_name(kind, place, below if isinstance(value, Mapping) else {*known} & SETTABLE)
            raise UsageError(f"{path}: {error}")
        else:
            _refuse_unsettable(option, f"{path}: {place}")
            yield (command, option), (value, f"{path}: {place}")


def _refuse_unsettable(option: str, origin: str) -> None:
    if option not in SETTABLE:
        raise UsageError(f"{origin}: --{option} cannot be set as a default; give it with each command.")


def _as_given(parameter: Any, value: Any) -> Any:
    """The value as if typed; several values are a list, or separated by commas."""
    if parameter.multiple:
        parts = value if isinstance(value, list) else str(value).split(",")
        return [str(part).strip() for part in parts]
    return value if isinstance(value, bool) else str(value)
