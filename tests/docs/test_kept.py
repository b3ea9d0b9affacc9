"""The page of what is kept says what the program does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_round_trip_table_is_true_and_nothing_is_lost() -> None:
    spec = importlib.util.spec_from_file_location(
        "round_trip_table", ROOT / "scripts" / "round_trip_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.page()
    assert "| lost" not in page
    assert page == (ROOT / "docs" / "kept.md").read_text(encoding="utf-8")
