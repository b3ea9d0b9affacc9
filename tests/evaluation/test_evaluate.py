"""An evaluation: every picture once, resumed exactly, reported with published figures beside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from derain import DerainError
from derain.data.pairing import Pair, pair_folders
from derain.evaluation import protocol
from derain.evaluation.baselines import baselines, costs, published
from derain.evaluation.evaluate import Contender, evaluate, rainy_contender
from derain.evaluation.page import write_report
from derain.evaluation.registry import PROTOCOLS
from derain.evaluation.report import Report, table, to_json
from derain.pictures import Picture, read_picture, write_picture

NAMES = ("matlab_y_uint8", "rgb_psnr")


class Darkener:
    """A restoring function that counts its calls."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, rainy: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return rainy * 0.95 + 0.003


def contender(restore: Darkener, identity: str = "one") -> Contender:
    return Contender("darkener", "DRSformer", restore, identity, 1234, lambda h, w: h * w * 100)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, ...]:
    random = np.random.default_rng(1)
    for i, size in enumerate(((24, 30), (30, 20), (16, 16), (20, 40)), 1):
        clean = random.integers(0, 200, (*size, 3), dtype=np.uint8)
        write_picture(tmp_path / f"clean/{i}.png", Picture(clean))
        rain = random.integers(0, 10 * i, clean.shape)
        write_picture(tmp_path / f"rainy/{i}.png", Picture((clean + rain).astype(np.uint8)))
    return pair_folders(tmp_path / "rainy", tmp_path / "clean")


def test_scores_the_output_itself_and_saves_it_as_bytes(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    before, after = evaluate([rainy_contender(), contender(Darkener())], pairs, NAMES, tmp_path / "out")
    for pair, record in zip(pairs, after.records, strict=True):
        rainy, clean = (read_picture(path).pixels for path in (pair.restored, pair.clean))
        output = torch.from_numpy(rainy).permute(2, 0, 1)[None].float() / 255 * 0.95 + 0.003
        for name in NAMES:
            assert record.scores[name] == pytest.approx(protocol(name)(output, clean), abs=1e-12)
        saved = read_picture(tmp_path / "out/restored/darkener" / pair.name).pixels
        bytes_ = np.rint(output[0].permute(1, 2, 0).double().numpy() * 255).astype(np.uint8)
        np.testing.assert_array_equal(saved, bytes_)
        assert record.seconds > 0
        assert record.peak_bytes > 1 << 20
    expected = protocol("rgb_psnr")(
        read_picture(pairs[0].restored).pixels, read_picture(pairs[0].clean).pixels
    )
    assert before.records[0].scores["rgb_psnr"] == pytest.approx(expected, abs=1e-4)


def test_truncation_is_seen_by_protocols_of_bytes_only(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    rounded, floored = (
        evaluate([contender(Darkener())], pairs, NAMES, tmp_path / q, quantise=q)[0]
        for q in ("round", "floor")
    )
    assert rounded.scores("rgb_psnr") == floored.scores("rgb_psnr")
    assert rounded.scores("matlab_y_uint8") != floored.scores("matlab_y_uint8")


def test_goes_on_where_it_stopped(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate([contender(Darkener(fail_at=3))], pairs, NAMES, out)
    with (out / "records.jsonl").open("a") as file:
        file.write('{"contender": "dark')  # as a power cut leaves it
    second = Darkener()
    (resumed,) = evaluate([contender(second)], pairs, NAMES, out)
    assert second.calls == 2
    (whole,) = evaluate([contender(Darkener())], pairs, NAMES, tmp_path / "whole")
    assert [r.scores for r in resumed.records] == [r.scores for r in whole.records]
    idle = Darkener()
    (again,) = evaluate([contender(idle)], pairs, NAMES, out)
    assert idle.calls == 0
    assert again.records == resumed.records


def test_pictures_and_scores_are_of_the_same_run(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    """Where others were evaluated under the same name in between, nothing of them is taken."""
    for identity in ("one", "two", "one"):
        restore = Darkener()
        evaluate([contender(restore, identity)], pairs, NAMES, tmp_path / "out")
        assert restore.calls == len(pairs)


@pytest.mark.parametrize("change", ["weights", "quantise", "protocol", "clean", "result"])
def test_what_changed_is_done_again(change: str, pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    out, names, quantise, identity = tmp_path / "out", NAMES, "round", "one"
    evaluate([contender(Darkener())], pairs, names, out)
    expected = len(pairs)
    if change == "weights":
        identity = "two"
    elif change == "quantise":
        quantise = "floor"
    elif change == "protocol":
        names = (*NAMES, "toolbox_rgb")
    elif change == "clean":
        write_picture(pairs[1].clean, Picture(np.zeros((30, 20, 3), np.uint8)))
        expected = 1
    else:
        (out / "restored/darkener/3.png").unlink()
        expected = 1
    restore = Darkener()
    evaluate([contender(restore, identity)], pairs, names, out, quantise)
    assert restore.calls == expected


def test_the_rainy_pictures_are_never_touched(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    before = [pair.restored.read_bytes() for pair in pairs]
    evaluate([rainy_contender()], pairs, NAMES, tmp_path / "out", quantise="floor")
    assert [pair.restored.read_bytes() for pair in pairs] == before
    assert not (tmp_path / "out/restored").exists()


def test_failures_name_the_picture(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    broken = replace(contender(Darkener()), restore=lambda rainy: rainy * float("nan"))
    with pytest.raises(DerainError, match=r"rainy/1.png: .*not finite"):
        evaluate([broken], pairs, NAMES, tmp_path / "out")
    write_picture(pairs[0].clean, Picture(np.zeros((9, 9, 3), np.uint8)))
    with pytest.raises(DerainError, match=r"rainy/1.png is 30x24 and .*clean/1.png 9x9"):
        evaluate([contender(Darkener())], pairs, NAMES, tmp_path / "out")


def report(pairs: tuple[Pair, ...], folder: Path, dataset: str = "Rain200L") -> Report:
    contenders = [rainy_contender(), contender(Darkener())]
    results = evaluate(contenders, pairs, NAMES, folder)
    return Report(dataset, pairs, NAMES, results, folder, "cpu", ("Only <four> pictures.",))


def test_published_rows_stand_beside_measured_ones(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    found = report(pairs, tmp_path / "out")
    rows = table(found, "matlab_y_uint8")
    assert [row.values["psnr"] for row in rows] == sorted((r.values["psnr"] for r in rows), reverse=True)
    (own,) = (row for row in rows if row.name == "darkener")
    assert (own.own.psnr, own.own.ssim) == (41.23, 0.9894)
    (official,) = (row for row in rows if row.name == "DRSformer")
    assert official.source.startswith("DRSformer, camera-ready Table 1; size: ")
    assert official.parameters == 33_700_000
    assert {row.name for row in table(found, "rgb_psnr")} == {"rainy picture", "darkener"}
    content = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert content["models"]["darkener"]["multiply_adds_256"] == 256 * 256 * 100
    assert content["protocols"]["matlab_y_uint8"]["models"]["darkener"]["count"] == 4
    assert len(content["protocols"]["matlab_y_uint8"]["published"]) == 19


def test_the_page_and_the_sheet(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    page = write_report(report(pairs, tmp_path / "out", dataset="Rain100L"))
    text = page.read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?(?!data:)[a-z]""", text)
    assert "<script" not in text
    assert "Only &lt;four&gt; pictures." in text
    assert "without a stated protocol" in text
    for name in NAMES:
        assert f"<h2>{name}</h2>" in text
    sheet = read_picture(tmp_path / "out" / "sheet-darkener.png").pixels
    assert sheet.shape[1] == 1920
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.html",
        "records.jsonl",
        "report.json",
        "restored",
        "sheet-darkener.png",
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_sheet_of_few_pictures(count: int, pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    assert write_report(report(pairs[:count], tmp_path / "out", dataset="")).is_file()


def test_published_figures() -> None:
    assert len(baselines()) > 300
    for b in baselines():
        assert b.protocol in ("", *PROTOCOLS)
        assert 10 < b.psnr < 60
        assert 0.3 < b.ssim < 1
        assert b.source
    best = published("SPA-Data", "matlab_y_uint8")[0]
    assert (best.method, best.psnr, best.ssim) == ("NeRD-Rain", 49.58, 0.9940)
    assert published("Rain100L", "matlab_y_double")[0].psnr == 37.63
    assert costs()["NeRD-Rain"].parameters == 22_893_146
