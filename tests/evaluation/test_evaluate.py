"""An evaluation: every picture once, resumed exactly, reported with published figures beside."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import derain
from derain import DerainError
from derain.evaluation import protocol
from derain.evaluation.baselines import baselines, costs, published
from derain.evaluation.candidates import (
    UNCHANGED,
    Candidate,
    candidate_of,
    finished_results,
    from_factory,
    from_network,
    from_onnx,
    input_unchanged,
)
from derain.evaluation.cases import Case, TestSet, find_cases
from derain.evaluation.evaluate import evaluate
from derain.evaluation.page import write_report
from derain.evaluation.registry import PROTOCOLS
from derain.evaluation.report import Report, repeats_of, to_json
from derain.evaluation.scoring import plan_scoring, score_files
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


def candidate(restore: Darkener, identity: str = "one") -> Candidate:
    return Candidate("darkener", restore, identity, "DRSformer", 1234, lambda h, w: h * w * 100)


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    random = np.random.default_rng(1)
    for i, size in enumerate(((24, 30), (30, 20), (16, 16), (20, 40)), 1):
        clean = random.integers(0, 200, (*size, 3), dtype=np.uint8)
        write_picture(tmp_path / f"clean/{i}.png", Picture(clean))
        rain = random.integers(0, 10 * i, clean.shape)
        write_picture(tmp_path / f"rainy/{i}.png", Picture((clean + rain).astype(np.uint8)))
    return find_cases(tmp_path / "rainy", tmp_path / "clean", protocols=NAMES).cases


def test_scores_the_output_itself_and_saves_it_as_bytes(cases: tuple[Case, ...], tmp_path: Path) -> None:
    before, after = evaluate([input_unchanged(cases), candidate(Darkener())], cases, NAMES, tmp_path / "out")
    for case, record in zip(cases, after.records, strict=True):
        rainy, clean = (read_picture(path).pixels for path in (case.rainy, case.clean))
        output = torch.from_numpy(rainy).permute(2, 0, 1)[None].float() / 255 * 0.95 + 0.003
        for name in NAMES:
            assert record.scores[name] == pytest.approx(protocol(name)(output, clean), abs=1e-12)
        saved = read_picture(tmp_path / "out/restored/darkener" / case.name).pixels
        bytes_ = np.rint(output[0].permute(1, 2, 0).double().numpy() * 255).astype(np.uint8)
        np.testing.assert_array_equal(saved, bytes_)
        assert record.seconds > 0
        assert record.cpu_seconds > 0
        assert record.peak_bytes is not None
    expected = protocol("rgb_psnr")(read_picture(cases[0].rainy).pixels, read_picture(cases[0].clean).pixels)
    assert before.records[0].scores["rgb_psnr"] == expected
    assert before.seconds is None
    assert before.peak_bytes is None


def test_truncation_is_seen_by_protocols_of_bytes_only(cases: tuple[Case, ...], tmp_path: Path) -> None:
    rounded, floored = (
        evaluate([candidate(Darkener())], cases, NAMES, tmp_path / q, quantise=q)[0]
        for q in ("round", "floor")
    )
    assert rounded.scores("rgb_psnr") == floored.scores("rgb_psnr")
    assert rounded.scores("matlab_y_uint8") != floored.scores("matlab_y_uint8")


def test_goes_on_where_it_stopped(cases: tuple[Case, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate([candidate(Darkener(fail_at=3))], cases, NAMES, out)
    with (out / "records.jsonl").open("a") as file:
        file.write('{"candidate": "dark')  # as a power cut leaves it
    second = Darkener()
    (resumed,) = evaluate([candidate(second)], cases, NAMES, out)
    assert second.calls == 2
    (whole,) = evaluate([candidate(Darkener())], cases, NAMES, tmp_path / "whole")
    assert [r.scores for r in resumed.records] == [r.scores for r in whole.records]
    idle = Darkener()
    (again,) = evaluate([candidate(idle)], cases, NAMES, out)
    assert idle.calls == 0
    assert again.records == resumed.records


def test_pictures_and_scores_are_of_the_same_run(cases: tuple[Case, ...], tmp_path: Path) -> None:
    """Where others were evaluated under the same name in between, nothing of them is taken."""
    for identity in ("one", "two", "one"):
        restore = Darkener()
        evaluate([candidate(restore, identity)], cases, NAMES, tmp_path / "out")
        assert restore.calls == len(cases)


@pytest.mark.parametrize("change", ["weights", "quantise", "protocol", "clean", "result"])
def test_what_changed_is_done_again(change: str, cases: tuple[Case, ...], tmp_path: Path) -> None:
    out, names, quantise, identity = tmp_path / "out", NAMES, "round", "one"
    evaluate([candidate(Darkener())], cases, names, out)
    expected = len(cases)
    if change == "weights":
        identity = "two"
    elif change == "quantise":
        quantise = "floor"
    elif change == "protocol":
        names = (*NAMES, "toolbox_rgb")
    elif change == "clean":
        write_picture(cases[1].clean, Picture(np.zeros((30, 20, 3), np.uint8)))
        expected = 1
    else:
        (out / "restored/darkener/3.png").unlink()
        expected = 1
    restore = Darkener()
    evaluate([candidate(restore, identity)], cases, names, out, quantise)
    assert restore.calls == expected


def test_the_rainy_pictures_are_never_touched(cases: tuple[Case, ...], tmp_path: Path) -> None:
    before = [case.rainy.read_bytes() for case in cases]
    evaluate([input_unchanged(cases)], cases, NAMES, tmp_path / "out", quantise="floor")
    assert [case.rainy.read_bytes() for case in cases] == before
    assert not (tmp_path / "out/restored").exists()


def test_failures_name_the_picture(cases: tuple[Case, ...], tmp_path: Path) -> None:
    broken = replace(candidate(Darkener()), restore=lambda rainy: rainy * float("nan"))
    with pytest.raises(DerainError, match=r"rainy/1.png: .*not finite"):
        evaluate([broken], cases, NAMES, tmp_path / "out")
    write_picture(cases[0].clean, Picture(np.zeros((9, 9, 3), np.uint8)))
    (result,) = evaluate([candidate(Darkener())], cases, NAMES, tmp_path / "out")
    assert re.search(r"rainy/1.png is 30x24 and the clean one 9x9", result.failed[0])


def report(cases: tuple[Case, ...], folder: Path, dataset: str = "Rain200L") -> Report:
    candidates = [input_unchanged(cases), candidate(Darkener())]
    test_set = TestSet(dataset, cases, NAMES, ("Only <four> pictures.",))
    results = evaluate(candidates, cases, NAMES, folder)
    return Report(test_set, results, folder, "cpu", "round", repeats_of(cases))


def test_json_says_all_that_a_table_needs(cases: tuple[Case, ...], tmp_path: Path) -> None:
    content = json.loads(json.dumps(to_json(report(cases, tmp_path / "out")), allow_nan=False))
    assert content["models"]["darkener"]["multiply_adds_256"] == 256 * 256 * 100
    scored = content["protocols"]["matlab_y_uint8"]["models"]
    assert scored["darkener"]["count"] == 4
    assert scored["darkener"]["published_for_it"]["psnr"] == 41.23
    assert scored["darkener"]["best_on"] + scored[UNCHANGED]["best_on"] == 4
    assert scored["darkener"]["better_than_input_on"] == scored["darkener"]["best_on"]
    assert scored["darkener"]["interval"] == {"psnr": None, "ssim": None}  # four pictures say nothing
    assert len(content["protocols"]["matlab_y_uint8"]["published"]) == 19
    assert content["settings"].startswith("Results rounded to 8 bits; on cpu; PyTorch ")


def test_the_page_and_the_sheet(cases: tuple[Case, ...], tmp_path: Path) -> None:
    page = write_report(report(cases, tmp_path / "out", dataset="Rain100L"))
    text = page.read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?(?!data:)[a-z]""", text)
    assert "<script" not in text
    assert "Only &lt;four&gt; pictures." in text
    assert "without a stated protocol" in text
    assert f"<td>{UNCHANGED}</td>" in text
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
        "table.csv",
        "table.html",
        "table.md",
        "table.tex",
    ]


def test_near_duplicates_in_a_set_are_named(cases: tuple[Case, ...], tmp_path: Path) -> None:
    rainy = read_picture(cases[0].rainy)
    for side, case in (("rainy", cases[0].rainy), ("clean", cases[0].clean)):
        write_picture(tmp_path / side / "5.png", Picture(read_picture(case).pixels[:, ::-1].copy()))
    assert rainy.size == (24, 30)
    more = find_cases(tmp_path / "rainy", tmp_path / "clean", protocols=NAMES).cases
    found = report(more, tmp_path / "out")
    assert found.repeats == (("5.png", "1.png"),)
    assert "5 pictures show 4 scenes: 1.png and 5.png are near-duplicates" in found.notes[-1]
    assert found.scenes(["1.png", "2.png", "5.png"]) == [0, 1, 0]
    both = report((more[0], more[-1]), tmp_path / "both")
    assert both.notes[-1] == "All 2 pictures show one scene, so there are no intervals."


def test_real_rain_without_truth(cases: tuple[Case, ...], tmp_path: Path) -> None:
    for case in cases:
        height, width = read_picture(case.rainy).size
        mask = np.zeros((height, width, 1), np.uint8)
        mask[height // 2 - 2 : height // 2 + 2, width // 2] = 255
        write_picture(tmp_path / "mask" / case.name, Picture(mask))
    found = find_cases(tmp_path / "rainy", masks=tmp_path / "mask")
    assert found.protocols == ("real_rain",)
    results = evaluate(
        [input_unchanged(found.cases), candidate(Darkener())], found.cases, found.protocols, tmp_path / "out"
    )
    assert results[0].scores("real_rain").mean == {"removed": 0, "harm": 0, "detail": 1, "brightness": 0}
    record = results[1].records[2]
    restored = read_picture(tmp_path / "out/restored/darkener" / record.name).pixels
    rainy, mask = (read_picture(tmp_path / kind / record.name).pixels for kind in ("rainy", "mask"))
    assert record.scores["real_rain"] == protocol("real_rain")(restored, rainy=rainy, mask=mask)
    write_report(Report(found, results, tmp_path / "out", "cpu", "round"))
    sheet = read_picture(tmp_path / "out/sheet-darkener.png").pixels  # rainy, restored, change
    assert sheet.shape[1] == 1920
    with pytest.raises(DerainError, match="rain masks are needed"):
        find_cases(tmp_path / "rainy", protocols=["real_rain"])
    with pytest.raises(derain.UsageError, match=r"Without clean pictures, give rain masks, or a protocol"):
        find_cases(tmp_path / "rainy")
    with pytest.raises(derain.UsageError, match=r"no such folder\.$"):
        find_cases(tmp_path / "nowhere")
    alone = find_cases(tmp_path / "rainy", protocols=["brisque_stable"])
    assert [case.clean for case in alone.cases] == [None] * 4


def test_frames_of_a_clip_know_the_frame_before(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    for i in range(3):
        clean = random.integers(0, 200, (40, 48, 3), dtype=np.uint8)
        write_picture(tmp_path / f"clean/{i}.png", Picture(clean))
        write_picture(
            tmp_path / f"rainy/{i}.png", Picture(clean + random.integers(0, 50, (40, 48, 1), np.uint8))
        )
    names = ["flicker_truth", "flicker_static", "rgb_psnr"]
    cases = find_cases(tmp_path / "rainy", tmp_path / "clean", protocols=names).cases
    _, after = evaluate([input_unchanged(cases), candidate(Darkener())], cases, names, tmp_path / "out")
    assert after.scores("rgb_psnr").count == 3
    assert [p.name for p in after.scores("flicker_truth").pictures] == ["1.png", "2.png"]
    items = plan_scoring(tmp_path / "out/restored/darkener", tmp_path / "clean", names)
    scored = {s.protocol: s for s in score_files(items, names).sets}
    for name in names[:2]:
        assert after.scores(name) == scored[name]
    idle = Darkener()
    (again,) = evaluate([candidate(idle)], cases, names, tmp_path / "out")
    assert idle.calls == 0
    assert again.records == after.records
    with pytest.raises(DerainError, match="only one picture"):
        evaluate([input_unchanged(cases)], cases[:1], names, tmp_path / "out")


def test_finished_results_of_others(cases: tuple[Case, ...], tmp_path: Path) -> None:
    for case in cases:
        write_picture(tmp_path / "theirs" / case.name, read_picture(case.clean))
    theirs = finished_results("theirs", tmp_path / "theirs", cases)
    (found,) = evaluate([theirs], cases, NAMES, tmp_path / "out")
    assert found.scores("rgb_psnr").infinite == 4
    assert not (tmp_path / "out/restored").exists()
    for name, taken in (("spanet", ["spanet"]), ("a/b", []), ("", [])):
        with pytest.raises(DerainError, match=f"results '{name}'"):
            finished_results(name, tmp_path / "theirs", cases, taken)
    (tmp_path / "theirs/3.png").unlink()
    with pytest.raises(DerainError, match=r"theirs: no result for 3.png"):
        finished_results("theirs", tmp_path / "theirs", cases)


class OfSomebody(torch.nn.Module):
    """Takes multiples of 4 only, and gives several results."""

    multiple_of = 4

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 3, 1, bias=False)
        torch.nn.init.dirac_(self.mix.weight)

    def forward(self, rainy: torch.Tensor) -> list[torch.Tensor]:
        assert rainy.shape[2] % 4 == rainy.shape[3] % 4 == 0
        return [rainy * 0, self.mix(rainy)]


def test_a_network_of_anybody(cases: tuple[Case, ...], tmp_path: Path) -> None:
    network = from_network(OfSomebody(), "theirs")
    before, after = evaluate([input_unchanged(cases), network], cases, NAMES, tmp_path / "out")
    assert after.scores("matlab_y_uint8") == before.scores("matlab_y_uint8")
    assert (network.parameters, network.multiply_adds(8, 8)) == (9, 9 * 64)
    broken = from_network(lambda rainy: rainy[..., 1:], "broken")
    with pytest.raises(DerainError, match=r"1.png: broken made \(1, 3, 24, 29\)"):
        evaluate([broken], cases, NAMES, tmp_path / "out")


def test_a_factory_of_the_users_own_code(
    cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody.py").write_text(
        "import torch\n\ndef half():\n    return lambda rainy: {'image': rainy * 0.4}\n\nseven = lambda: 7\n"
        "lost = lambda: open('weights.pth')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    found = from_factory("somebody:half")
    assert found.name == "half"
    evaluate([found], cases, NAMES, tmp_path / "out")
    saved = read_picture(tmp_path / "out/restored/half/1.png").pixels
    np.testing.assert_array_equal(saved, np.rint(read_picture(cases[0].rainy).pixels * 0.4))
    for target, words in (
        ("nobody:half", "cannot import nobody"),
        ("somebody:whole", "no function whole"),
        ("somebody:seven", "returned int, which cannot be called"),
        ("somebody:lost", "somebody:lost fails: FileNotFoundError: .*weights.pth"),
    ):
        with pytest.raises(DerainError, match=words):
            from_factory(target)


def test_files_of_one_name_are_told_apart_by_their_folders(weights: Path, tmp_path: Path) -> None:
    for run in ("short", "long"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "best.safetensors").write_bytes(weights.read_bytes())
    taken: list[str] = []
    for run in ("short", "long", "long"):
        taken.append(candidate_of(tmp_path / run / "best.safetensors", taken=taken).name)
    assert taken == ["best", "long-best", "best-2"]


def test_averages_stand_in_the_name_and_in_the_work() -> None:
    derainer = derain.load("everyday-small", device="cpu")
    plain, averaged = (candidate_of(derainer.with_settings(ensemble=ensemble)) for ensemble in (False, True))
    assert (plain.name, averaged.name) == ("everyday-small", "everyday-small+flips")
    assert averaged.multiply_adds(64, 64) == 4 * plain.multiply_adds(64, 64)
    with pytest.raises(derain.UsageError, match="both average"):
        derain.evaluate("rainy", "clean", ensemble=True, test_time=["flips"])


def test_an_onnx_file_of_anybody(cases: tuple[Case, ...], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sides = [1, 3, "height", "width"]
    shape = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)  # noqa: E731
    node = onnx.helper.make_node("Neg", ["x"], ["y"]), onnx.helper.make_node("Abs", ["y"], ["z"])
    graph = onnx.helper.make_graph(node, "same", [shape("x")], [shape("z")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "same.onnx")
    found = candidate_of(str(tmp_path / "same.onnx"))
    before, after = evaluate([input_unchanged(cases), found], cases, NAMES, tmp_path / "out")
    assert after.scores("matlab_y_uint8") == before.scores("matlab_y_uint8")
    (tmp_path / "bad.onnx").write_bytes(b"rain")
    with pytest.raises(DerainError, match=r"bad.onnx: ONNX Runtime refuses it"):
        from_onnx(tmp_path / "bad.onnx")


@pytest.mark.parametrize("count", [1, 2])
def test_a_sheet_of_few_pictures(count: int, cases: tuple[Case, ...], tmp_path: Path) -> None:
    assert write_report(report(cases[:count], tmp_path / "out", dataset="")).is_file()


def test_cpu_seconds_leave_out_what_the_first_picture_pays_for(
    cases: tuple[Case, ...], tmp_path: Path
) -> None:
    (found,) = evaluate([from_network(lambda rainy: rainy, "same")], cases[:3], NAMES, tmp_path / "out")
    records = [replace(r, cpu_seconds=s, pixels=10**6) for r, s in zip(found.records, (9, 2, 1), strict=True)]
    assert replace(found, records=tuple(records)).cpu_seconds_per_megapixel == 2


def test_published_figures() -> None:
    assert len(baselines()) > 300
    for b in baselines():
        assert b.protocol in ("", *PROTOCOLS)
        assert 10 < b.psnr < 60
        assert b.ssim is None or 0.3 < b.ssim < 1
        assert b.source
    best = published("SPA-Data", "matlab_y_uint8")[0]
    assert (best.method, best.psnr, best.ssim) == ("NeRD-Rain", 49.58, 0.9940)
    assert published("Rain100L", "matlab_y_double")[0].psnr == 37.63
    assert costs()["NeRD-Rain"].parameters == 22_893_146
    assert (costs()["BRN"].parameters, costs()["BRN"].multiply_adds) == (None, 147e9)
    assert set(costs()) <= {b.method for b in baselines()}  # spelt as in the rows that they stand beside
    newest = published("SPA-Data", "")[0]
    assert (newest.method, newest.psnr, newest.ssim) == ("SWFormer-l (2025)", 50.28, 0.9943)
    (best, unchanged, weights) = published("LHP-Rain", "")
    assert (best.method, best.psnr, best.ssim) == ("DFSSM", 33.99, 0.9322)
    assert (unchanged.method, weights.method) == (UNCHANGED, "NeRD-Rain")  # doing nothing was better


def test_a_picture_that_fails_is_in_no_figure_of_anybody(cases: tuple[Case, ...], tmp_path: Path) -> None:
    cases[1].rainy.write_bytes(cases[1].rainy.read_bytes()[:200])

    def breaks(rainy: torch.Tensor) -> torch.Tensor:
        if rainy.shape[2:] == (16, 16):
            raise RuntimeError("no such size")
        return rainy

    candidates = [input_unchanged(cases), replace(candidate(Darkener()), restore=breaks)]
    before, after = evaluate(candidates, cases, NAMES, tmp_path / "out")
    for result in (before, after):
        assert [record.name for record in result.records] == ["1.png", "4.png"]
    assert len(before.failed) == 1
    assert before.failed[0].startswith(f"{cases[1].rainy}: ")
    assert set(after.failed) == {
        *before.failed,
        f"{cases[2].rainy}: an unexpected error (RuntimeError: no such size).",
    }
    report = Report(TestSet("", cases, NAMES), (before, after), tmp_path / "out", "cpu", "round")
    write_report(report)
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert content["pictures"] == 2
    assert content["failed"] == list(report.failed)
    assert content["notes"] == ["2 of 4 pictures failed and are not in any figure."]


def test_a_protocol_that_fails_on_one_picture_is_missing_there(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for name in ("1", "2", "flat"):
        picture = random.integers(0, 200, (100, 200, 3), dtype=np.uint8) * (name != "flat")
        write_picture(tmp_path / f"rainy/{name}.png", Picture(picture.astype(np.uint8)))
    cases = find_cases(tmp_path / "rainy", protocols=("niqe_stable", "brisque_stable")).cases
    candidates = [input_unchanged(cases), candidate(Darkener())]
    before, after = evaluate(candidates, cases, ("niqe_stable", "brisque_stable"), tmp_path / "out")
    for result in (before, after):
        assert [p.name for p in result.scores("niqe_stable").pictures] == ["1.png", "2.png"]
        assert "too little texture for NIQE" in result.failed[0]
        assert len(result.records) == 3


def test_when_all_fails_the_first_error_is_raised(cases: tuple[Case, ...], tmp_path: Path) -> None:
    for case in cases:
        case.rainy.write_bytes(b"")
    with pytest.raises(DerainError, match=r"1\.png: the file is empty"):
        evaluate([input_unchanged(cases)], cases, NAMES, tmp_path / "out")
