"""The page on the command line names every command, with a page that exists."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from derain.cli import app
from derain.cli.defaults import options_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_command_is_listed_once() -> None:
    table = re.findall(r"^\| (`.+`) \| .+ \| (.+) \|$", (DOCS / "command-line.md").read_text("utf-8"), re.M)
    rows = [(name, page) for names, page in table for name in re.findall("`([a-z ]+)`", names)]
    commands = {" ".join(place) for place in options_of(typer.main.get_command(app)) if place}
    listed = [name for name, _ in rows if name in commands]
    assert sorted(listed) == sorted(commands)
    for link in re.findall(r"\]\(([\w-]+\.md)", " ".join(page for _, page in rows)):
        assert (DOCS / link).is_file(), link
