"""`derain score`, `derain evaluate` and `derain data check` as a researcher uses them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from command_line import derain, derain_here
from derain.evaluation import matlab_y_double, matlab_y_uint8
from derain.pictures import Picture, read_picture, write_picture


@pytest.fixture(scope="module")
def rain100l(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs in the layout of Rain100L."""
    root = tmp_path_factory.mktemp("sets") / "Rain100L" / "test"
    random = np.random.default_rng(7)
    for i in (1, 2, 3, 10):
        clean = random.integers(0, 256, (40, 48, 3)).astype(np.uint8)
        write_picture(root / f"clean/{i}.png", Picture(clean))
        rainy = np.clip(clean + random.normal(4 * i, 8, clean.shape), 0, 255)
        write_picture(root / f"rainy/{i}.png", Picture(rainy.astype(np.uint8)))
    return root


def test_score_as_json_csv_and_table(rain100l: Path) -> None:
    sides = (rain100l / "rainy", rain100l / "clean")
    both = ("--protocol", "matlab_y_uint8", "--protocol", "matlab_y_double")
    done = derain("score", *sides, *both, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert list(content) == ["protocols"]
    for function in (matlab_y_uint8, matlab_y_double):
        found = content["protocols"][function.__name__]
        assert list(found) == ["pictures", "mean", "count", "infinite"]
        assert [p["name"] for p in found["pictures"]] == ["1.png", "2.png", "3.png", "10.png"]
        values = [
            function(*(read_picture(side / p["name"]).pixels for side in sides)) for p in found["pictures"]
        ]
        assert [(p["psnr"], p["ssim"]) for p in found["pictures"]] == values
        assert found["mean"]["psnr"] == pytest.approx(np.mean([v.psnr for v in values]), abs=1e-12)
    rows = list(csv.DictReader(io.StringIO(derain_here("score", *sides, *both, "--csv").stdout)))
    assert len(rows) == 8
    assert float(rows[0]["psnr"]) == content["protocols"]["matlab_y_uint8"]["pictures"][0]["psnr"]
    table = derain_here("score", *sides, *both).stdout
    for name, found in content["protocols"].items():
        assert name in table
        assert f"{found['mean']['psnr']:.2f}" in table


def test_score_equal_folders_is_valid_json(rain100l: Path) -> None:
    done = derain_here("score", rain100l / "clean", rain100l / "clean", "-p", "rgb_psnr", "--json")
    content = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["protocols"]["rgb_psnr"]["infinite"] == 4
    assert content["protocols"]["rgb_psnr"]["mean"] == {"psnr": None}
    assert "all pictures equal" in derain_here("score", *2 * [rain100l / "clean"], "-p", "rgb_psnr").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{rainy}", "{clean}"], 2, "no protocol is named"),
        (["{rainy}", "{clean}", "-p", "matlab_y"], 2, "Did you mean 'matlab_y_"),
        (["{rainy}", "-p", "toolbox_y"], 2, "compares with clean pictures"),
        (["{rainy}", "{nowhere}", "-p", "toolbox_y"], 2, "no such file or folder"),
        (["{rainy}", "{clean}", "-p", "toolbox_y", "--csv", "--json"], 2, "cannot be combined"),
        (["{rainy}/1.png", "-p", "niqe_stable"], 1, "1.png: the picture is 48x40"),
    ],
)
def test_wrong_requests_are_one_line(arguments: list[str], code: int, words: str, rain100l: Path) -> None:
    places = {"rainy": rain100l / "rainy", "clean": rain100l / "clean", "nowhere": rain100l / "nowhere"}
    done = derain_here("score", *(a.format(**places) for a in arguments))
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_report_as_json_is_not_combined_with_tables(rain100l: Path, tmp_path: Path) -> None:
    for others in (["--table", "latex"], ["--with", tmp_path]):
        done = derain_here("evaluate", rain100l, "--json", *others, "-o", tmp_path / "report")
        assert done.returncode == 2
        assert "cannot be combined" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_the_list_of_protocols() -> None:
    done = derain_here("score", "--list")
    assert done.returncode == 0
    assert {"matlab_y_uint8", "zero_pad_rgb", "niqe_stable"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }


def test_evaluate_a_public_set_and_go_on(rain100l: Path, weights: Path, tmp_path: Path) -> None:
    command = ("evaluate", rain100l, "-m", weights, "-o", tmp_path / "report")
    first = derain(*command)
    assert first.returncode == 0, first.stderr
    assert "matlab_y_double, Rain100L (4)" in first.stdout
    assert "PReNet, README" in first.stdout
    assert "published figures are means over the 100 of the test set" in " ".join(first.stdout.split())
    second = derain_here(*command, "--json")
    content = json.loads(second.stdout)
    assert content == json.loads((tmp_path / "report" / "report.json").read_text())
    assert len((tmp_path / "report" / "records.jsonl").read_text().splitlines()) == 8
    restored = tmp_path / "report" / "restored" / "tiny"
    scored = json.loads(
        derain("score", restored, rain100l / "clean", "-p", "matlab_y_double", "--json").stdout
    )
    found = content["protocols"]["matlab_y_double"]["models"]["tiny"]
    assert found["mean"] == pytest.approx(scored["protocols"]["matlab_y_double"]["mean"], abs=1e-12)


def test_tables_of_several_runs(rain100l: Path, weights: Path, tmp_path: Path) -> None:
    """Results of others, masks instead of truth, and an earlier report in one LaTeX table."""
    for case in (1, 2, 3, 10):
        mask = np.zeros((40, 48, 1), np.uint8)
        mask[10:14, 20] = 255
        write_picture(tmp_path / f"masks/{case}.png", Picture(mask))
    theirs = ("--results", f"theirs={rain100l / 'clean'}")
    done = derain_here("evaluate", rain100l, *theirs, "-o", tmp_path / "one", "--table", "csv")
    assert done.returncode == 0, done.stderr
    assert "theirs,Rain100L,4,matlab_y_double,psnr,inf" in done.stdout
    done = derain_here(
        "evaluate", rain100l / "rainy", "--masks", tmp_path / "masks", "-m", weights, "--name", "street",
        "-o", tmp_path / "two", "--with", tmp_path / "one", "--table", "latex",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two/table.tex").read_text() == done.stdout
    for words in ("Rain100L (4)", "street (4)", "rain removed", "theirs", "tiny", "input unchanged"):
        assert words in done.stdout
    refused = derain_here("evaluate", rain100l, *theirs, "-o", tmp_path / "three", "--table", "word")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "unknown table format 'word'" in refused.stderr
    assert not (tmp_path / "three").exists()


def test_a_report_shows_the_latest_command_under_names_of_ones_own(
    rain100l: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a=b.safetensors"  # a file, not the name a
    odd.write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    done = derain_here(
        "evaluate", rain100l, "-m", f"ours={weights}", "-m", odd.name, "-o", "report", "--ensemble"
    )
    assert done.returncode == 0, done.stderr
    report = tmp_path / "report"
    (report / "sheet-music.png").write_bytes(b"mine")
    sheets = sorted(path.name for path in report.glob("sheet-*"))
    assert sheets == ["sheet-a=b+flips.png", "sheet-music.png", "sheet-ours+flips.png"]
    assert "ours+flips" in (report / "table.tex").read_text()
    done = derain_here("evaluate", rain100l, "-m", f"other={weights}", "-o", "report")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in report.glob("sheet-*")) == ["sheet-music.png", "sheet-other.png"]
    for form in ("tex", "md", "csv", "html"):
        text = (report / f"table.{form}").read_text()
        assert "other" in text
        assert "ours" not in text
    (tmp_path / "mine.py").write_text("def make():\n    return lambda rainy: 0.5 * rainy\n")
    for model, words in (
        ("mine", "mine: is Python code; name its function that makes the network, as mine:FUNCTION"),
        ("mine.py", "as mine:FUNCTION"),
        ("x/y=mine:make", "model 'x/y': cannot be a file name"),
        (f"one={weights}", "model 'one': another row has that name"),
    ):
        refused = derain_here("evaluate", rain100l, "-m", "one=mine:make", "-m", model, "-o", "none")
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


def test_evaluate_refuses_in_one_line(rain100l: Path, weights: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a/rainy/1.png", Picture(np.zeros((20, 20, 3), np.uint8)))
    write_picture(tmp_path / "a/clean/2.png", Picture(np.zeros((20, 20, 3), np.uint8)))
    for arguments, words in (
        ((tmp_path / "a", "-p", "rgb_psnr"), "1.png: no picture of its name"),
        ((rain100l, "-p", "psnr"), "unknown protocol"),
        ((rain100l, "--quantise", "ceil"), "unknown way to quantise 'ceil'. Known: floor, round."),
        ((tmp_path / "none",), "no such folder"),
        ((rain100l / "rainy", rain100l / "none"), "no such file or folder"),
    ):
        done = derain_here("evaluate", *arguments, "-m", weights, "-o", tmp_path / "out")
        assert done.returncode in (1, 2)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_check(rain100l: Path) -> None:
    done = derain_here("data", "check", rain100l)
    assert done.returncode == 1
    assert "Rain100L test: 4 pairs" in done.stdout
    assert "WRONG  4 pairs instead of 100" in done.stdout
    assert "https://" in done.stdout
    content = json.loads(derain_here("data", "check", rain100l, "--json").stdout)
    assert content["splits"][0]["problems"] == ["4 pairs instead of 100"]
    same = derain_here("data", "check", rain100l / "clean", "--against", rain100l)
    assert same.returncode == 1
    assert "4 scenes in both" in same.stdout
