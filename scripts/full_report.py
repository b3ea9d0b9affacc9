"""The bench in one go: all networks that lie here, on made rain and on real rain, as a page and a table.

    python scripts/full_report.py DATA -o OUT [--official latest.pth] [--each 5] [--precision auto]
        [--without-rain2avoid]

DATA holds the folders that `PARTS` names. What was measured with the same weights is not measured again, so a
first look at few pictures of each part costs nothing later.
Writes OUT/report.html, OUT/report.tex and OUT/report.csv, and a report of each part in OUT/parts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import derain
from derain.atomic import replace_file
from derain.evaluation.candidates import Candidate, candidate_of, input_unchanged, with_option
from derain.evaluation.cases import find_cases
from derain.evaluation.evaluate import evaluate
from derain.evaluation.formats import as_csv, as_html, as_latex
from derain.evaluation.page import as_figure, write_report
from derain.evaluation.report import Report, repeats_of, to_json
from derain.evaluation.tables import make_table
from derain.methods.self_supervision import FitOptions
from derain.restore import Settings
from derain.restore.adapting import adapt_one, learning_precision, preset, starting_point
from derain.restore.test_time import TEST_TIME

SELF_TAUGHT = "rain2avoid-quick"
SHEET_WIDTH = 1200


@dataclass(frozen=True)
class Part:
    """Pictures of one kind, and what they are scored by.

    Attributes:
        folder: below DATA, with `rainy` and, where there is one, `clean` or `mask`; or pictures alone.
        title: what tables call it; "" where the set is known by its folder.
        protocols: names.
        most: take at most so many pictures, evenly spread; None takes all.
        is_clip: of a clip, the first frames are taken, since flicker compares neighbours.
        self_taught: Rain2Avoid is measured, too, which takes half a minute to a minute a picture.
        test_time: every network is measured with flips, turns and phases, too.
    """

    folder: str
    title: str
    protocols: tuple[str, ...]
    most: int | None = None
    is_clip: bool = False
    self_taught: bool = True
    test_time: bool = False

    @property
    def name(self) -> str:
        """Of its folder in OUT/parts."""
        return self.folder + (f"-{self.most}" if self.most else "")


CLIP = ("matlab_y_uint8", "flicker_truth", "flicker_warped")
PHOTOGRAPHS = ("niqe_stable", "brisque_stable")
TRUTH = ("matlab_y_uint8", "matlab_y_double")
PARTS = (
    Part("rain100l", "", TRUTH),
    Part("ddn", "", TRUTH),
    Part("spa_masks", "SPA-Data crops, real", ("real_rain",)),
    Part("raindrop_pairs", "drops on a pane, real", ("raindrop_y",)),
    Part("internet_rain", "internet photographs, real", PHOTOGRAPHS, self_taught=False),
    Part("internet_rain", "some internet photographs, real", PHOTOGRAPHS, most=12),
    Part("clip_with_truth", "clip", CLIP, is_clip=True, self_taught=False),
    Part("clip_with_truth", "start of the clip", CLIP, most=12, is_clip=True),
    Part("rain100l", "three of Rain100L", ("matlab_y_uint8",), most=3, self_taught=False, test_time=True),
    Part(
        "spa_masks",
        "three crops of SPA-Data, real",
        ("real_rain",),
        most=3,
        self_taught=False,
        test_time=True,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--official", type=Path, help="the published weights of SPANet, latest.pth")
    parser.add_argument("--each", type=int, metavar="N", help="at most N pictures of each part")
    parser.add_argument("--precision", default="float32", help="of the networks, as for derain run")
    parser.add_argument(
        "--without-rain2avoid", action="store_true", help="leave out what takes longest by far"
    )
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # what CPU seconds mean depends on it
    reports = []
    for part in PARTS:
        candidates = list(networks(part, options.official, options.precision))
        if part.self_taught and not options.without_rain2avoid:
            candidates.append(self_taught())
        report = measure(part, options.data, options.output / "parts", candidates, options.each)
        reports.append(report)
        print(f"{part.name}: {len(report.cases)} pictures", flush=True)
    table = make_table([to_json(report) for report in reports])
    sheets = "".join(map(section, reports))
    title = "Rain removal: made rain, real rain, clips"
    replace_file(options.output / "report.html", as_html(table, title, sheets).encode())
    replace_file(options.output / "report.tex", as_latex(table).encode())
    replace_file(options.output / "report.csv", as_csv(table).encode())


def networks(part: Part, official: Path | None, precision: str) -> Iterator[Candidate]:
    """The bundled weights and the published ones of SPANet."""
    settings = Settings("cpu", precision)
    found = [candidate_of(name, settings) for name in derain.list_models(pretrained=True)]
    if official is not None:
        found.append(replace(candidate_of(official, settings), name="spanet-published"))
    for candidate in found:
        yield candidate
        if part.test_time:
            yield from (with_option(candidate, option) for option in TEST_TIME)


def self_taught() -> Candidate:
    """What Rain2Avoid's quick preset makes of each picture, as `derain adapt` does it."""
    way, cpu = preset("quick"), torch.device("cpu")
    start = starting_point(way)
    precision = learning_precision("auto", start, way, cpu)
    name = str(precision).removeprefix("torch.")

    def restore(rainy: Tensor) -> Tensor:
        return adapt_one(rainy, start.network(), way, FitOptions(precision=precision)).image

    return Candidate(SELF_TAUGHT, restore, f"quick, 2, {name}", precision=name)


def measure(
    part: Part, data: Path, output: Path, candidates: Sequence[Candidate], each: int | None
) -> Report:
    """Restores and scores a part; what earlier runs did is taken from there."""
    source = data / part.folder
    rainy, clean, masks = (source / name for name in ("rainy", "clean", "mask"))
    whole = find_cases(
        rainy if rainy.is_dir() else source,
        clean if clean.is_dir() else None,
        masks if masks.is_dir() else None,
        part.protocols,
        part.title,
    )
    count = min(part.most or len(whole.cases), each or len(whole.cases))
    step = 1 if part.is_clip else -(-len(whole.cases) // count)
    cases = whole.cases[::step][:count]
    few = f"{len(cases)} of the {len(whole.cases)} pictures that lie here."
    # Notes on published figures count the whole set; under a title of its own a part has no such figures.
    notes = whole.notes if len(cases) == len(whole.cases) else (few,) if part.title else (few, *whole.notes)
    test_set = replace(whole, cases=cases, notes=notes)
    folder = output / part.name
    found = evaluate([input_unchanged(cases), *candidates], cases, part.protocols, folder)
    report = Report(test_set, found, folder, "cpu", "round", repeats_of(cases))
    write_report(report)
    return report


def section(report: Report) -> str:
    """The best, median and worst picture of every network, for the page."""
    shown = []
    for result in report.networks:
        with Image.open(report.folder / f"sheet-{result.candidate.name}.png") as sheet:
            sheet.thumbnail((SHEET_WIDTH, 4 * SHEET_WIDTH))
            shown.append(as_figure(f"{result.candidate.name}, {report.folder.name}", np.asarray(sheet)))
    return f"<h2>{report.dataset}</h2>{''.join(shown)}"


if __name__ == "__main__":
    main()
