"""The page of blind choices: its trials, and a person at it, in a real browser."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from browser import Tab, chromium
from command_line import derain
from derain import DerainError
from derain.evaluation.blind import comparison_page, make_trials
from derain.pictures import Picture, write_picture

LEFT, RIGHT, DOWN, BACK = ("ArrowLeft", 37), ("ArrowRight", 39), ("ArrowDown", 40), ("Backspace", 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ten pictures of two results; they differ in one corner only."""
    root = tmp_path_factory.mktemp("results")
    random = np.random.default_rng(0)
    for i in range(10):
        rainy = random.integers(0, 200, (60, 80, 3), dtype=np.uint8)
        for name, change in (("ours", 40), ("<theirs>", 20), ("rainy", 0)):
            pixels = rainy.copy()
            pixels[40:, 60:] += np.uint8(change)
            write_picture(root / name / f"{i}.png", Picture(pixels))
    return {name: root / name for name in ("ours", "<theirs>", "rainy")}


def trials_of(page: str) -> list[dict]:
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    return json.loads(data[1])["trials"]


def test_every_two_results_meet_equally_often() -> None:
    pictures = [str(i) for i in range(12)]
    trials = make_trials(pictures, 3, 30, seed=1)
    assert trials == make_trials(pictures, 3, 30, seed=1) != make_trials(pictures, 3, 30, seed=2)
    meetings = Counter(frozenset((t.left, t.right)) for t in trials)
    assert set(meetings.values()) == {10}
    assert len({(t.picture, frozenset((t.left, t.right))) for t in trials}) == 30
    sides = [t.left < t.right for t in make_trials([str(i) for i in range(400)], 2, 400, seed=3)]
    assert 150 < sum(sides) < 250
    assert len(make_trials(pictures, 3, 999, seed=1)) == 36


def test_crops_are_where_results_differ(folders: dict[str, Path]) -> None:
    import base64
    import io

    from PIL import Image

    page = comparison_page(
        {n: folders[n] for n in ("ours", "<theirs>")}, folders["rainy"], side=20, count=4
    ).html
    assert len(trials_of(page)) == 4
    for trial in trials_of(page):
        crops = [
            np.array(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2])))).astype(int)
            for image in trial["images"]
        ]
        left, right, rainy = crops
        assert (np.abs(left - right) == 20).all()
        assert (left - rainy == (40 if trial["left"] == 0 else 20)).all()


def test_the_page_leads_nowhere(folders: dict[str, Path]) -> None:
    page = comparison_page({name: folders[name] for name in ("ours", "<theirs>")}, count=2).html
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?(?!data:)https?:""", page)
    assert "<theirs>" not in page  # in JSON, it is \u003ctheirs>


def test_refusals(folders: dict[str, Path], tmp_path: Path) -> None:
    write_picture(tmp_path / "other/z.png", Picture(np.zeros((9, 9, 3), np.uint8)))
    write_picture(tmp_path / "small/3.png", Picture(np.zeros((9, 9, 3), np.uint8)))
    for results, words in (
        ({"a": folders["ours"]}, "two or more folders"),
        ({"a": folders["ours"], "b": tmp_path / "other"}, "no picture is in all of"),
        ({"a": folders["ours"], "b": tmp_path / "small"}, "3.png is 9x9 and|80x60 and .*3.png 9x9"),
    ):
        with pytest.raises(DerainError, match=words):
            comparison_page(results)


def test_the_page_has_all_but_the_broken_pictures(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folders["<theirs>"], other)
    (other / "3.png").write_bytes(b"no picture")
    write_picture(other / "5.png", Picture(np.zeros((9, 9, 3), np.uint8)))
    done = derain("compare", folders["ours"], other, "-o", tmp_path / "look.html")
    assert done.returncode == 1
    told = done.stderr.strip().splitlines()
    assert sorted(line.rpartition("/")[2][:5] for line in told) == ["3.png", "5.png"]
    shown = {trial["picture"] for trial in trials_of((tmp_path / "look.html").read_text())}
    assert len(shown) == 8


def shown(tab: Tab) -> list[str]:
    return tab.run("[...document.querySelectorAll('figcaption')].map((c) => c.textContent)")


def test_twenty_choices_interrupted_and_resumed(folders: dict[str, Path], tmp_path: Path) -> None:
    """By keyboard alone: the person prefers ours, says "no difference" twice, and takes one choice back."""
    page = tmp_path / "look.html"
    third = tmp_path / "third"
    for i in range(10):
        write_picture(third / f"{i}.png", Picture(np.zeros((60, 80, 3), np.uint8)))
    done = derain(
        "compare", f"ours={folders['ours']}", f"<theirs>={folders['<theirs>']}", third, "--blind",
        "--rainy", folders["rainy"], "--count", "20", "--crop", "32", "-o", page,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = derain("compare", folders["ours"], third, "-o", page)
    assert (again.returncode, "--overwrite" in again.stderr) == (2, True)
    trials = trials_of(page.read_text())
    assert len(trials) == 20
    choices = []  # 1: left, -1: right, 0: no difference
    with chromium(tmp_path / "browser") as tab:
        tab.open(page.as_uri())
        for number, trial in enumerate(trials):
            assert shown(tab) == ["left", "rainy", "right"]
            if number == 7:
                tab.press(*RIGHT)
                tab.until("document.body.dataset.done === '8'")
                tab.press(*BACK)
                tab.until("document.body.dataset.done === '7'")
            if number == 12:  # the page is closed and opened again
                tab.open("about:blank")
                tab.open(page.as_uri())
                assert tab.run("document.getElementById('progress').textContent") == "Choice 13 of 20"
            choice = 0 if number in (3, 15) else 1 if trial["left"] < trial["right"] else -1
            choices.append(choice)
            tab.press(*{1: LEFT, -1: RIGHT, 0: DOWN}[choice])
            tab.until(f"document.body.dataset.done === '{number + 1}'")
        assert tab.run("document.getElementById('progress').textContent") == "All 20 choices are made."
        rows = tab.run(
            "[...document.querySelectorAll('#result tr')].map((r) => [...r.cells].map((c) => c.textContent))"
        )
        kept = json.loads(tab.run("localStorage.getItem(place)"))
        assert tab.run("saved()") == json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
        tab.run("localStorage.clear()")
        tab.open(page.as_uri())
        assert tab.run("document.getElementById('progress').textContent") == "Choice 1 of 20"
        saved = tmp_path / "choices.json"
        saved.write_text(json.dumps(kept))
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        node = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(saved)])
        tab.until("document.body.dataset.done === '20'")
        assert tab.problems() == []
    assert kept["choices"] == choices
    results = {row[0]: row[1:] for row in rows[1:4]}
    assert list(results) == ["ours", "<theirs>", "third"]
    for place, name in enumerate(results):
        mine = [c if t["left"] == place else -c for c, t in zip(choices, trials, strict=True)
                if place in (t["left"], t["right"])]  # fmt: skip
        wins, ties = mine.count(1), mine.count(0)
        points = wins + ties / 2
        ends = (f"{100 * end:.1f} %" for end in binomial_interval(points, len(mine)))
        expected = [str(wins), str(ties), str(mine.count(-1)), f"{100 * points / len(mine):.1f} %"]
        assert results[name] == [*expected, " to ".join(ends)]
    pairs = [f"{a} against {b}" for a, b in itertools.combinations(results, 2)]
    assert [row[0] for row in rows[5:]] == pairs


def binomial_interval(wins: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, as the page computes it: JASA 22, 1927; (0, 1) for a total of 0."""
    if not total:
        return 0.0, 1.0
    z = 1.959963984540054
    share, scale = wins / total, 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def test_binomial_interval() -> None:
    """Published values of Wilson's interval, and how often it covers, summed over all outcomes."""
    assert binomial_interval(0, 0) == (0, 1)
    assert binomial_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert binomial_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert binomial_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    for share in (0.3, 0.5, 0.8):
        coverage = sum(
            math.comb(40, k) * share**k * (1 - share) ** (40 - k)
            for k in range(41)
            if binomial_interval(k, 40)[0] <= share <= binomial_interval(k, 40)[1]
        )
        assert 0.92 <= coverage <= 0.98
