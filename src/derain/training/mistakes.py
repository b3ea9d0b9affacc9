"""What is wrong with a recipe, in one line: pydantic's errors, and what the schema allows at a place."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

# By pydantic's error types, with the limits that pydantic reports.
WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list of two numbers",
    "too_long": "at most {max_length} of them",
    "dict_type": "keys and values",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge} on",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
}


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first mistake in one line: where it is, what is wrong, and what would be right."""
    first = error.errors(include_url=False)[0]
    loc = first["loc"]
    if not loc:
        return "it is not a recipe."
    if loc[0] in ("schedule", "data"):
        loc = loc[:1] + loc[2:]  # without the name of the kind
    place = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        known = _keys_at(schema, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}."
        return f"unknown key '{place}'; {hint}"
    if first["type"] == "missing":
        return f"'{place}' is missing."
    given = "" if isinstance(first["input"], dict | list) else f", not {repr(first['input'])[:80]}"
    return f"'{place}': {_wanted(first['type'], first['msg'], first.get('ctx', {}))}{given}."


def _wanted(kind: str, message: str, limits: Mapping[str, Any]) -> str:
    """What would be right there: in our own words for the most common values, otherwise in pydantic's."""
    if kind not in WANTED:
        return message[0].lower() + message[1:]
    shown = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in limits.items()}
    return f"give {WANTED[kind].format(**shown)}"


def _keys_at(schema: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys that the schema knows at a place, e.g. ("stages", 0) or ("schedule", "cosine")."""
    return sorted({key for kind in kinds_at(schema, place) if _is_part(kind) for key in kind.model_fields})


def kinds_at(schema: type[BaseModel], place: Sequence[int | str]) -> list[Any]:
    """The types that a value at a place may have, e.g. ("stages", 0); empty for unknown places."""
    kinds: list[Any] = [schema]
    for step in place:
        kinds = [inner for kind in kinds for inner in _kinds_within(kind, step)]
    return kinds


def _kinds_within(kind: Any, step: int | str) -> list[Any]:
    if typing.get_origin(kind) is list:
        return _alternatives(typing.get_args(kind)[0])
    if not _is_part(kind):
        return []
    if step in kind.model_fields:
        return _alternatives(kind.model_fields[step].annotation)
    # In the location of an error, the chosen kind comes between a key and its content.
    return [kind] if step == kind.__name__ or step in _names(kind) else []


def _alternatives(annotation: Any) -> list[Any]:
    """The types in a union, or the only type."""
    if typing.get_origin(annotation) is Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in _alternatives(part)]
    return [annotation]


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _names(kind: type[BaseModel]) -> tuple[str, ...]:
    """The allowed values of a model's field `name`."""
    return typing.get_args(kind.model_fields["name"].annotation) if "name" in kind.model_fields else ()
