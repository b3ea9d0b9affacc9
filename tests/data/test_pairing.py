"""Pictures are paired by name, in any order of files, or refused by name."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain import DerainError, UsageError
from derain.data.pairing import RULES, best_pairing, natural_order, pair_folders, pictures_below

SETS = {
    "same name, other format": (["1.png", "2.jpg"], ["1.jpg", "2.bmp"], 0),
    "Rain200": (["rain-1x2.png", "rain-10x2.png"], ["norain-1.png", "norain-10.png"], 1),
    "Rain200H": (["norain-1x2.png", "norain-2x2.png"], ["norain-1.png", "norain-2.png"], 1),
    "Rain200 by number": (["1x2.png", "10x2.png"], ["1.png", "10.png"], 2),
    "Rain100": (["rain-001.png", "rain-002.png"], ["norain-001.png", "norain-002.png"], 3),
    "RainDS": (
        ["rd-rain-1.png", "rd-2.png", "rain-3.png"],
        ["norain-1.png", "norain-2.png", "norain-3.png"],
        3,
    ),
    "DID": (["1_DR.png", "2_DR.png"], ["1_GT.png", "2_GT.png"], 4),
    "AGAN": (["0_rain.png", "1_rain.jpg"], ["0_clean.png", "1_clean.png"], 5),
    "Rain1400": (["901_1.jpg", "901_14.jpg", "902_1.jpg"], ["901.jpg", "902.jpg"], 6),
    "SPA": (["000.png", "001.png"], ["000gt.png", "001gt.png"], 7),
    "folders": (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"], 0),
}


def named(names: list[str]) -> dict[str, Path]:
    return {name: Path(name) for name in names}


@pytest.mark.parametrize("key", SETS)
@given(data=st.data())
def test_public_names_pair_in_any_order(key: str, data: st.DataObject) -> None:
    rainy, clean, rule = SETS[key]
    shuffled = [data.draw(st.permutations(side)) for side in (rainy, clean)]
    pairing = best_pairing(*map(named, shuffled))
    assert pairing.rule is RULES[rule]
    assert not pairing.unmatched
    assert not pairing.unmatched_partners
    partners = {pair.name: str(pair.partner) for pair in pairing.pairs}
    for name, partner in partners.items():
        stem = RULES[rule].partner_stem(PurePath(name).stem)
        assert partner in clean
        assert PurePath(partner).stem == stem
        assert PurePath(partner).parent == PurePath(name).parent


@pytest.mark.parametrize(
    ("restored", "clean", "message"),
    [
        (
            ["1.png", "2.png", "3.png"],
            ["1.png", "3.png"],
            r"restored/2.png has no partner in .*clean; the rule that fits best, 1 with 1, gives 2 pairs",
        ),
        (
            ["1.png", "10.png"],
            ["1.png", "2.png", "10.png"],
            r"clean/2.png has no partner in .*2 pairs",
        ),
        (["a.png", "b.png"], ["c.png", "d.png"], r"restored/a.png: no picture of its name"),
        (["1.png", "1.jpg"], ["1.png"], r"restored: holds both 1.jpg and 1.png"),
        (["2.png", "10.png", "11.png"], ["1.png"], r"restored/2.png: no picture"),
    ],
)
def test_what_does_not_pair_is_refused_by_name(
    restored: list[str], clean: list[str], message: str, tmp_path: Path
) -> None:
    for folder, names in (("restored", restored), ("clean", clean)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    with pytest.raises(DerainError, match=message):
        pair_folders(tmp_path / "restored", tmp_path / "clean")


def test_never_by_rank(tmp_path: Path) -> None:
    """Equal counts and no common names: a script that sorts both would score nonsense."""
    for folder, names in (("a", ["x1", "x2"]), ("b", ["y1", "y2"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").touch()
    with pytest.raises(DerainError, match="paired like this"):
        pair_folders(tmp_path / "a", tmp_path / "b")


def test_empty_folders_and_strays(tmp_path: Path) -> None:
    (tmp_path / "Thumbs.db").touch()
    with pytest.raises(UsageError, match="no pictures found"):
        pictures_below(tmp_path)
    for name in ("10.png", "9.png", ".hidden.png"):
        (tmp_path / name).touch()
    assert list(pictures_below(tmp_path)) == ["9.png", "10.png"]


def test_natural_order() -> None:
    names = ["b1", "a10", "a9", "a", "10", "9", "a9b"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "a9", "a9b", "a10", "b1"]
