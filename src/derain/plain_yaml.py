"""Untrusted YAML: parsed in bounded time and memory, or refused in one line.

PyYAML's safe loader builds only plain values, but a few lines of aliases can stand for terabytes or contain
themselves, and odd scalars raise exceptions of all kinds. Here aliases count as often as they are used,
values cannot contain themselves, no key stands twice, and whatever cannot be read is a `ValueError`. Dates
stay text.
"""

from __future__ import annotations

from typing import Any

import yaml

from derain.errors import first_line

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 20_000
DEEPEST = 40


class _Loader(yaml.SafeLoader):
    """Counts values while it composes them, before anything is built from them."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML reads it off the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = 0
        self._depth = 0
        self._sizes: dict[int, int] = {}  # values in each finished node, aliases counted in full

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._count
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._count += 1
        elif id(node) in self._sizes:
            self._count += self._sizes[id(node)]
        else:
            raise yaml.MarkedYAMLError(problem="a value that contains itself", problem_mark=mark)
        if self._count > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=mark)
        self._sizes[id(node)] = self._count - before
        if isinstance(node, yaml.MappingNode) and not is_alias:
            _refuse_repeated_keys(node)
        return node


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    """PyYAML takes the last one without a word, against the YAML standard."""
    known = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in known:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key.value[:40]}' stands there twice", problem_mark=key.start_mark
                )
            known.add(key.value)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text, as dicts, lists, text, numbers, booleans and None.

    Raises:
        ValueError: it cannot be read; says where and why, in one line without a full stop.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS} characters")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise ValueError(f"{place}not YAML ({problem})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        # A tag such as !!bool on another kind of value, or a number of thousands of digits.
        raise ValueError(f"not YAML (a value does not fit its type: {first_line(error)[:80]})") from None
