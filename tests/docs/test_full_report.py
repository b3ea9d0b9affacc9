"""The script that measures everything at hand: on three small parts, twice."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from derain.pictures import Picture, write_picture
from docs.script import script


def test_one_page_and_one_table_and_nothing_is_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("full_report")
    kept = [p for p in module.PARTS if p.folder in ("rain100l", "clip_with_truth", "spa_masks")]
    monkeypatch.setattr(module, "PARTS", tuple(p for p in kept if not p.most))
    data, output, random = tmp_path / "data", tmp_path / "out", np.random.default_rng(0)
    for folder, other in (("rain100l", "clean"), ("clip_with_truth", "clean"), ("spa_masks", "mask")):
        for number in range(3):
            clean = random.integers(20, 200, (32, 40, 3), np.uint8)
            streaks = random.random((32, 40, 1)) > 0.9
            write_picture(data / folder / "rainy" / f"{number}.png", Picture(clean + np.uint8(50) * streaks))
            second = streaks.astype(np.uint8) * 255 if other == "mask" else clean
            write_picture(data / folder / other / f"{number}.png", Picture(second))
    options = ["--each", "2", "--without-rain2avoid"]
    monkeypatch.setattr(sys, "argv", ["full_report.py", str(data), "-o", str(output), *options])
    module.main()
    page = (output / "report.html").read_text()
    assert page.count("<img alt=") == 3 * len(module.derain.list_models(pretrained=True))
    assert "2 of the 3 pictures" in page
    assert "PReNet" in page  # a published row
    assert (output / "report.tex").read_text().count(r"\begin{tabular}") >= 2
    lines = (output / "report.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines} >= {"input unchanged", "everyday", "spanet"}
    records = sorted((output / "parts").glob("*/records.jsonl"))
    before = [file.read_text() for file in records]
    module.main()
    assert [file.read_text() for file in records] == before
