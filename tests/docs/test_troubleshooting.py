"""What the page on troubles quotes is what the program says, and the options that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import derain
from derain.errors import _REASONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
SOURCE = "\n".join(path.read_text("utf-8") for path in Path(derain.__file__).parent.rglob("*.py"))


def quoted() -> list[str]:
    """The first cells of the tables that quote."""
    tables = re.findall(r"\| it says \|.*?\n\|[- |]+\n((?:\|.*\n)+)", PAGE)
    return [row.split("|")[1].strip() for table in tables for row in table.splitlines()]


def test_every_quoted_message_is_one() -> None:
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCE)
    said = [message for message in quoted() if message not in joined]
    assert said == []
    assert len(quoted()) > 25
    assert {"the disk is full", "no permission"} <= set(_REASONS.values())


def test_the_options_exist() -> None:
    known = (ROOT / "tests" / "cli" / "options.txt").read_text("utf-8")
    for option in set(re.findall(r"`(?:derain \w+ )?(--[\w-]+)", PAGE)):
        assert f" {option}" in known, option
