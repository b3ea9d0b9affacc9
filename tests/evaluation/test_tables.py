"""One table of several evaluations, and its forms."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from derain import DerainError
from derain.evaluation.candidates import UNCHANGED, Candidate, input_unchanged
from derain.evaluation.cases import find_cases
from derain.evaluation.evaluate import evaluate
from derain.evaluation.formats import FORMATS, as_csv, as_html, as_latex, as_markdown, legend, value_text
from derain.evaluation.page import write_report
from derain.evaluation.report import Report
from derain.evaluation.tables import cost_text, make_table, read_report
from derain.pictures import Picture, write_picture

ADD = "matlab_y_uint8"


def better(name: str, share: float, identity: str = "one") -> Candidate:
    """Takes a share of the haze away that the pictures here have, in measurable memory."""

    def restore(rainy: torch.Tensor) -> torch.Tensor:
        much = torch.ones(1 << 22)
        return (rainy - much[0] * share * 20 / 255).clamp(0, 1)

    return Candidate(name, restore, identity, parameters=10**6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two evaluations, on Rain200L and on another set that shares a scene with it."""
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(1)
    written = []
    for run, dataset, names in (("a", "Rain200L", "one two"), ("b", "streets & co", "one three")):
        for i in range(6):
            clean = random.integers(0, 220, (16, 20, 3), dtype=np.uint8)
            if i == 0:
                clean[...] = np.random.default_rng(7).integers(0, 220, clean.shape)
            write_picture(folder / run / f"clean/{i}.png", Picture(clean))
            write_picture(folder / run / f"rainy/{i}.png", Picture(clean + np.uint8(20)))
        test_set = find_cases(folder / run / "rainy", folder / run / "clean", protocols=[ADD], name=dataset)
        shares = {"one": 0.9, "two": 0.5, "three": -1}
        candidates = [
            input_unchanged(test_set.cases),
            *(better(name, shares[name]) for name in names.split()),
        ]
        results = evaluate(candidates, test_set.cases, [ADD], folder / run / "out")
        write_report(Report(test_set, results, folder / run / "out", "cpu", "round"))
        written.append(folder / run / "out")
    return written


@pytest.fixture(scope="module")
def table(runs: list[Path]):
    return make_table([read_report(run) for run in runs])


def test_rows_and_columns(table) -> None:
    assert [line.name for line in table.measured] == [UNCHANGED, "one", "two", "three"]
    assert [(g.dataset, g.protocol, g.columns) for g in table.groups] == [
        ("Rain200L (6)", ADD, 3),
        ("streets & co (6)", ADD, 3),
    ]
    assert [c.title for c in table.columns[:3]] == ["PSNR dB ↑", "SSIM ↑", "best on"]
    lines = {line.name: line for line in table.lines}
    assert [cell is None for cell in lines["two"].cells] == [False] * 3 + [True] * 3
    assert [lines[name].cells[0].place for name in (UNCHANGED, "one", "two")] == [0, 1, 2]
    # Worse than doing nothing, so not the second best.
    assert [lines[name].cells[3].place for name in (UNCHANGED, "one", "three")] == [0, 1, 0]
    assert [lines[name].cells[2].value for name in (UNCHANGED, "one", "two")] == [0, 6, 0]
    low, high = lines["one"].cells[0].interval
    assert low <= lines["one"].cells[0].value <= high
    published = {line.name: line for line in table.published}
    assert published["DRSformer"].cells[0].value == 41.23
    assert published["DRSformer"].parameters == 33_700_000
    assert published["DRSformer"].source == "DRSformer, camera-ready Table 1"
    assert published["DRSformer"].cost_source == "FADformer (ECCV 2024), comparison table"
    assert lines["one"].cpu_seconds > 0


def test_shared_scenes_are_named(table) -> None:
    assert table.notes[-1] == "Rain200L and streets & co share a scene: 0.png and 0.png."


def test_a_part_of_a_set_shares_nothing_with_it(runs: list[Path]) -> None:
    whole, part = read_report(runs[0]), read_report(runs[0])
    part["dataset"], part["files"], part["pictures"] = "two of them", part["files"][:2], 2
    assert not any("share" in note for note in make_table([whole, part]).notes)


def test_one_name_for_two_networks_gets_numbers(runs: list[Path]) -> None:
    first, second = (read_report(run) for run in runs)
    second["models"]["one"]["identity"] = "other weights"
    names = [line.name for line in make_table([first, second]).measured]
    assert names == [UNCHANGED, "one", "two", "one (2)", "three"]


def test_reports_of_the_same_pictures_share_their_columns(runs: list[Path], tmp_path: Path) -> None:
    """Another day, another network: one table with the wins counted among all."""
    first = read_report(runs[0])
    test_set = find_cases(runs[0].parent / "rainy", runs[0].parent / "clean", protocols=[ADD, "rgb_psnr"])
    candidates = [input_unchanged(test_set.cases), better("late", 0.95)]
    results = evaluate(candidates, test_set.cases, test_set.protocols, tmp_path)
    write_report(Report(test_set, results, tmp_path, "cpu", "round"))
    table = make_table([first, read_report(tmp_path)])
    assert [(g.dataset, g.protocol) for g in table.groups] == [
        ("Rain200L (6)", ADD), ("Rain200L (6)", "rgb_psnr")
    ]  # fmt: skip
    assert [line.name for line in table.measured] == [UNCHANGED, "one", "two", "late"]
    assert [line.cells[2].value for line in table.measured] == [0, 0, 0, 6]
    assert [line.cells[0].place for line in table.measured] == [0, 2, 0, 1]
    assert [line.cells[3] is None for line in table.measured] == [False, True, True, False]
    assert table.published
    cut = read_report(tmp_path)
    cut["quantise"] = "floor"
    assert len(make_table([first, cut]).groups) == 3  # results of another kind of rounding stand apart


def test_sets_without_a_name_are_called_as_their_folders(runs: list[Path]) -> None:
    first, second = ({**read_report(folder), "dataset": ""} for folder in runs)
    assert make_table([first]).columns[0].dataset == "rainy"
    found = make_table([first, second])
    assert [group.dataset for group in found.groups] == ["a/rainy (6)", "b/rainy (6)"]
    part = {**first, "files": first["files"][:3], "pictures": 3}
    assert [group.dataset for group in make_table([first, part]).groups] == ["rainy (6)", "rainy (2) (3)"]


def test_settings_are_one_line_of_each_set(runs: list[Path]) -> None:
    first, second = map(read_report, runs)
    assert make_table([first, second]).settings == (first["settings"],)
    other = {**second, "settings": "Results cut off to 8 bits."}
    assert make_table([first, other]).settings == (
        f"Rain200L: {first['settings']}",
        "streets & co: Results cut off to 8 bits.",
    )
    models = {f"{name} more": {**facts, "precision": "bfloat16"} for name, facts in first["models"].items()}
    again = {**first, "torch": "9.9", "models": models, "settings": "x", "protocols": {}}
    assert make_table([first, again]).settings == (
        f"Results rounded to 8 bits; bfloat16 on cpu; PyTorch {first['torch']}, 9.9.",
    )


def test_csv_holds_every_figure(table) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    found = {(r["network"], r["set"], r["measure"]): r for r in rows}
    line = next(line for line in table.lines if line.name == "one")
    assert float(found["one", "Rain200L", "psnr"]["value"]) == line.cells[0].value
    assert float(found["one", "Rain200L", "psnr"]["low"]) == line.cells[0].interval[0]
    assert found["one", "Rain200L", "best_on"]["value"] == "6"
    assert found["DRSformer", "Rain200L", "psnr"]["source"].startswith("DRSformer, camera-ready")
    assert len(rows) == sum(cell is not None for line in table.lines for cell in line.cells)


def test_every_form_says_what_a_reader_must_know(table) -> None:
    assert set(FORMATS) == {"latex", "markdown", "csv", "html"}
    for write in (as_markdown, as_latex, as_html):
        text = write(table)
        for words in (
            "Results rounded to 8 bits",
            "PyTorch",
            "input unchanged",
            "bootstrap interval",
            "share a scene",
        ):
            assert words in text
    assert "**" in as_markdown(table)
    parts = as_html(table).split("<table>")[1:]
    assert ["Rain200L (6)" in part for part in parts] == [True, False, False]  # a set, a set, the costs
    assert [("DRSformer" in part, "peak memory" in part) for part in parts] == [
        (True, False), (False, False), (True, True)
    ]  # fmt: skip
    assert "<td>DRSformer</td>" in as_html(table)
    assert "streets &amp; co" in as_html(table)


def test_latex(table) -> None:
    text = as_latex(table)
    assert text.startswith("\\documentclass")
    assert r"streets \& co (6)" in text
    assert r"\textcolor{published}{DRSformer" in text
    widths = {
        sum(int(part.split("}")[0]) if part else 1 for part in parts)
        for line in text.splitlines()
        if line.endswith(r"\\")
        for parts in [[p.split("multicolumn{")[1] if "multicolumn{" in p else "" for p in line.split(" & ")]]
    }
    assert len(widths) == 1  # every row has as many columns
    assert text.isascii()


def test_a_wide_table_is_set_in_parts(runs: list[Path]) -> None:
    """Every figure stands in one part, in its own column."""
    sets = [(f"{run.parent.name}{i}", read_report(run)) for i in range(4) for run in runs]
    table = make_table([{**report, "dataset": name, "files": [name]} for name, report in sets])
    text = as_latex(table)
    parts = text.split(r"\begin{tabular}")[1:]
    assert len(parts) > 2
    spans = [int(span) for span in re.findall(r"multicolumn\{(\d+)\}", text)]
    assert sum(spans[::1]) == 2 * len(table.columns)  # once for the set, once for the protocol
    for part in parts:
        columns = re.match(r"\{l(r+)\}", part)
        assert columns is not None
        assert len(columns[1]) <= 12
        rows = [line for line in part.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {row.count(" & ") for row in rows} == {len(columns[1])}
    pairs = [pair for line in table.lines for pair in zip(table.columns, line.cells, strict=True)]
    values = [value_text(column, cell) for column, cell in pairs if cell]
    assert all(text.count(value) >= values.count(value) for value in set(values))


def test_legend_and_costs_say_only_what_is_there(table) -> None:
    columns = tuple(column for column in table.columns if column.measure)
    bare = replace(table, columns=columns, lines=tuple(replace(line, cells=()) for line in table.measured))
    assert legend(bare) == ""
    assert "Published rows are grey" in legend(replace(bare, lines=table.published))
    small = replace(table.lines[0], parameters=1234)
    assert cost_text(small, "parameters") == "0.0012"


def test_infinite_means(runs: list[Path]) -> None:
    report = read_report(runs[0])
    report["protocols"][ADD]["models"]["one"]["mean"]["psnr"] = None
    table = make_table([report])
    assert next(line for line in table.lines if line.name == "one").cells[0].value == math.inf
    assert r"$\infty$" in as_latex(table)
    assert "**∞**" in as_markdown(table)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"dataset": "", "pairs": 3})])
def test_a_report_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(DerainError, match="cannot be read"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DerainError, match="not a report"):
        read_report(tmp_path)
