"""`derain config`: shows which defaults are in effect, and where they were set."""

from __future__ import annotations

import json
import os

import typer

from derain.cli.shared import AsJson


def config(
    ctx: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Show which defaults you have set, and where: in derain.toml or in DERAIN_* variables.

    Each option is taken from the first of these that sets it: the command line, the environment,
    derain.toml in the current folder, derain.toml in your configuration folder.

    Example: DERAIN_DEVICE=cpu derain config
    """
    from derain.cli.defaults import SETTABLE, config_files, defaults, options_of, problem, unused_variables
    from derain.cli.output import tell

    options = options_of(ctx.find_root().command)
    found, unused = defaults(options, os.environ), unused_variables(options, os.environ)
    files = [(path, path.is_file()) for path in config_files()]
    if as_json:
        content = {
            "files": [{"path": str(path), "exists": exists} for path, exists in files],
            "defaults": [
                {
                    "command": " ".join(d.command),
                    "option": d.option,
                    "value": d.value,
                    "origin": d.origin,
                    "problem": problem(d, options, ctx),
                }
                for d in found
            ],
            "unused": unused,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    for path, exists in files:
        tell(f"{path}: {'read' if exists else 'not found'}")
    commands: dict[str, list[str]] = {}
    for d in found:
        wrong = problem(d, options, ctx)
        told = f"--{d.option} {d.value}, from {d.origin}" + (f" (not valid: {wrong})" if wrong else "")
        commands.setdefault(told, []).append(" ".join(d.command))
    for default, names in commands.items():
        tell(f"{default}: for {', '.join(names)}")
    if not found:
        tell(f"No defaults are set. You can set: {', '.join(sorted(SETTABLE))}.")
    for variable in unused:
        tell(f"{variable}: sets no option of any command")
