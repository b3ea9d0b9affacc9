"""Turns a folder of clean pictures into folders of rainy and clean pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain import made_pairs
from derain.atomic import refuse_existing, replace_file
from derain.data.folders import pictures_in, read_rgb
from derain.data.synthesis.presets import RainKind, make_pair
from derain.data.synthesis.presets import preset as find_preset
from derain.errors import UsageError
from derain.paths import real

MAKER = "derain synth"
PARTS = ("rainy", "clean")  # folders of the output


@dataclass(frozen=True)
class PlannedPair:
    """One pair to be made; `number` and the seed determine its rain."""

    source: Path
    rainy: Path
    clean: Path
    number: int


def plan_pairs(
    folder: str | Path,
    output: str | Path,
    preset: str,
    count: int = 1,
    overwrite: bool = False,
    rainy_suffix: str = ".png",
) -> list[PlannedPair]:
    """What will be written: NAME.png, or NAME-1.png, NAME-2.png, ... where `count` is above 1.

    Raises:
        UsageError: the preset is unknown, there is no such folder or no picture in it, a file exists already,
            two pictures share a name, a source would be replaced, or the output is in the folder, where the
            next run would take the pairs for clean pictures.
    """
    find_preset(preset)
    plan: list[PlannedPair] = []
    files, place = pictures_in(folder), real(Path(output))
    if real(Path(folder)) in (place, *place.parents):
        raise UsageError(f"{output}: lies in the folder of clean pictures; choose one outside it.")
    for file in files:
        for version in range(1, count + 1):
            name = f"{file.stem}-{version}" if count > 1 else file.stem
            rainy, clean = (Path(output) / part / f"{name}.png" for part in PARTS)
            plan.append(PlannedPair(file, rainy.with_name(f"{name}{rainy_suffix}"), clean, len(plan)))
    sources, written = {real(pair.source) for pair in plan}, set[Path]()
    for pair in plan:
        if pair.rainy in written:
            raise UsageError(f"{pair.source}: another picture there has the same name; rename one of them.")
        written.add(pair.rainy)
        for target in (pair.rainy, pair.clean):
            if real(target) in sources:
                raise UsageError(f"{target}: is one of the clean pictures; choose another output folder.")
            refuse_existing(target, overwrite)
    return plan


def refuse_mixture(output: Path, plan: Sequence[PlannedPair], facts: Mapping[str, object]) -> None:
    """Refuses a folder that would mix pairs of different settings, or pairs with other pictures.

    Args:
        output: the folder of the pairs, which need not exist.
        plan: what will be written or replaced.
        facts: the settings, as the folder's note will state them.

    Raises:
        UsageError: other files would remain there beside the pairs.
    """
    there = {file for part in PARTS for file in (output / part).glob("[!.]*")}
    made = made_pairs.noted(output)
    if there and made.get("made_by") != MAKER:
        raise UsageError(f"{min(there)}: was not made by {MAKER}; choose another output folder.")
    if made != {"made_by": MAKER, **facts} and there - {file for p in plan for file in (p.rainy, p.clean)}:
        held = made_pairs.read_note(output)
        raise UsageError(
            f"{output}: would mix pairs of different settings, as it holds some {held}; "
            "choose another output folder."
        )


def write_note(output: Path, plan: Sequence[PlannedPair], facts: Mapping[str, object]) -> None:
    """Writes a note of how the pairs are made. Pairs of other settings are removed first, so that the note is
    true of all that is there, even if the process ends at any moment. Raises `DerainError`."""
    if made_pairs.noted(output) != {"made_by": MAKER, **facts}:
        for file in (file for pair in plan for file in (pair.rainy, pair.clean)):
            file.unlink(missing_ok=True)
    made_pairs.write_note(output, MAKER, **facts)


def write_pair(pair: PlannedPair, kinds: tuple[RainKind, ...], seed: int) -> None:
    """Makes a pair with rain of one of the kinds; writes both PNG files, each completely or not at all.

    Raises:
        DerainError: the picture cannot be read or the files cannot be written.
    """
    clean = read_rgb(pair.source)
    rng = np.random.default_rng([seed, pair.number])
    rainy, dry = make_pair(rng, clean, kinds)
    _write_png(pair.clean, dry)
    _write_png(pair.rainy, rainy)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    _, content = cv2.imencode(".png", picture[..., ::-1])
    replace_file(path, content.tobytes())
