"""Published scores and costs, as printed in their tables, to be shown beside measured ones.

`baselines.csv` holds the scores: only rows of one data set and one protocol may be compared; an empty
protocol means that its source does not state it. `costs.csv` holds parameters and multiply-adds of one
256 x 256 picture; as counting tools disagree by up to a factor of 3.7, the latter are rough.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Baseline:
    """A published score.

    Attributes:
        dataset: the data set, as printed in tables.
        protocol: the one by which it was computed; "" if its source does not say.
        psnr: PSNR in dB.
        ssim: None if it was not printed.
        setting: what is unusual about it, if anything.
        source: where it was taken from.
    """

    dataset: str
    protocol: str
    method: str
    psnr: float
    ssim: float | None
    setting: str
    source: str


@dataclass(frozen=True)
class Cost:
    """Published size and cost of a method, at 256 x 256 pixels; None for what was not printed."""

    parameters: int | None
    multiply_adds: float | None
    source: str


@functools.cache
def baselines() -> tuple[Baseline, ...]:
    """All published scores, in the order of their tables."""
    return tuple(
        Baseline(
            dataset=row["dataset"],
            protocol=row["protocol"],
            method=row["method"],
            psnr=float(row["psnr"]),
            ssim=float(row["ssim"]) if row["ssim"] else None,
            setting=row["setting"],
            source=row["source"],
        )
        for row in _rows("baselines.csv")
    )


@functools.cache
def costs() -> dict[str, Cost]:
    """Published costs by method."""
    return {
        row["method"]: Cost(
            int(row["parameters"]) if row["parameters"] else None,
            float(row["multiply_adds"]) if row["multiply_adds"] else None,
            row["source"],
        )
        for row in _rows("costs.csv")
    }


def published(dataset: str, protocol: str) -> tuple[Baseline, ...]:
    """The scores of a data set under a protocol, best PSNR first; "" if the source states none."""
    rows = (b for b in baselines() if b.dataset == dataset and b.protocol == protocol)
    return tuple(sorted(rows, key=lambda b: -b.psnr))


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("derain.evaluation") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
