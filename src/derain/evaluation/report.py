"""The findings of an evaluation: figures with intervals and published ones beside them; JSON; sheets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from derain.cores import cores
from derain.data.duplicates import find_repeats
from derain.errors import DerainError
from derain.evaluation.baselines import Baseline, costs, published
from derain.evaluation.candidates import UNCHANGED
from derain.evaluation.cases import Case, TestSet
from derain.evaluation.evaluate import Result, ranked, restored_file
from derain.evaluation.levels import Array
from derain.evaluation.measures import described
from derain.evaluation.registry import protocol
from derain.evaluation.sheet import Row, contact_sheet
from derain.evaluation.statistics import bootstrap_interval
from derain.notes import join_notes
from derain.paths import real
from derain.pictures import read_picture, to_rgb8

SIDE = 256  # multiply-adds are stated for pictures of this side, as published ones are


@dataclass(frozen=True)
class Report:
    """A finished evaluation.

    Attributes:
        test_set: the pictures, and the protocols; the sheets show the best and the worst by the first.
        results: one per candidate, *input unchanged* first.
        folder: where everything was written, and where the report is written.
        device: the device on which the networks ran.
        quantise: how results became bytes.
        repeats: pairs (name, name of the earlier case of the same scene).
    """

    test_set: TestSet
    results: tuple[Result, ...]
    folder: Path
    device: str
    quantise: str
    repeats: tuple[tuple[str, str], ...] = ()

    @property
    def dataset(self) -> str:
        return self.test_set.dataset

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases that all candidates have a record of."""
        kept = {record.name for record in self.results[0].records}
        return tuple(case for case in self.test_set.cases if case.name in kept)

    @property
    def failed(self) -> tuple[str, ...]:
        """Why pictures, or single protocols on them, are missing from all figures."""
        return tuple(dict.fromkeys(message for result in self.results for message in result.failed))

    @property
    def protocols(self) -> tuple[str, ...]:
        return self.test_set.protocols

    @property
    def networks(self) -> tuple[Result, ...]:
        """The results, without that of the unchanged input."""
        return tuple(result for result in self.results if result.candidate.name != UNCHANGED)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before comparing."""
        notes = self.test_set.notes
        left = len(self.test_set.cases) - len(self.cases)
        if left:
            notes = (*notes, f"{left} of {left + len(self.cases)} pictures failed and are not in any figure.")
        if not self.repeats:
            return notes
        count = len(self.cases) - len(self.repeats)
        if count == 1:
            return (*notes, f"All {len(self.cases)} pictures show one scene, so there are no intervals.")
        shown = ", ".join(f"{b} and {a}" for a, b in self.repeats[:8])
        more = f" and {len(self.repeats) - 8} more" if len(self.repeats) > 8 else ""
        repeated = f"{len(self.cases)} pictures show {count} scenes: {shown}{more} are near-duplicates."
        return (*notes, f"{repeated} Intervals count scenes.")

    @property
    def title(self) -> str:
        """The name of the set on pages."""
        return self.dataset or folder_of([str(real(case.rainy)) for case in self.cases]).name or "unnamed set"

    @property
    def settings(self) -> str:
        """How everything was computed, in one line."""
        precisions = [result.candidate.precision for result in self.networks]
        return in_one_line(self.quantise, precisions, self.device, torch.__version__)

    def scenes(self, names: Sequence[str]) -> list[int]:
        """The scene number of each of the named cases."""
        first = dict(self.repeats)
        order = {case.name: i for i, case in enumerate(self.cases)}
        return [order[first.get(name, name)] for name in names]

    def intervals(self, result: Result, name: str) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the means under a protocol, over scenes."""
        pictures = result.scores(name).pictures
        scenes = self.scenes([p.name for p in pictures])
        return {
            m: bootstrap_interval([p.values[m] for p in pictures], scenes) for m in protocol(name).measures
        }

    def wins(self, name: str) -> dict[str, int]:
        """On how many pictures each candidate is the best by a protocol's first measure; ties count."""
        distance = protocol(name).distance
        return best_on(
            {r.candidate.name: [distance(p.values) for p in r.scores(name).pictures] for r in self.results}
        )

    def better_than_input(self, result: Result, name: str) -> int:
        """The number of pictures on which a candidate beats the unchanged input, by the first measure."""
        distance, before = protocol(name).distance, self.results[0]
        both = zip(result.scores(name).pictures, before.scores(name).pictures, strict=True)
        return sum(distance(a.values) < distance(b.values) for a, b in both)


def in_one_line(quantise: str, precisions: Iterable[str], device: str, versions: str) -> str:
    """How figures were computed.

    Args:
        quantise: how results became bytes: "round" or "floor".
        precisions: the precisions of the networks; "" for results of other programs.
        device, versions: the device on which they ran, and the version of PyTorch; several are separated by
            commas.
    """
    how = {"round": "rounded", "floor": "cut off"}[quantise]
    known = dict.fromkeys(precision for precision in precisions if precision)
    where = [", ".join(known), f"on {device}"] if device else []
    parts = [f"Results {how} to 8 bits", " ".join(where).strip(), f"PyTorch {versions}"]
    return join_notes(*parts) + "."


def folder_of(files: Sequence[str]) -> Path:
    """The folder that holds all of the files."""
    return Path(os.path.commonpath([Path(file).parent for file in files]))


def best_on(distances: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """The number of pictures on which each candidate is closest to the ideal; ties count for all."""
    best = [min(values) for values in zip(*distances.values(), strict=True)]
    return {name: sum(v == b for v, b in zip(row, best, strict=True)) for name, row in distances.items()}


def repeats_of(cases: Sequence[Case]) -> tuple[tuple[str, str], ...]:
    """(name, name of the earlier case of the same scene) of near-duplicates within a set."""
    names = {case.rainy: case.name for case in cases}
    found = find_repeats([case.rainy for case in cases], cores())
    return tuple((names[d.first], names[d.second]) for d in found)


def multiply_adds(result: Result) -> int | None:
    """Those for one picture of `SIDE` x `SIDE`; None if unknown or if the network does not take that size."""
    count = result.candidate.multiply_adds
    try:
        return count(SIDE, SIDE) if count else None
    except DerainError:
        return None


def figures_for(report: Report, result: Result, name: str) -> Baseline | None:
    """What the authors of a network publish for it on this set under a protocol."""
    found = (b for b in published(report.dataset, name) if _word(b.method) == _word(result.candidate.method))
    return next(found, None)


def to_json(report: Report) -> dict[str, Any]:
    """Everything that tables need: scores, intervals, wins, costs and published figures."""
    return {
        "dataset": report.dataset,
        "pictures": len(report.cases),
        "scenes": len(report.cases) - len(report.repeats),
        "files": [str(real(case.rainy)) for case in report.cases],
        "notes": list(report.notes),
        "failed": list(report.failed),
        "settings": report.settings,
        "quantise": report.quantise,
        "device": report.device,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "protocols": {
            name: {
                "measures": list(protocol(name).measures),
                "models": {r.candidate.name: _scored(report, r, name) for r in report.results},
                "published": [_published(b) for b in published(report.dataset, name)],
            }
            for name in report.protocols
        },
        "models": {
            r.candidate.name: {
                "identity": r.candidate.identity,
                "precision": r.candidate.precision,
                "parameters": r.candidate.parameters,
                f"multiply_adds_{SIDE}": multiply_adds(r),
                "seconds_per_picture": r.seconds,
                "cpu_seconds_per_megapixel": r.cpu_seconds_per_megapixel,
                "peak_memory_bytes": r.peak_bytes,
            }
            for r in report.results
        },
    }


def _scored(report: Report, result: Result, name: str) -> dict[str, Any]:
    theirs = figures_for(report, result, name)
    return {
        **result.scores(name).to_json(),
        "interval": report.intervals(result, name),
        "best_on": report.wins(name)[result.candidate.name],
        "better_than_input_on": report.better_than_input(result, name),
        "published_for_it": None if theirs is None else _published(theirs),
    }


def _published(b: Baseline) -> dict[str, Any]:
    cost = costs().get(b.method)
    return {
        "method": b.method,
        "psnr": b.psnr,
        "ssim": b.ssim,
        "setting": b.setting,
        "source": b.source,
        "parameters": cost.parameters if cost else None,
        "multiply_adds": cost.multiply_adds if cost else None,
        "cost_source": cost.source if cost else "",
    }


def sheet(report: Report, result: Result) -> Array:
    """The contact sheet of a network's best, median and worst picture, (H, W, 3) uint8 RGB."""
    name = report.protocols[0]
    order = ranked(result, name, report.cases)
    places = {len(order) - 1: "worst", (len(order) - 1) // 2: "median"}
    places[0] = "best"  # even if there are so few that it is also the median or the worst
    before = {record.name: record for record in report.results[0].records}
    rows = []
    for place in sorted(places):
        case, record = order[place]
        files = (case.rainy, restored_file(report.folder, result.candidate, case), case.clean)
        rainy, restored, clean = (None if file is None else to_rgb8(read_picture(file)) for file in files)
        assert rainy is not None
        assert restored is not None
        scores = (
            f"{described(before[case.name].scores[name])} rainy, {described(record.scores[name])} restored"
        )
        rows.append(Row(f"{places[place]}: {case.name}, {scores}", rainy, restored, clean))
    where = f" on {report.dataset}" if report.dataset else ""
    mean = described(result.scores(name).mean)
    title = f"{result.candidate.name}{where}: {mean} in the mean of {len(order)} pictures by {name}"
    return contact_sheet(title, rows)


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
