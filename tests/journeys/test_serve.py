"""`derain serve` as people meet it: the command, and the page in a real browser."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from browser import Tab, chromium
from clips import moving_scene, write_clip
from command_line import derain, environment
from derain.pictures import Picture, encode_picture, write_picture
from derain.serve.limits import Limits
from serving import as_command, ended, events, in_thread, submit, until


def rainy_picture(height: int, width: int) -> Picture:
    """A smooth scene with bright streaks."""
    scene = next(moving_scene(1, height, width)).copy()
    for start in np.random.default_rng(1).integers(0, height * width, 60):
        y, x = divmod(int(start), width)
        for step in range(min(14, height - y, width - x)):
            scene[y + step, x + step // 4] = np.minimum(scene[y + step, x + step // 4] + 90, 255)
    return Picture(scene)


def some_of_every_kind(folder: Path) -> list[Path]:
    """Pictures that carry something to lose, and clips."""
    rng = np.random.default_rng(2)
    write_picture(folder / "deep.png", Picture(rng.integers(0, 65536, (20, 30, 3), np.uint16)))
    write_picture(folder / "grey.tif", Picture(rng.integers(0, 256, (20, 30, 1), np.uint8)))
    glass = Picture(rng.integers(0, 256, (20, 30, 3), np.uint8), rng.integers(0, 256, (20, 30), np.uint8))
    write_picture(folder / "glass ü.webp", glass)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.fromarray(rainy_picture(24, 40).pixels)
    photo.save(folder / "turned.JPG", exif=exif, icc_profile=profile, quality=95)
    frames = list(moving_scene(5, 32, 48))
    write_clip(folder / "clip.mp4", frames, audio="aac")
    write_clip(folder / "steps.gif", frames, codec="gif", pixel_format="rgb8")
    return sorted(folder.iterdir())


def test_results_are_those_of_derain_run(tmp_path: Path) -> None:
    (tmp_path / "rainy").mkdir()
    sources = some_of_every_kind(tmp_path / "rainy")
    done = derain("run", *sources, "-o", tmp_path / "dry", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    with as_command(tmp_path) as address, httpx.Client(base_url=address, timeout=120) as client:
        for source in sources:
            job = submit(client, source.name, source.read_bytes())
            view = ended(client, job)
            assert view["state"] == "done", view
            assert view["result"] == f"{source.stem}-derained{source.suffix}"
            result = client.get(f"/api/jobs/{job}/result").content
            assert result == (tmp_path / "dry" / source.name).read_bytes(), source.name
    assert not list(tmp_path.glob("derain-serve-*"))


def test_the_command(tmp_path: Path) -> None:
    told = derain("serve", "--help")
    assert told.returncode == 0
    assert "Example: derain serve" in " ".join(told.stdout.split())
    open_to_all = derain("serve", "--host", "0.0.0.0")
    assert open_to_all.returncode == 2
    assert open_to_all.stderr.startswith("derain: 0.0.0.0 is open to other machines, so it needs a token")
    assert len(open_to_all.stderr.splitlines()) == 1
    with as_command(tmp_path, stop=signal.SIGTERM) as address:
        port = address.rpartition(":")[2]
        taken = derain("serve", "--port", port)
        assert taken.returncode == 1
        assert taken.stderr == (
            f"derain: cannot listen on 127.0.0.1:{port} (another program uses this port). "
            "To use any free port, give --port 0.\n"
        )
        # Stopped in the middle of a job that someone follows.
        write_picture(tmp_path / "large.png", Picture(np.full((1500, 1500, 3), 90, np.uint8)))
        client = httpx.Client(base_url=address, timeout=120)
        job = submit(client, "large.png", (tmp_path / "large.png").read_bytes(), model="spanet")
        for _, view in events(client, job):
            if view["state"] == "running":
                break
        assert len(list(tmp_path.glob("derain-serve-*/*"))) == 1
    client.close()
    assert not list(tmp_path.glob("derain-serve-*"))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_who_follows_or_waits_is_told_that_the_server_stops(tmp_path: Path, stop: signal.Signals) -> None:
    """The responses end as they should rather than when the server's patience does."""
    large = encode_picture(Picture(np.full((1500, 1500, 3), 90, np.uint8)), ".png")
    answers = list[httpx.Response]()

    def wait(address: str) -> None:
        answers.append(httpx.post(f"{address}/api/restore", files={"file": ("b.png", large)}, timeout=120))

    with contextlib.ExitStack() as stack:
        with as_command(tmp_path, "--model", "spanet", stop=stop) as address:
            client = stack.enter_context(httpx.Client(base_url=address, timeout=120))
            job = submit(client, "a.png", large)
            waiting = threading.Thread(target=wait, args=[address])
            waiting.start()
            at_work = "derain_jobs_waiting 1", "derain_jobs_running 1"
            until(lambda: all(fact in client.get("/metrics").text.splitlines() for fact in at_work))
            stream = stack.enter_context(client.stream("GET", "/api/events", params={"id": job}))
            lines = stream.iter_lines()
            assert next(lines) == "event: job"
        assert "event: gone" in list(lines)  # complete, or this would raise
        waiting.join()
    (answer,) = answers
    assert (answer.status_code, answer.json()) == (503, {"error": "the server is stopping."})


def test_an_upload_that_is_not_over_is_told_that_the_server_stops(tmp_path: Path) -> None:
    head = (
        b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    with contextlib.ExitStack() as stack:
        with as_command(tmp_path, "--model", "everyday-small") as address:
            port = int(address.rpartition(":")[2])
            upload = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            upload.sendall(head)
            until(lambda: list(tmp_path.glob("derain-serve-*/*")))
        answer = b"".join(iter(lambda: upload.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b'{"error":"the server is stopping."}')


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')"
    )
    surroundings = environment()
    surroundings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), surroundings["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "derain", "serve"],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    assert done.stderr == (
        'derain: fastapi is not installed; it comes with: pip install ".[serve]" in a copy of derain.\n'
    )


def settled(tab: Tab, count: int) -> None:
    """Waits until so many cards are done and their pictures there."""
    tab.until(f"document.querySelectorAll('.download:not([hidden])').length === {count}")
    tab.run(
        "Promise.all([...document.querySelectorAll('.stage:not([hidden]) img[src]')].map((i) => i.decode()))"
    )


def fits(tab: Tab, width: int) -> bool:
    """Whether nothing reaches beyond a window of this width."""
    return bool(tab.run(f"document.documentElement.scrollWidth <= {width}"))


def test_the_page(tmp_path: Path) -> None:
    picture, second = tmp_path / "street <b>.png", tmp_path / "second.png"
    write_picture(picture, rainy_picture(400, 600))
    write_picture(second, rainy_picture(60, 80))
    (tmp_path / "notes.png").write_text("no picture")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with as_command(tmp_path) as address, chromium(tmp_path / "profile") as tab:
        tab.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True
        )
        tab.open(address)
        tab.until("document.querySelector('#model option')")
        tab.run("""
            window.seen = [];
            new MutationObserver(() => {
                const bar = document.querySelector('progress');
                const word = document.querySelector('.state')?.textContent ?? '';
                if (bar && word.startsWith('Removing') && seen.at(-1) !== bar.value) seen.push(bar.value);
            }).observe(document, {subtree: true, childList: true, attributes: true});
        """)
        tab.drop("#drop", [picture])
        settled(tab, 1)
        seen = tab.run("seen")
        assert len(seen) > 5, seen  # progress moved
        assert seen == sorted(seen)
        assert tab.run("document.querySelector('h3').textContent") == picture.name
        assert tab.run("document.querySelector('#spoken').textContent") == "street <b>.png is done."

        # The slider by keyboard.
        tab.run("document.querySelector('.stage input').focus()")
        tab.press("ArrowRight", 39)
        assert tab.run("document.querySelector('.stage').style.getPropertyValue('--at')") == "51%"
        tab.press("Home", 36)
        assert (
            tab.run("getComputedStyle(document.querySelector('.before')).clipPath")
            == "inset(0px 100% 0px 0px)"
        )
        assert tab.run("document.querySelector('.stage input').ariaValueText") == "0 % before, 100 % after"

        # The rain mask, also by keyboard.
        tab.run("document.querySelector('.show-mask').focus()")
        tab.press("Enter", 13)
        assert tab.run("document.querySelector('.show-mask').ariaPressed") == "true"
        assert tab.run("document.querySelector('.tint').checkVisibility()") is True
        tab.press("Enter", 13)
        assert tab.run("document.querySelector('.tint').checkVisibility()") is False

        # What cannot be used is said, and a reload keeps what is done.
        tab.drop("#drop", [tmp_path / "notes.png", second])
        settled(tab, 2)
        said = tab.run("document.querySelector('.problem:not([hidden])').textContent")
        assert said.startswith("Neither a known kind of picture")
        tab.open(address)
        settled(tab, 2)

        names = tab.names()
        assert all(name for found in names.values() for name in found), names
        assert "Download street _b_-derained.png" in names["link"]
        assert "Compare second.png before and after" in names["slider"]

        # Downloads, one and all.
        tab.run("document.querySelector('.download').click()")
        tab.event("Browser.downloadProgress", state="completed")
        at_keyboard(tab, "#archives a", ("Enter", 13))
        tab.event("Browser.downloadProgress", state="completed")
        tab.run("document.querySelectorAll('.delete')[1].click()")
        tab.until("document.querySelectorAll('.job').length === 1")
        assert tab.run("document.querySelector('#archives a').hidden") is True
        assert tab.run("document.querySelector('#spoken').textContent") == "second.png was removed."
        assert [p for p in tab.problems() if "415" not in p] == []
    done = derain("run", picture, second, "-o", tmp_path / "dry", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    expected = (tmp_path / "dry" / picture.name).read_bytes()
    assert (downloads / "street _b_-derained.png").read_bytes() == expected
    with zipfile.ZipFile(downloads / "derained.zip") as archive:
        assert archive.read("street _b_-derained.png") == expected
        assert archive.read("second-derained.png") == (tmp_path / "dry" / "second.png").read_bytes()


def at_keyboard(tab: Tab, selector: str, *keys: tuple[str, int]) -> None:
    """Goes to an element with the tabulator alone, and presses keys there."""
    for _ in range(60):
        if tab.run(f"document.activeElement.matches({json.dumps(selector)})"):
            break
        tab.press("Tab", 9)
    assert tab.run(f"document.activeElement.matches({json.dumps(selector)})"), selector
    for key in keys:
        tab.press(*key)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int32)


def downloaded(tab: Tab, folder: Path, name: str) -> np.ndarray:
    """The pixels of a fresh download, asked for at the keyboard."""
    (folder / name).unlink(missing_ok=True)
    at_keyboard(tab, ".download", ("Enter", 13))
    tab.event("Browser.downloadProgress", state="completed")
    return pixels(folder / name)


def test_a_result_is_finished_by_keyboard_alone(tmp_path: Path) -> None:
    """Less of the change, and a protected place, without another run; a reload keeps both."""
    write_picture(tmp_path / "a.png", rainy_picture(200, 300))
    rainy = pixels(tmp_path / "a.png")
    with as_command(tmp_path) as address, chromium(tmp_path / "profile") as tab:
        tab.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True
        )
        tab.open(address)
        tab.until("document.querySelector('#model option')")
        tab.drop("#drop", [tmp_path / "a.png"])
        settled(tab, 1)
        whole = downloaded(tab, tmp_path, "a-derained.png")

        at_keyboard(tab, ".strength", *[("ArrowLeft", 37)] * 10)
        assert tab.run("document.querySelector('.strength-box output').textContent") == "50 %"
        assert tab.run("document.querySelector('.after').style.opacity") == "0.5"
        half = downloaded(tab, tmp_path, "a-derained.png")
        assert np.abs(half - (rainy + whole) / 2).max() <= 1

        at_keyboard(tab, ".zoom-in", ("+", 187))  # past 100 %, at which the picture is shown already
        assert tab.run("document.querySelector('.zoom output').textContent") == "200 %"
        assert tab.run("document.querySelector('.sheet').clientWidth") == 600
        for key in (("0", 48), ("+", 187), ("-", 189)):
            tab.press(*key)
            fitted = tab.run("document.querySelector('.zoom output').textContent")
            assert fitted == ("200 %" if key[0] == "+" else "Fit")
        assert tab.run("document.querySelector('.sheet').clientWidth") == 300

        tab.press("p", 80)
        assert tab.run("document.activeElement.matches('.brush')")
        for key in (("ArrowLeft", 37), (" ", 32)):
            tab.press(*key)
        tab.press("Escape", 27)
        assert tab.run("document.activeElement.matches('.protect')")
        painted = downloaded(tab, tmp_path, "a-derained.png")
        dot = (slice(97, 104), slice(138, 145))  # about the middle, one step to the left
        assert np.abs(painted[dot] - rainy[dot]).max() <= 1
        assert (half[dot] != rainy[dot]).any()
        far = (slice(0, 56), slice(None))  # beyond the soft edge of what is protected
        assert (painted[far] == half[far]).all()
        again = downloaded(tab, tmp_path, "a-derained.png")  # with no change in progress
        assert (again == painted).all()

        tab.open(address)
        settled(tab, 1)
        assert tab.run("document.querySelector('.strength').value") == "50"
        tab.until("!document.querySelector('.undo').disabled")
        at_keyboard(tab, "#help-open", ("Enter", 13))
        assert tab.run("document.querySelector('#help').open") is True
        tab.press("Escape", 27)
        assert tab.run("document.querySelector('#help').open") is False
        assert tab.problems() == []


def test_pasting_folders_clips_and_languages(tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    (folder / "lake").mkdir(parents=True)
    write_picture(folder / "a.png", rainy_picture(20, 30))
    write_picture(folder / "lake" / "b.png", rainy_picture(20, 30))
    (folder / "notes.txt").write_text("no picture")
    for name in (".DS_Store", "Thumbs.db", "._a.png"):
        (folder / name).write_text("not for people")
    write_clip(tmp_path / "clip.mp4", list(moving_scene(6, 48, 64)), audio="aac")
    with as_command(tmp_path) as address, chromium(tmp_path / "profile") as tab:
        tab.open(address)
        tab.until("document.querySelector('#model option')")
        tab.drop("#drop", [folder])
        settled(tab, 2)
        titles = "[...document.querySelectorAll('h3')].map((title) => title.textContent)"
        assert tab.run(titles) == ["a.png", "b.png"]
        assert texts(tab, ".folder") == ["holiday", "holiday/lake"]
        assert texts(tab, "#passed")[0].endswith("read here: 1.")
        held = tab.run("""(async () => {
            const answer = await fetch(document.querySelector('#archives a').href);
            return [...new Uint8Array(await answer.arrayBuffer())];
        })()""")
        with zipfile.ZipFile(io.BytesIO(bytes(held))) as archive:
            assert archive.namelist() == ["holiday/a-derained.png", "holiday/lake/b-derained.png"]
        # Small pictures are shown large enough to work on.
        assert tab.run("document.querySelector('.stage').clientWidth") >= 240

        tab.run("""(async () => {
            const content = await (await fetch(document.querySelector('.under').src)).blob();
            const data = new DataTransfer();
            data.items.add(new File([content], 'image.jpg', {type: 'image/jpeg'}));
            document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
        })()""")
        settled(tab, 3)
        assert tab.run(titles)[-1] == "image.jpg"

        tab.drop("#drop", [tmp_path / "clip.mp4"])
        settled(tab, 4)
        assert tab.run("[...document.querySelectorAll('.note')].at(-1).textContent") == "Kept: sound."
        tab.until("document.querySelector('.job:last-child .playing:not([hidden])')")
        assert tab.run("document.querySelector('.job:last-child .film').width") == 64
        tab.run("document.querySelector('.job:last-child .play').focus()")
        tab.press("Enter", 13)
        tab.until("document.querySelector('.job:last-child .play').textContent === 'Pause'")
        tab.press("k", 75)
        tab.until("document.querySelector('.job:last-child .play').textContent === 'Play'")

        tab.run("""(list => { list.value = 'de'; list.dispatchEvent(new Event('change')); })
                (document.querySelector('#language'))""")
        tab.until("document.querySelector('.download:not([hidden])')?.textContent === 'Herunterladen'")
        assert tab.run("document.documentElement.lang") == "de"
        assert tab.run("document.title") == "derain: Regen aus Bildern entfernen"
        assert texts(tab, "footer a, footer label") == ["HTTP-API", "Sprache"]
        assert tab.run("document.activeElement.id") == "language"  # the focus survives the reload
        tab.open(address)
        settled(tab, 4)
        assert tab.run("document.activeElement === document.body")
        assert tab.run("document.querySelector('#model option').textContent").endswith("die meisten Bilder")
        assert tab.problems() == []


@pytest.mark.heavy
def test_axe_finds_nothing(tmp_path: Path) -> None:
    """On the page in its states and the list of the API, in German, too."""
    write_picture(tmp_path / "a.png", rainy_picture(60, 400))
    write_clip(tmp_path / "clip.mp4", list(moving_scene(6, 48, 64)))
    (tmp_path / "notes.png").write_text("no picture")

    with as_command(tmp_path, "--token", "abc") as address, chromium(tmp_path / "profile") as tab:
        tab.size(390, 844)
        tab.open(address)
        tab.until("document.activeElement.id === 'token'")
        assert tab.violations() == []
        tab.run("document.querySelector('#token').value = 'abc'")
        tab.press("Enter", 13)
        tab.until("document.querySelector('#model option')")
        assert tab.violations() == []
        tab.drop("#drop", [tmp_path / "a.png", tmp_path / "clip.mp4", tmp_path / "notes.png"])
        settled(tab, 2)

        def in_both_schemes() -> None:
            for scheme in ("light", "dark"):
                tab.scheme(scheme)
                assert tab.violations() == []

        in_both_schemes()
        for button in (".show-mask", ".zoom-in", ".protect", "#help-open"):
            tab.run(f"document.querySelector('{button}').click()")
            in_both_schemes()
        tab.run("localStorage.setItem('derain-language', 'de')")
        tab.open(address)
        tab.until("document.querySelector('.download:not([hidden])')?.textContent === 'Herunterladen'")
        in_both_schemes()
        tab.open(f"{address}/docs")
        tab.until("document.querySelectorAll('.endpoint').length > 10")
        in_both_schemes()


def test_more_pictures_than_the_server_takes_at_once(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{number}.png" for number in range(5)]
    for picture in pictures:
        write_picture(picture, rainy_picture(200, 300))
    with as_command(tmp_path, "--max-waiting", "1") as address, chromium(tmp_path / "profile") as tab:
        tab.open(address)
        tab.until("document.querySelector('#model option')")
        tab.drop("#drop", pictures)
        settled(tab, 5)
        assert tab.run("document.querySelectorAll('.problem:not([hidden])').length") == 0
        assert tab.run("document.querySelectorAll('.download:not([hidden])').length") == 5


def test_the_page_with_a_token_and_on_a_phone(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", rainy_picture(60, 80))
    with as_command(tmp_path, "--token", "abc") as address, chromium(tmp_path / "profile") as tab:
        tab.size(360, 740, phone=True)
        tab.open(address)
        tab.until("document.activeElement.id === 'token'")
        assert fits(tab, 360)
        for token, after in {"wrong": "!document.querySelector('#login-problem').hidden",
                             "abc": "document.querySelector('#model option')"}.items():  # fmt: skip
            tab.run(f"document.querySelector('#token').value = {json.dumps(token)}")
            tab.press("Enter", 13)
            tab.until(after)
        tab.drop("#drop", [tmp_path / "a.png"])
        settled(tab, 1)
        assert fits(tab, 360)
        tab.open(f"{address}/docs")
        tab.until("document.querySelectorAll('.endpoint').length > 10")
        assert fits(tab, 360)


def opened(tab: Tab, client: httpx.Client) -> None:
    """Shows the page of a server."""
    tab.open(str(client.base_url))
    tab.until("document.querySelector('#model option')")


def texts(tab: Tab, selector: str) -> list[str]:
    """Of the elements that can be seen."""
    found: list[str] = tab.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter((e) => e.checkVisibility())"
        ".map((e) => e.textContent)"
    )
    return found


def ids(tab: Tab) -> list[str]:
    """Of the jobs whose results can be downloaded."""
    found: list[str] = tab.run(
        "[...document.querySelectorAll('.download:not([hidden])')].map((a) => a.href.split('/').at(-2))"
    )
    return found


def middle(tab: Tab, selector: str) -> tuple[float, float]:
    """Of an element, on the screen."""
    x, y = tab.run(f"""(() => {{
        const element = document.querySelector({json.dumps(selector)});
        element.scrollIntoView({{block: 'center'}});
        const r = element.getBoundingClientRect();
        return [r.x + r.width / 2, r.y + r.height / 2];
    }})()""")
    return x, y


def click(tab: Tab, selector: str, across: float = 0) -> None:
    """With the mouse, so many pixels to the right of the middle."""
    x, y = middle(tab, selector)
    for kind in ("mousePressed", "mouseReleased"):
        tab.call(
            "Input.dispatchMouseEvent", type=kind, x=x + across, y=y, button="left", buttons=1, clickCount=1
        )


def test_results_that_are_gone(tmp_path: Path) -> None:
    """Deleted elsewhere, or because their time is over: the page says so, and offers the rest."""
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    for picture in pictures:
        write_picture(picture, rainy_picture(60, 80))
    with chromium(tmp_path / "profile") as tab:
        with in_thread(tmp_path, Limits()) as client:
            opened(tab, client)
            tab.drop("#drop", pictures)
            settled(tab, 3)
            client.delete(f"/api/jobs/{ids(tab)[0]}").raise_for_status()
            tab.run("document.querySelector('.download').click()")
            tab.until("document.querySelectorAll('.download:not([hidden])').length === 2")
            first = "document.querySelector('.job:first-child')"
            assert tab.run(f"{first}.querySelector('.state').textContent") == "No longer on the server"
            assert texts(tab, ".problem") == ["It was deleted on the server."]
            for control in (".strength", ".show-mask", ".protect"):
                assert tab.run(f"{first}.querySelector('{control}').disabled") is True
            assert tab.run(f"{first}.querySelector('.stage').checkVisibility()") is True
            held = tab.run("(async () => (await fetch(document.querySelector('#archives a').href)).status)()")
            assert held == 200

            # A click on the archive asks for what is there, too.
            client.delete(f"/api/jobs/{ids(tab)[0]}").raise_for_status()
            tab.run("document.querySelector('#archives a').click()")
            tab.until("document.querySelectorAll('.download:not([hidden])').length === 1")
            assert texts(tab, "#archives a") == []
            # And so does a change of the last one.
            client.delete(f"/api/jobs/{ids(tab)[0]}").raise_for_status()
            tab.run("document.querySelector('.job:last-child .strength').dispatchEvent(new Event('change'))")
            tab.until("document.querySelectorAll('.download:not([hidden])').length === 0")
        with in_thread(tmp_path, Limits(keep_seconds=4)) as client:
            opened(tab, client)
            tab.drop("#drop", pictures[:1])
            tab.until("document.querySelector('.state')?.textContent === 'Done'")
            tab.until("document.querySelector('.state').textContent === 'No longer on the server'")
        assert [p for p in tab.problems() if "404" not in p and "REFUSED" not in p] == []


@pytest.mark.heavy
def test_more_results_than_one_archive_takes(tmp_path: Path) -> None:
    """They are in two archives, and a reload shows them all."""
    picture = encode_picture(rainy_picture(8, 8), ".png")
    with in_thread(tmp_path, Limits(waiting=1000)) as client, chromium(tmp_path / "profile") as tab:
        jobs = [submit(client, f"{number}.png", picture) for number in range(503)]
        until(lambda: client.get(f"/api/jobs/{jobs[-1]}").json()["state"] == "done")
        opened(tab, client)
        kept = [[job, f"{number}.png", ""] for number, job in enumerate(jobs)]
        tab.run(f"sessionStorage.setItem('derain-cards', {json.dumps(json.dumps(kept))})")
        opened(tab, client)
        tab.until("document.querySelectorAll('.download:not([hidden])').length === 503")
        assert texts(tab, "h3") == [f"{number}.png" for number in range(503)]
        assert texts(tab, "#archives a") == ["Download 1 to 500 (zip)", "Download 501 to 503 (zip)"]
        for link, count in (("first-child", 500), ("last-child", 3)):
            address = tab.run(f"document.querySelector('#archives a:{link}').href")
            with zipfile.ZipFile(io.BytesIO(client.get(address).content)) as archive:
                assert len(archive.namelist()) == count


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    large = [tmp_path / f"large {number}.png" for number in range(4)]  # not all done when it stops
    for picture in large:
        write_picture(picture, Picture(np.full((1500, 1500, 3), 90, np.uint8)))
    with chromium(tmp_path / "profile") as tab:
        with as_command(tmp_path) as address:
            tab.open(address)
            tab.until("document.querySelector('#model option')")
            tab.drop("#drop", large)
            tab.until(
                "document.querySelectorAll('.job')[3]?.querySelector('.state').textContent.includes('ahead')"
            )
        tab.until("!document.querySelector('#connection').hidden")
        assert texts(tab, "#connection") == ["The server cannot be reached; trying again."]
        with as_command(tmp_path, "--port", address.rpartition(":")[2]):
            tab.until("document.querySelector('#connection').hidden")
            assert set(texts(tab, ".problem")) == {"It was deleted on the server."}


def test_a_server_that_is_gone_is_missed_without_a_click(tmp_path: Path) -> None:
    """Even if no job is open; another one in its place does not have the results."""
    write_picture(tmp_path / "a.png", rainy_picture(60, 80))
    look = "document.dispatchEvent(new Event('visibilitychange'))"  # as now and then by itself
    with chromium(tmp_path / "profile") as tab:
        with as_command(tmp_path) as address:
            tab.open(address)
            tab.until("document.querySelector('#model option')")
            tab.drop("#drop", [tmp_path / "a.png"])
            settled(tab, 1)
        tab.run(look)
        tab.until("!document.querySelector('#connection').hidden")
        assert texts(tab, "#connection") == ["The server cannot be reached; trying again."]
        with as_command(tmp_path, "--port", address.rpartition(":")[2]):
            tab.run(look)
            tab.until("document.querySelector('#connection').hidden")
            tab.until("document.querySelector('.state').textContent === 'No longer on the server'")


def test_every_width_and_shape(tmp_path: Path) -> None:
    """Nothing is cut off at 390 pixels in any language, and labels leave the picture to be seen."""
    shapes = {"usual": (300, 400), "tall": (2400, 300), "wide": (100, 1000)}
    for name, size in shapes.items():
        write_picture(tmp_path / f"{name}.png", rainy_picture(*size))
    shots = Path(os.environ.get("DERAIN_SCREENSHOTS", tmp_path))
    cut_off = """[...document.querySelectorAll('.job *, .drop *, footer *')].filter((e) => {
        const [r, card] = [e, e.closest('.card, footer')].map((one) => one.getBoundingClientRect());
        const isOut = r.right > card.right + 1 || r.left < card.left - 1;
        return isOut && e.checkVisibility() && !e.closest('.stage');
    }).map((e) => e.outerHTML)"""
    with in_thread(tmp_path, Limits()) as client, chromium(tmp_path / "profile") as tab:
        opened(tab, client)
        tab.drop("#drop", [tmp_path / f"{name}.png" for name in shapes])
        settled(tab, 3)
        assert "HEIC" not in texts(tab, "#limits")[0] or find_spec("pillow_heif")
        for language in ("en", "de", "fr", "es"):
            tab.run(f"localStorage.setItem('derain-language', '{language}')")
            opened(tab, client)
            settled(tab, 3)
            tab.run("document.querySelector('.protect').click()")
            for width in (1280, 390):
                tab.size(width, 844, phone=width < 500)
                assert fits(tab, width)
                assert tab.run(cut_off) == []
                for scheme in ("light", "dark"):
                    tab.scheme(scheme)
                    tab.screenshot(shots / f"{language}-{width}-{scheme}.png")
            tab.run("document.querySelector('.protect').click()")
            labelled = tab.run(
                "[...document.querySelectorAll('.tag.left')].map((tag) => tag.checkVisibility())"
            )
            assert labelled == [True, False, False]  # at 390


def touch(tab: Tab, kind: str, *points: tuple[float, float]) -> None:
    places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=places)


def test_two_fingers_move_the_picture_and_do_not_paint(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", rainy_picture(900, 800))
    painted = """(() => {
        const canvas = document.querySelector('.brush');
        const found = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return found.some((value) => value);
    })()"""
    places = "[document.querySelector('.view').scrollLeft, document.querySelector('.view').scrollTop]"
    with in_thread(tmp_path, Limits()) as client, chromium(tmp_path / "profile") as tab:
        tab.size(390, 844, phone=True)
        opened(tab, client)
        tab.drop("#drop", [tmp_path / "a.png"])
        settled(tab, 1)
        tab.run("document.querySelector('.zoom-in').click()")
        tab.run("document.querySelector('.protect').click()")
        x, y = middle(tab, ".view")
        left, top = tab.run(places)
        touch(tab, "touchStart", (x, y))
        touch(tab, "touchMove", (x + 10, y))
        assert tab.run(painted) is True
        touch(tab, "touchStart", (x + 10, y), (x + 60, y))
        assert tab.run(painted) is False
        touch(tab, "touchMove", (x - 30, y - 20), (x + 20, y - 20))
        touch(tab, "touchEnd")
        assert tab.run(painted) is False
        assert tab.run("document.querySelector('.undo').disabled") is True
        assert np.abs(np.subtract(tab.run(places), (left + 40, top + 20))).max() <= 2
        # One finger paints again.
        touch(tab, "touchStart", (x, y))
        touch(tab, "touchMove", (x + 10, y))
        touch(tab, "touchEnd")
        assert tab.run("document.querySelector('.undo').disabled") is False
        assert tab.problems() == []


def test_keys_after_the_mouse(tmp_path: Path) -> None:
    """They act on the picture that was clicked last; the list of them opens from anywhere."""
    write_picture(tmp_path / "a.png", rainy_picture(300, 400))
    with in_thread(tmp_path, Limits()) as client, chromium(tmp_path / "profile") as tab:
        opened(tab, client)
        tab.press("?", 191)
        assert tab.run("document.querySelector('#help').open") is True
        tab.press("Escape", 27)
        tab.drop("#drop", [tmp_path / "a.png"])
        settled(tab, 1)
        click(tab, "#drop h2")
        click(tab, ".view", across=100)
        at = int(tab.run("document.querySelector('.compare').value"))
        assert at > 60
        tab.press("ArrowRight", 39)
        assert int(tab.run("document.querySelector('.compare').value")) == at + 1
        tab.press("m", 77)
        assert tab.run("document.querySelector('.show-mask').ariaPressed") == "true"
        tab.press("+", 187)
        assert tab.run("document.querySelector('.zoom output').textContent") == "200 %"

        # A change and a reload at once.
        tab.run("""(slider => {
            slider.value = 40;
            slider.dispatchEvent(new Event('change'));
            location.reload();
        })(document.querySelector('.strength'))""")
        (job,) = json.loads(tab.run("sessionStorage.getItem('derain-cards')"))
        until(lambda: (client.get(f"/api/jobs/{job[0]}").json()["finish"] or {}).get("strength") == 0.4)
        settled(tab, 1)
        assert tab.run("document.querySelector('.strength').value") == "40"


def test_names_and_notes_are_those_of_the_reader(tmp_path: Path) -> None:
    """A file keeps its own name where the result has another; notes are in one language."""
    heif = pytest.importorskip("pillow_heif")
    (tmp_path / "phone").mkdir()
    photo = heif.from_pillow(Image.fromarray(rainy_picture(64, 96).pixels))
    photo.save(tmp_path / "phone" / "IMG <1>.HEIC")
    notes = {
        "left out: EXIF, its lossless compression (JPEG is lossy); memory ran out, continued with tiles of "
        "64 pixels": "Nicht übernommen: EXIF, seine verlustfreie Kompression (JPEG ist verlustbehaftet). Der "
        "Speicher reichte nicht, deshalb ging es mit Kacheln von 64 Pixeln weiter.",
        "left out: EXIF, a NEW chunk": "Left out: EXIF, a NEW chunk.",
    }
    with in_thread(tmp_path, Limits()) as client, chromium(tmp_path / "profile") as tab:
        opened(tab, client)
        assert ".heic" in tab.run("document.querySelector('#files').accept")
        assert "HEIC" in texts(tab, "#limits")[0]
        tab.drop("#drop", [tmp_path / "phone"])
        settled(tab, 1)
        tab.run("localStorage.setItem('derain-language', 'de')")
        opened(tab, client)
        settled(tab, 1)
        assert texts(tab, "h3") == ["IMG <1>.HEIC"]
        assert "IMG _1_-derained.png herunterladen" in tab.names()["link"]
        for note, expected in notes.items():
            asked = f"import('/page/words.js').then((words) => words.note({json.dumps(note)}))"
            assert tab.run(asked) == expected
        assert tab.problems() == []


def test_files_before_the_login_and_a_full_store(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, rainy_picture(60, 80))
    limits = Limits(storage_bytes=1000)  # full with the first
    with in_thread(tmp_path, limits, "abc") as client, chromium(tmp_path / "profile") as tab:
        tab.open(str(client.base_url))
        tab.until("document.activeElement.id === 'token'")
        tab.drop("#login", [tmp_path / "a.png", tmp_path / "b.png"])
        tab.until("!document.querySelector('#early').hidden")
        assert texts(tab, "#early") == ["Files that will be sent after you sign in: 2."]
        tab.run("document.querySelector('#token').value = 'wrong'")
        tab.press("Enter", 13)
        tab.until("!document.querySelector('#login-problem').hidden")
        assert texts(tab, "#login-problem") == ["Wrong token."]
        tab.run("document.querySelector('#token').value = 'abc'")
        tab.press("Enter", 13)
        settled(tab, 1)
        tab.until("document.querySelector('.job:last-child .problem').checkVisibility()")
        assert texts(tab, ".problem") == ["The store is full; delete some results, or try again later."]
        tab.run("document.querySelector('.delete').click()")
        tab.until("document.querySelector('.job:only-child .download:not([hidden])')")
        assert texts(tab, "h3") == ["b.png"]
        assert texts(tab, ".problem") == []


def test_a_real_photograph_looks_right(shared: Path, tmp_path: Path) -> None:
    """Before and after differ where the slider says so, at every width and in both colour schemes; the
    download is what `derain run` writes."""
    photo = tmp_path / "photo.jpg"
    with Image.open(shared / "data" / "real_rain" / "13.jpg") as whole:
        whole.crop((300, 200, 660, 440)).save(photo, quality=95)
    shots = Path(os.environ.get("DERAIN_SCREENSHOTS", tmp_path))
    with as_command(tmp_path) as address, chromium(tmp_path / "profile") as tab:
        tab.open(address)
        tab.until("document.querySelector('#model option')")
        tab.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True
        )
        tab.drop("#drop", [photo])
        settled(tab, 1)
        for width, height in ((1280, 900), (390, 844)):
            for scheme in ("light", "dark"):
                tab.size(width, height, phone=width < 500)
                tab.scheme(scheme)
                tab.screenshot(shots / f"{width}-{scheme}.png")
                assert fits(tab, width)
                with Image.open(shots / f"{width}-{scheme}.png") as shot:
                    corner = sum(shot.convert("RGB").getpixel((2, 2)))
                assert (corner > 600) == (scheme == "light")
        tab.run("document.querySelector('.download').click()")
        tab.event("Browser.downloadProgress", state="completed")
        box = "document.querySelector('.stage').getBoundingClientRect()"
        area = json.loads(tab.run(f"JSON.stringify({box})"))
        looks = []
        for value in (0, 100):
            tab.run(f"(i => {{ i.value = {value}; i.dispatchEvent(new Event('input')); }})"
                    "(document.querySelector('.stage input'))")  # fmt: skip
            tab.screenshot(shots / f"at-{value}.png")
            with Image.open(shots / f"at-{value}.png") as shot:
                part = shot.convert("RGB").crop((area["x"], area["y"] + 60, area["right"], area["bottom"]))
                looks.append(np.asarray(part, np.float64)[:, 40:-40])
        assert np.abs(looks[0] - looks[1]).mean() > 0.5
    assert derain("run", photo, "-o", tmp_path / "dry.jpg", "--device", "cpu").returncode == 0
    assert (tmp_path / "photo-derained.jpg").read_bytes() == (tmp_path / "dry.jpg").read_bytes()
