"""The page of live pictures: its stream, its refusals, and how it looks in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import Tab, chromium
from clips import moving_scene
from derain.serve.live_page import FILES, LivePage

PART = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
RAIN = {"share": 0.0912, "contrast": 0.1, "signal": 0.02, "is_raining": True}


def plain(red: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (red, 90, 90), np.uint8)


def row(frames: float) -> dict[str, Any]:
    return {"frames_per_second": frames, "rain": RAIN if frames else None}


def ask(page: LivePage, path: str, method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(page.address.removeprefix("http://"), timeout=60)
    connection.request(method, path)
    return connection.getresponse()


def test_a_picture_is_complete_as_soon_as_it_is_shown() -> None:
    with LivePage(0) as page:
        page.show(plain(200))
        stream = ask(page, "/live.mjpg")
        assert stream.read(len(PART)) == PART
        for red in (100, 50, None):
            picture = b""
            while not picture.endswith(PART):  # which browsers wait for, and no other picture
                picture += stream.read1(1)
            with Image.open(io.BytesIO(picture.removesuffix(b"\r\n" + PART))) as shown:
                assert shown.size == (64, 48)
            if red is not None:
                page.show(plain(red))


def test_refusals_are_one_line_and_head_is_answered() -> None:
    with LivePage(0) as page:
        page.show(plain(200))
        for path in ("/", *FILES, "/live.json", "/live.jpg", "/live.mjpg"):
            head = ask(page, path, "HEAD")
            assert (head.status, head.read()) == (200, b""), path
        for method, path, status, said in (
            ("GET", "/x", 404, "/x: there is no such address; the page is at /."),
            ("POST", "/live.json", 405, "/live.json: takes GET, not POST; the page is at /."),
        ):
            answer = ask(page, path, method)
            assert (answer.status, json.load(answer)) == (status, {"error": said})


def visit(tab: Tab, page: LivePage) -> None:
    """Opens the page; it is never wholly loaded, as its picture goes on."""
    tab.call("Page.navigate", url=page.address)
    tab.event("Page.domContentEventFired")
    tab.until("document.body?.dataset.state")


def middle(tab: Tab, shot: Path) -> int:
    """How red the middle of the picture looks."""
    tab.screenshot(shot)
    box = tab.run("document.querySelector('img').getBoundingClientRect().toJSON()")
    place = (int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2))
    with Image.open(shot) as image:
        return int(image.convert("RGB").getpixel(place)[0])


@pytest.fixture
def tab(tmp_path: Path) -> Any:
    with chromium(tmp_path / "profile") as found:
        yield found


def test_a_browser_shows_the_newest_picture_and_what_is_known(tab: Tab, tmp_path: Path) -> None:
    with LivePage(0) as page:
        page.show(plain(200))
        page.tell(row(24.83))
        visit(tab, page)
        for red in (200, 20):
            page.show(plain(red))
            deadline = time.monotonic() + 60
            while abs(middle(tab, tmp_path / "shot.png") - red) > 9:
                assert time.monotonic() < deadline, "the picture never came"
        said = "document.querySelector('p').textContent"
        tab.until(f"{said} === 'Live 24.8 frames per second, rain on 9.1\u00a0% of the picture'")
        page.tell(row(0))
        tab.until(f"{said} === 'Waiting for the source '")
        assert tab.run("getComputedStyle(document.querySelector('img')).opacity") == "0.5"
        page.tell(row(12))
        tab.until("document.body.dataset.state === 'live'")
        assert tab.problems() == []
    tab.until(f"{said} === 'Ended '")


def test_the_page_speaks_the_language_of_the_browser(tab: Tab) -> None:
    with LivePage(0) as page:
        page.show(plain(200))
        page.tell(row(24.8))
        tab.call("Page.addScriptToEvaluateOnNewDocument", source="localStorage['derain-language'] = 'de'")
        visit(tab, page)
        said = "document.querySelector('p').textContent"
        tab.until(f"{said} === 'Live 24,8 Bilder pro Sekunde, Regen auf 9,1\u00a0% des Bildes'")
        assert tab.run("document.documentElement.lang") == "de"
        assert tab.run("document.querySelector('img').alt") == "Livebilder ohne ihren Regen"
        assert tab.problems() == []


def test_the_page_fits_its_window_and_follows_the_scheme(tab: Tab, tmp_path: Path) -> None:
    shots = Path(os.environ.get("DERAIN_SCREENSHOTS", tmp_path))
    with LivePage(0) as page:
        page.show(next(moving_scene(1, 1080, 1920)))
        page.tell(row(24.8))
        for width, height in ((1280, 720), (390, 844)):
            for scheme in ("light", "dark"):
                tab.size(width, height, phone=width < 500)
                tab.scheme(scheme)
                visit(tab, page)
                tab.until(
                    "document.querySelector('img').naturalWidth && document.body.dataset.state === 'live'"
                )
                assert tab.run(f"document.documentElement.scrollWidth <= {width}")
                assert tab.run(f"document.documentElement.scrollHeight <= {height}")
                red = tab.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
                assert (int(red) > 200) == (scheme == "light")
                tab.screenshot(shots / f"live-{width}-{scheme}.png")


@pytest.mark.heavy
def test_axe_finds_nothing(tab: Tab) -> None:
    with LivePage(0) as page:
        page.show(plain(200))
        page.tell(row(24.8))
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                tab.size(width, 844, phone=width < 500)
                tab.scheme(scheme)
                visit(tab, page)
                assert tab.violations() == []
    tab.until("document.body.dataset.state === 'ended'")
    assert tab.violations() == []
