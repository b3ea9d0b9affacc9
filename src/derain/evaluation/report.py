"""What an evaluation found: tables with published figures beside the measured ones, JSON, sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from derain.data.pairing import Pair
from derain.evaluation.baselines import Baseline, costs, published
from derain.evaluation.evaluate import RAINY, Result, ranked, restored_file
from derain.evaluation.pairs import Array
from derain.evaluation.registry import protocol
from derain.evaluation.scores import described
from derain.evaluation.sheet import Row, contact_sheet
from derain.pictures import read_picture, to_rgb8

SIDE = 256  # multiply-adds are stated for pictures of this side, as published ones are
MEASURED = "measured here"


@dataclass(frozen=True)
class Report:
    """An evaluation that is done.

    Attributes:
        dataset: as published tables call it, "" for a set of one's own.
        pairs: rainy and clean files.
        protocols: names; the sheets show the best and the worst by the first.
        results: one a contender, in the order of the tables.
        folder: where everything was written and the report goes.
        device: that the networks ran on.
        notes: what a reader must know before comparing.
    """

    dataset: str
    pairs: tuple[Pair, ...]
    protocols: tuple[str, ...]
    results: tuple[Result, ...]
    folder: Path
    device: str
    notes: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[Result, ...]:
        """The results without those of the rainy pictures themselves."""
        return tuple(result for result in self.results if result.contender.name != RAINY)


@dataclass(frozen=True)
class TableRow:
    """A line of a protocol's table.

    Attributes:
        name: of the network or published method.
        values: {measure: value}.
        parameters, multiply_adds: None where unknown; the latter for a picture of `SIDE` x `SIDE`.
        own: of a measured network: what its authors publish for it on this set, None if nothing.
        source: `MEASURED`, or where the figures were published, those of the size too.
    """

    name: str
    values: Mapping[str, float]
    parameters: int | None
    multiply_adds: float | None
    own: Baseline | None
    source: str


def table(report: Report, name: str) -> list[TableRow]:
    """Measured and published figures under one protocol, best first."""
    baselines = published(report.dataset, name)
    rows = [
        TableRow(
            name="rainy picture" if result.contender.name == RAINY else result.contender.name,
            values=result.scores(name).mean,
            parameters=result.contender.parameters,
            multiply_adds=multiply_adds(result),
            own=next((b for b in baselines if _word(b.method) == _word(result.contender.method)), None),
            source=MEASURED,
        )
        for result in report.results
    ]
    for b in baselines:
        cost = costs().get(b.method)
        rows.append(
            TableRow(
                name=b.method,
                values={"psnr": b.psnr, "ssim": b.ssim},
                parameters=cost.parameters if cost else None,
                multiply_adds=cost.multiply_adds if cost else None,
                own=None,
                source="; ".join(
                    part for part in (b.source, b.setting, f"size: {cost.source}" if cost else "") if part
                ),
            )
        )
    chosen = protocol(name)
    sign = -1 if chosen.higher_is_better else 1
    return sorted(rows, key=lambda row: sign * row.values[chosen.measures[0]])


def multiply_adds(result: Result) -> int | None:
    """Of one picture of `SIDE` x `SIDE`; None for the rainy pictures."""
    count = result.contender.multiply_adds
    return count(SIDE, SIDE) if count else None


def to_json(report: Report) -> dict[str, Any]:
    """Scores by protocol with the published ones, and what each network costs."""
    return {
        "dataset": report.dataset,
        "pairs": len(report.pairs),
        "notes": list(report.notes),
        "device": report.device,
        "torch": torch.__version__,
        "protocols": {
            name: {
                "models": {r.contender.name: r.scores(name).to_json() for r in report.results},
                "published": [
                    {
                        "method": b.method,
                        "psnr": b.psnr,
                        "ssim": b.ssim,
                        "setting": b.setting,
                        "source": b.source,
                    }
                    for b in published(report.dataset, name)
                ],
            }
            for name in report.protocols
        },
        "models": {
            r.contender.name: {
                "parameters": r.contender.parameters,
                f"multiply_adds_{SIDE}": multiply_adds(r),
                "seconds_per_picture": r.seconds,
                "megapixels_per_second": r.megapixels_per_second,
                "peak_memory_bytes": r.peak_bytes,
            }
            for r in report.networks
        },
    }


def sheet(report: Report, result: Result) -> Array:
    """The contact sheet of a network's best, median and worst picture, (H, W, 3) uint8 RGB."""
    name = report.protocols[0]
    order = ranked(result, name, report.pairs)
    places = {0: "best", len(order) - 1: "worst", (len(order) - 1) // 2: "median"}
    places[0] = "best"
    before = {
        record.name: record
        for other in report.results
        if other.contender.name == RAINY
        for record in other.records
    }
    rows = []
    for place in sorted(places):
        pair, record = order[place]
        files = (pair.restored, restored_file(report.folder, result.contender, pair), pair.clean)
        rainy, restored, clean = (to_rgb8(read_picture(file)) for file in files)
        scores = (
            f"{described(before[pair.name].scores[name])} rainy, {described(record.scores[name])} restored"
        )
        rows.append(Row(f"{places[place]}: {pair.name}, {scores}", rainy, restored, clean))
    where = f" on {report.dataset}" if report.dataset else ""
    mean = described(result.scores(name).mean)
    title = f"{result.contender.name}{where}: {mean} in the mean of {len(order)} pictures by {name}"
    return contact_sheet(title, rows)


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
