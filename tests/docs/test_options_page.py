"""The page of all options says what the code says, and says something of each."""

from __future__ import annotations

from derain.methods import all_architectures
from derain.training import recipe
from docs.script import script

PAGE = script("options_page")


def test_the_page_says_what_the_code_says() -> None:
    """After a change: python scripts/options_page.py"""
    assert PAGE.PAGE.read_text("utf-8") == PAGE.page()


def test_every_key_is_explained() -> None:
    parts = {"": recipe.Recipe, **PAGE.RECIPE_PARTS}
    rows = [row for kind in parts.values() for row in PAGE.model_rows(kind)]
    for architecture in all_architectures():
        rows += PAGE.network_rows(architecture)
        rows += PAGE.loss_rows(architecture.loss) if architecture.loss else []
    assert [name for name, _, meaning in rows if len(meaning) < 8] == []
