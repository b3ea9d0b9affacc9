"""Broken recipes: read, with changes of the kind that `--set` makes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from derain.training.recipe import load_recipe, published_recipes, sources_of
from fuzz.mutations import mutated
from fuzz.pictures import SHARED
from fuzz.trial import Kind

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, float("inf"), float("nan")),
    *("", "no", "2024", "text", "x" * 5000, "\x1b[31m", [], {}, [[]], {"name": "cosine"}, {"": 1}),
)
# What YAML has beside values.
TEXTS = (
    *("a: &a [*a]", "&a [a, a]", "*b", "!!python/object/apply:os.system [ls]", "!!binary ====", "!!float x"),
    *("2026-13-45", "1:60:61", "0x", "<<: *a", "<<: [1]", "? [a, b]\n: c", "- -", "%YAML 9.9\n---", "\t"),
    *("!!set {a, b}", "!!omap [a]", "'", '"\\x"', "{", "|", ">-", "---\n---", "\u2028", "\ufeff"),
)


@functools.cache
def seeds() -> tuple[str, ...]:
    texts = [file.read_text("utf-8") for file in published_recipes().values()]
    texts += [path.read_text("utf-8", "replace") for path in sorted((SHARED / "recipes").glob("*.yaml"))]
    return tuple(texts)


def make(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "a.yaml"
    text, other = (seeds()[int(rng.integers(len(seeds())))] for _ in range(2))
    if rng.random() < 0.4:
        path.write_bytes(mutated(text.encode(), other.encode(), rng))
    elif rng.random() < 0.4:
        path.write_text(_with_lines(text, rng), "utf-8", "surrogatepass")
    else:
        names = list(published_recipes().values())
        content = yaml.safe_load(names[int(rng.integers(len(names)))].read_text("utf-8"))
        for _ in range(int(rng.integers(1, 4))):
            _change(content, rng)
        path.write_text(yaml.safe_dump(content), "utf-8", "surrogatepass")
    return path


def _with_lines(text: str, rng: np.random.Generator) -> str:
    """Lines that say something else, or are somewhere else."""
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 4))):
        place, odd = int(rng.integers(len(lines))), TEXTS[int(rng.integers(len(TEXTS)))]
        key = lines[place].partition(":")[0]
        match int(rng.integers(4)):
            case 0:
                lines[place] = f"{key}: {odd}"
            case 1:
                lines.insert(place, odd)
            case 2:
                lines.insert(place, lines[int(rng.integers(len(lines)))])
            case _:
                lines[place] = " " * int(rng.integers(9)) + lines[place]
    return "\n".join(lines)


def _change(content: Any, rng: np.random.Generator) -> None:
    """Another value, key or kind somewhere in a tree."""
    here = content
    while True:
        places = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not places:
            return
        place = places[int(rng.integers(len(places)))]
        if isinstance(here[place], dict | list) and here[place] and rng.random() < 0.7:
            here = here[place]
            continue
        match int(rng.integers(4)):
            case 0 if isinstance(here, dict):
                here[("x", 0, None, "data", "\x1b")[int(rng.integers(5))]] = here.pop(place)
            case 1:
                del here[place]
            case _:
                here[place] = VALUES[int(rng.integers(len(VALUES)))]
        return


def use(source: Path, _: Path) -> None:
    size = source.stat().st_size
    keys = ("seed", "steps", "data.clean", "stages.0.patch", "origin", "x.y", "", "optimizer.betas.1")
    odd = TEXTS[size % len(TEXTS)] if size % 2 else str(VALUES[size % len(VALUES)])
    changes = [f"{keys[size % len(keys)]}={odd}"] if size % 3 else []
    sources_of(load_recipe(source, changes))


RECIPES = Kind("recipes", 2_000, make, use)
