"""What an evaluation runs on: rainy pictures with clean ones, with rain masks, or with neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.data.layouts import Split, find_splits, split_of
from derain.data.pairing import pair_folders, pictures_below, refuse_leftovers
from derain.errors import UsageError
from derain.evaluation.registry import protocol


@dataclass(frozen=True)
class Case:
    """A rainy picture, called `name`, and the files by which its result is scored, if there are any."""

    name: str
    rainy: Path
    clean: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class TestSet:
    """Pictures to evaluate on.

    Attributes:
        dataset: its name in published tables, otherwise the name that a table shows; "" for none.
        cases: the pictures in natural order, so that frames of a clip follow each other.
        protocols: the names of the protocols by which they are scored.
        notes: what a reader must know before comparing.
    """

    __test__ = False  # not a test of pytest's

    dataset: str
    cases: tuple[Case, ...]
    protocols: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_cases(
    rainy: Path,
    clean: Path | None = None,
    masks: Path | None = None,
    protocols: Sequence[str] = (),
    name: str = "",
) -> TestSet:
    """The set in a folder and the protocols to score it by.

    Args:
        rainy: a public set as unpacked, or a folder of rainy pictures.
        clean: the folder of their clean pictures, paired by name.
        masks: the folder of their rain masks, of the same names.
        protocols: their names; by default the usual one for a public set, or `real_rain` where there are
            only masks. Rainy pictures alone can be scored only by those that need no clean ones.
        name: what tables call the set; by default the name of the public set.

    Raises:
        UsageError: a protocol is not known or needs something that is not given, or there is not exactly
            one set of pairs.
        DerainError: a picture has no partner.
    """
    chosen = tuple(dict.fromkeys(protocols)) or (("real_rain",) if masks and not clean else ())
    needs = {need for p in chosen for need in protocol(p).needs}
    if masks is None and "mask" in needs:
        raise UsageError(f"{', '.join(chosen)}: rain masks are needed; give their folder.")
    if masks is not None and chosen and "mask" not in needs:
        raise UsageError(f"{', '.join(chosen)} need no rain masks; leave out {masks}.")
    if clean is None and chosen and "clean" not in needs:
        cases = tuple(Case(n, path) for n, path in pictures_below(rainy).items())
        dataset, notes = "", tuple[str, ...]()
    else:
        split = split_of(rainy, clean) if clean else _only_split(rainy)
        refuse_leftovers(split.pairing, split.rainy, split.clean)
        usual = [s.protocol for s in split.sets]
        if not chosen and not usual:
            raise UsageError(
                f"{rainy}: not a known public set, so it has no default protocol; name one, such as "
                "matlab_y_uint8."
            )
        chosen = chosen or tuple(dict.fromkeys(usual))
        cases = tuple(Case(p.name, p.picture, p.partner) for p in split.pairing.pairs)
        dataset, notes = split.dataset, _notes(split)
    if masks is not None:
        found = {pair.name: pair.partner for pair in pair_folders(rainy, masks)}
        cases = tuple(Case(case.name, case.rainy, case.clean, found[case.name]) for case in cases)
    return TestSet(name or dataset, cases, chosen, notes)


def _only_split(rainy: Path) -> Split:
    try:
        splits = find_splits(rainy)
    except UsageError as error:
        if not rainy.is_dir():
            raise
        raise UsageError(
            f"{error} If the clean pictures are elsewhere, give their folder, too. Without clean pictures, "
            "give rain masks, or a protocol that needs neither, such as niqe_stable."
        ) from None
    if len(splits) > 1:
        found = ", ".join(str(split.rainy) for split in splits)
        raise UsageError(f"{rainy}: holds {len(splits)} sets; name one of them: {found}.")
    return splits[0]


def _notes(split: Split) -> tuple[str, ...]:
    count = len(split.pairing.pairs)
    whole = [size for s in split.sets for part, size in s.sizes.items() if part != "train"]
    if split.purpose not in (None, "train"):
        whole = list(split.expected)
    if not whole or count in whole:
        return ()
    sizes = " or ".join(map(str, whole))
    return (f"These are {count} pictures; published figures are means over the {sizes} of the test set.",)
