"""The models that a server offers: named by the operator, chosen by clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from derain.checkpoints.bundled import DEFAULT, bundled_names, find_model
from derain.checkpoints.cards import card_of
from derain.errors import UsageError


@dataclass(frozen=True)
class OfferedModel:
    """A model that clients may choose.

    Attributes:
        name: what clients call it; not a path.
        source: the model in a form that `derain.load` takes.
        title: the name shown to people; one line.
    """

    name: str
    source: str
    title: str


def offered(sources: Sequence[str]) -> tuple[OfferedModel, ...]:
    """The models of a server, the default first.

    Args:
        sources: the models in forms that `derain.load` takes; empty for all bundled weights.

    Raises:
        UsageError: a name is not known, or two models would have the same name.
        DerainError: a card cannot be read.
    """
    found: dict[str, OfferedModel] = {}
    for source in sources or sorted(bundled_names(), key=lambda name: (name != DEFAULT, name)):
        path = find_model(source)
        hub = source.startswith("hf:")
        name = source.removeprefix("hf:") if hub else path.stem
        if name in found:
            raise UsageError(f"{found[name].source} and {source} would both be called '{name}'.")
        card = card_of(path)
        title = card.rows.get("in short") or card.title.removeprefix(f"{name}:").strip() or name
        found[name] = OfferedModel(name, source, title)
    return tuple(found.values())
