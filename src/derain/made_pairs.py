"""Notes in folders of synthetic pairs: a small file that keeps them from being taken for a public set."""

from __future__ import annotations

import json
from pathlib import Path

from derain.atomic import replace_file

NOTE = "made.json"
MOST_BYTES = 4096  # of a note; a longer one is not ours


def write_note(folder: Path, by: str, **facts: object) -> None:
    """Writes into a folder of pairs which command made them, and from what. Raises `DerainError`."""
    replace_file(folder / NOTE, (json.dumps({"made_by": by, **facts}) + "\n").encode())


def noted(folder: Path) -> dict[str, object]:
    """What the note of a folder says: "made_by" and facts; empty if there is none."""
    try:
        with (folder / NOTE).open(encoding="utf-8") as file:
            content = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("made_by"), str) else {}


def read_note(folder: Path) -> str:
    """The note of a folder in a few words; "" if there is none."""
    content = noted(folder)
    facts = ", ".join(f"{key} {value}" for key, value in content.items() if key != "made_by")
    made = f"made by {content['made_by']}" if content else ""
    return made + (f" ({facts})" if facts else "")
