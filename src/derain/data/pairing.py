"""Which file in one folder belongs to which in another: decided by name, never by order.

Sorted lists do not pair: `norain-10.png` and `rain-10x2.png` sort differently, and one stray or missing file
silently shifts every later pair. So one naming rule must fit a whole folder; otherwise the folder is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from derain.errors import DerainError
from derain.pictures import find_pictures


@dataclass(frozen=True)
class NameRule:
    """How the stem of a partner, usually a clean picture, follows from that of a rainy or restored picture.

    Attributes:
        summary: an example, as error messages show it.
        pattern: matches the whole stem of the picture.
        partner: the stem of its partner, as a template of `pattern`.
    """

    summary: str
    pattern: str
    partner: str

    def partner_stem(self, stem: str) -> str | None:
        """The stem of the partner; None if the rule does not apply."""
        match = re.fullmatch(self.pattern, stem, re.DOTALL)  # names may contain line breaks
        return match.expand(self.partner) if match else None


RULES = (
    NameRule("1 with 1", r"(.+)", r"\1"),
    NameRule("rain-1x2 with norain-1 (Rain200L/H)", r"(?:no)?rain-(\d+)x\d", r"norain-\1"),
    NameRule("1x2 with 1 (Rain200L/H)", r"(.+)x\d", r"\1"),
    NameRule(
        "rain-1, rd-1 or rd-rain-1 with norain-1 (RainDS, Rain100L/H)",
        r"(?:rd-rain|rd|rain)-(.+)",
        r"norain-\1",
    ),
    NameRule("1_DR with 1_GT (DID-Data, DDN-Data)", r"(.+)_DR", r"\1_GT"),
    NameRule("1_rain with 1_clean (AGAN-Data)", r"(.+)_rain", r"\1_clean"),
    NameRule("901_14 with 901 (Rain1400, DDN-Data)", r"(.+)_\d+", r"\1"),
    NameRule("000 with 000gt (SPA-Data)", r"(.+)", r"\1gt"),
)


@dataclass(frozen=True)
class Pair:
    """A picture and its partner in another folder: a clean or rainy picture, a result or a mask.

    `name` is the path of the picture relative to its folder.
    """

    name: str
    picture: Path
    partner: Path


@dataclass(frozen=True)
class Pairing:
    """Two folders paired by the rule that fits them best.

    Attributes:
        rule: the one that was used.
        pairs: in natural order of the pictures (2 before 10).
        unmatched: pictures without a partner, as paths relative to their folder, in natural order.
        unmatched_partners: the same for partners without a picture.
    """

    rule: NameRule
    pairs: tuple[Pair, ...]
    unmatched: tuple[str, ...]
    unmatched_partners: tuple[str, ...]


def pair_folders(folder: Path, partners: Path) -> tuple[Pair, ...]:
    """Pairs two folders, with their subfolders, by the first rule that leaves nothing unmatched.

    Raises:
        DerainError: see `pictures_below` and `refuse_leftovers`.
    """
    pairing = best_pairing(pictures_below(folder), pictures_below(partners))
    refuse_leftovers(pairing, folder, partners)
    return pairing.pairs


def refuse_leftovers(pairing: Pairing, folder: Path, partners: Path) -> None:
    """Raises `DerainError` when a file on either side has no partner; names the first."""
    if not pairing.pairs:
        rules = "; ".join(rule.summary for rule in RULES)
        raise DerainError(
            f"{folder / pairing.unmatched[0]}: no picture of its name in {partners}. "
            f"Names are paired like this: {rules}."
        )
    for here, there, names in (
        (folder, partners, pairing.unmatched),
        (partners, folder, pairing.unmatched_partners),
    ):
        if names:
            others, pairs = len(names) - 1, len(pairing.pairs)
            more = f", nor {'has 1 other' if others == 1 else f'have {others} others'}" if others else ""
            raise DerainError(
                f"{here / names[0]} has no partner in {there}{more}; the rule that fits best, "
                f"{pairing.rule.summary}, gives {pairs} {'pair' if pairs == 1 else 'pairs'}."
            )


def pictures_below(folder: Path) -> dict[str, Path]:
    """{relative path: path} of the pictures in a folder, in natural order.

    Raises:
        DerainError: there is none, or a name occurs with two different extensions.
    """
    found = {picture.relative.as_posix(): picture.source for picture in find_pictures([folder])}
    names = sorted(found, key=natural_order)
    stems: dict[PurePath, str] = {}
    for name in names:
        first = stems.setdefault(PurePath(name).with_suffix(""), name)
        if first != name:
            raise DerainError(f"{folder}: holds both {first} and {name}; keep one of them.")
    return {name: found[name] for name in names}


def best_pairing(pictures: Mapping[str, Path], partners: Mapping[str, Path]) -> Pairing:
    """The pairing that leaves the fewest files unmatched; on ties, that of the first of `RULES`."""
    return min(
        (_pair(rule, pictures, partners) for rule in RULES),
        key=lambda p: len(p.unmatched) + len(p.unmatched_partners),
    )


def _pair(rule: NameRule, pictures: Mapping[str, Path], partners: Mapping[str, Path]) -> Pairing:
    names = {PurePath(name).with_suffix("").as_posix(): name for name in partners}
    pairs, left_over, used = [], [], set()
    for name, path in pictures.items():
        place = PurePath(name)
        stem = rule.partner_stem(place.stem)
        partner = names.get((place.parent / stem).as_posix()) if stem else None
        if partner is None:
            left_over.append(name)
        else:
            pairs.append(Pair(name, path, partners[partner]))
            used.add(partner)
    return Pairing(rule, tuple(pairs), tuple(left_over), tuple(n for n in partners if n not in used))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that puts 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if number % 2 else (1, 0, part) for number, part in enumerate(parts)]
