"""Writes docs/options.md, every option of networks, losses and recipes: python scripts/options_page.py"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from derain.methods import all_methods
from derain.methods.contract import Architecture, Loss
from derain.training import recipe, schedule

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """# Options of networks, losses and recipes

Made by `scripts/options_page.py` from the code. [Train](train.md) shows them in use; `--set` replaces any:

```sh
derain train spanet/synthetic --dry-run --set data.clean=photos --set options.width=8 \\
    --set optimizer.rate=1e-3 --set steps=4 --set 'stages=[{patch: 32, batch: 2}]' --set validation=null
```
"""
NONE = "none"
Row = tuple[str, str, str]  # name, default, meaning


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "## Networks and their losses\n"]
    for method in all_methods():
        for architecture in method.architectures:
            parts += [f"### {architecture.name}\n", f"{method.title}. `options`:\n"]
            parts.append(_table(network_rows(architecture)))
            parts += [_variants(architecture.variants)] if len(architecture.variants) > 1 else []
            if architecture.loss is not None:
                parts += [f"`loss`: {summary(architecture.loss)}\n", _table(loss_rows(architecture.loss))]
    parts += ["## A recipe\n", _table(model_rows(recipe.Recipe))]
    for title, kind in RECIPE_PARTS.items():
        parts += [f"### {title}\n", summary(kind) + "\n", _table(model_rows(kind))]
    return "\n".join(part for part in parts if part)


RECIPE_PARTS: dict[str, type[BaseModel]] = {
    "data": recipe.Data,
    "data.sources: as data, and": recipe.MixtureSource,
    "validation": recipe.Validation,
    "stages": recipe.Stage,
    "optimizer": recipe.Optimizer,
    **{
        f"schedule: {typing.get_args(kind.model_fields['name'].annotation)[0]}": kind
        for kind in typing.get_args(typing.get_args(schedule.Schedule)[0])
    },
}


def network_rows(architecture: Architecture) -> list[Row]:
    """The keyword arguments of a network; the defaults are those of its first variant."""
    meanings, first = described(architecture.build), next(iter(architecture.variants.values()))
    return [
        (name, written(first.get(name, parameter.default)), meanings[name])
        for name, parameter in inspect.signature(architecture.build).parameters.items()
    ]


def loss_rows(kind: type[Loss]) -> list[Row]:
    """The options of a loss."""
    meanings = described(kind)
    return [(f.name, written(f.default), meanings[f.name]) for f in dataclasses.fields(kind)]


def model_rows(kind: type[BaseModel]) -> list[Row]:
    """The keys of a part of a recipe; of a kind of schedule without its name."""
    inherited = recipe.Data.model_fields if kind is recipe.MixtureSource else {}
    meanings = described(kind)
    return [
        (name, written(field.default), meanings[name])
        for name, field in kind.model_fields.items()
        if name not in inherited and not (name == "name" and kind in SCHEDULES)
    ]


SCHEDULES = typing.get_args(typing.get_args(schedule.Schedule)[0])


def described(kind: Any) -> dict[str, str]:
    """{name: meaning} of the sections Args and Attributes of a class and of those it derives from."""
    found: dict[str, str] = {}
    for one in reversed(inspect.getmro(kind)):
        found.update(_entries(inspect.cleandoc(vars(one).get("__doc__") or "")))
    return found


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for section in re.findall(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.M):
        for entry in re.split(r"\n(?=    \S)", section.rstrip()):
            names, _, meaning = entry.strip().partition(": ")
            for name in names.split(", "):
                yield name, " ".join(meaning.split())


def summary(kind: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def written(default: Any) -> str:
    """A default as a recipe would have it."""
    if default in (inspect.Parameter.empty, dataclasses.MISSING, PydanticUndefined):
        return "must be given"
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower().replace('none', 'null')}`"
    if isinstance(default, BaseModel):
        return f"`{default.name}`"  # type: ignore[attr-defined]
    if isinstance(default, tuple):
        return f"`{list(default)}`"
    return f"`{default}`" if default != "" else NONE


def in_recipes(meaning: str) -> str:
    """A docstring's words as a recipe has them."""
    return re.sub(r"\bNone\b", "null", meaning).replace("`Data`", "`data`").replace("|", "\\|")


def _variants(variants: Any) -> str:
    first, *others = variants.items()
    told = []
    for name, config in others:
        different = {k: v for k, v in config.items() if first[1].get(k) != v}
        told.append(f"`{name}` has " + ", ".join(f"{k} {written(v)}" for k, v in different.items()))
    return f"Variant `{first[0]}` has these defaults; {'; '.join(told)}.\n"


def _table(rows: list[Row]) -> str:
    if not rows:
        return "It has no options.\n"
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {default} | {in_recipes(meaning)} |" for name, default, meaning in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
