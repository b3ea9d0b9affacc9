"""The card of weights: a Markdown file beside them, NAME.md, about what they are and were trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from derain.errors import DerainError, reason


@dataclass(frozen=True)
class Card:
    """What a card says; all empty if there is none.

    Attributes:
        text: the whole card, as Markdown.
        title: its heading.
        rows: {name: value} of the table below the heading ("trained on", "licence", ...).
        limits: the text of the section "Limits", as one paragraph.
    """

    text: str = ""
    title: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    limits: str = ""


def card_of(weights: Path) -> Card:
    """The card beside a file of weights. Raises `DerainError` if it exists and cannot be read."""
    path = weights.with_suffix(".md")
    try:
        return read_card(path.read_text("utf-8")) if path.is_file() else Card()
    except UnicodeDecodeError:
        raise DerainError(f"{path}: not text in UTF-8.") from None
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None


def read_card(text: str) -> Card:
    """The parts of a card."""
    head, *sections = re.split(r"^## ", text, flags=re.M)
    title = re.search(r"^# (.+)$", head, re.M)
    rows = re.findall(r"^\| *([^|]*[^|\s]) *\| *([^|]*[^|\s]) *\|$", head, re.M)
    limits = next(
        (body for name, _, body in (s.partition("\n") for s in sections) if name.strip() == "Limits"), ""
    )
    return Card(
        text=text,
        title=_plain(title[1]) if title else "",
        rows={_plain(name): _plain(value) for name, value in rows if set(name) - set("-: ")},
        limits=_plain(limits),
    )


def _plain(markdown: str) -> str:
    """The text on one line, without Markdown's marks for code and emphasis."""
    return " ".join(re.sub(r"[`*]", "", markdown).split())
