"""The HTTP API as clients meet it, good and bad, through a real server on loopback."""

from __future__ import annotations

import http.client
import io
import logging
import os
import select
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import clips
from clips import moving_scene, write_clip
from derain.checkpoints.bundled import DEFAULT
from derain.cli.messages import in_words
from derain.errors import DerainError, Remedy, UsageError
from derain.pictures import Picture, encode_picture, read_picture, to_tensor
from derain.pictures.picture import grey_pixels
from derain.restore import Settings, load
from derain.serve.limits import Limits
from derain.serve.server import in_address, listen, serve
from serving import ended, events, in_thread, send, submit, until

LIMITS = Limits(upload_bytes=400_000, pixels=1_200_000, clip_seconds=1, waiting=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    """One server for all tests that leave it as they find it."""
    torch.set_num_threads(1)
    with in_thread(folder, LIMITS) as found:
        yield found
    assert not list(folder.glob("derain-serve-*"))


@pytest.fixture(autouse=True)
def _nothing_left(client: httpx.Client, folder: Path) -> Iterator[None]:
    yield
    until(lambda: not jobs_in(folder))
    assert client.get("/metrics").text.count("derain_jobs_running 0")


def jobs_in(folder: Path) -> list[Path]:
    return list(folder.glob("derain-serve-*/*"))


def noise(height: int, width: int, seed: int = 0) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png(height: int = 24, width: int = 32) -> bytes:
    return encode_picture(noise(height, width), ".png")


def flat_png(height: int, width: int) -> bytes:
    """Large in pixels, small in bytes."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 90).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels whose data are zeros, packed a thousandfold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")
    )


def clip(folder: Path, name: str, frames: int) -> bytes:
    path = write_clip(folder / name, list(moving_scene(frames, 48, 64)))
    content = path.read_bytes()
    path.unlink()
    return content


def refused(answer: httpx.Response, status: int, said: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert said in error
    assert "\n" not in error
    assert "derain-serve" not in error  # nothing of the server's files


def test_a_picture_from_upload_to_deletion(client: httpx.Client, folder: Path, tmp_path: Path) -> None:
    content = encode_picture(noise(40, 56), ".png")
    job = submit(client, "rain.PNG", content, model="spanet")  # slow enough to be watched
    told = list(events(client, job))
    fractions = [view["fraction"] for _, view in told]
    assert fractions == sorted(fractions)
    assert len([f for f in fractions if 0 < f < 1]) > 5
    done = told[-1][1]
    assert (done["state"], done["name"], done["result"]) == ("done", "rain.PNG", "rain-derained.PNG")
    assert done["mask"] is True

    (tmp_path / "rain.png").write_bytes(content)
    rainy = read_picture(tmp_path / "rain.png")
    spanet = load("spanet", device="cpu")
    restored = spanet.restore(to_tensor(rainy), with_maps=True, bits=8)
    result = client.get(f"/api/jobs/{job}/result")
    spanet(tmp_path / "rain.png", tmp_path / "dry.png")
    assert result.content == (tmp_path / "dry.png").read_bytes()
    assert result.headers["content-type"] == "image/png"
    assert 'attachment; filename="rain-derained.PNG"' in result.headers["content-disposition"]
    mask = client.get(f"/api/jobs/{job}/mask")
    assert mask.content == encode_picture(Picture(grey_pixels(restored.maps["mask"])), ".png")
    for side in ("before", "after"):
        preview = client.get(f"/api/jobs/{job}/{side}")
        with Image.open(io.BytesIO(preview.content)) as image:
            assert (image.format, image.size) == ("JPEG", (56, 40))

    refused(client.get(f"/api/jobs/{job}/before?full=maybe"), 422, "'full' must be true or false.")

    assert len(jobs_in(folder)) == 1
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    for path in ("", "/result", "/mask", "/before", "/after"):
        refused(client.get(f"/api/jobs/{job}{path}"), 404)


def test_a_clip(client: httpx.Client, tmp_path: Path) -> None:
    job = submit(client, "clip.mp4", clip(tmp_path, "a.mp4", 6))
    done = ended(client, job)
    assert (done["state"], done["kind"], done["mask"], done["note"]) == ("done", "clip", False, "")
    refused(client.get(f"/api/jobs/{job}/mask"), 404, "no mask")
    (tmp_path / "result.mp4").write_bytes(client.get(f"/api/jobs/{job}/result").content)
    assert len(clips.content(tmp_path / "result.mp4").frames) == 6
    with Image.open(io.BytesIO(client.get(f"/api/jobs/{job}/before").content)) as image:
        assert image.size == (64, 48)
    client.delete(f"/api/jobs/{job}")


def test_a_clip_that_breaks_off_is_restored_as_far_as_it_goes(client: httpx.Client, tmp_path: Path) -> None:
    whole = write_clip(
        tmp_path / "a.mkv", [noise(48, 64, number).pixels for number in range(12)]
    ).read_bytes()
    job = submit(client, "clip.mkv", whole[: len(whole) * 3 // 4])
    done = ended(client, job)
    assert done["state"] == "done"
    assert done["note"].startswith("clip.mkv: ")
    assert done["note"].endswith("what could be read is in clip-derained.mkv.")
    client.delete(f"/api/jobs/{job}")


def test_a_zip_of_several(client: httpx.Client) -> None:
    first = submit(client, "a.png", png(20, 20))
    ended(client, first)
    second = submit(client, "a.png", png(22, 20))
    ended(client, second)
    third = submit(client, "a.png", png(23, 20), folder="../C:\\lake//./ü ")
    ended(client, third)
    answer = client.get("/api/results.zip", params=[("id", first), ("id", second), ("id", third)])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["a-derained.png", "a-derained (2).png", "C_/lake/ü/a-derained.png"]
        for job, name in zip((first, second, third), archive.namelist(), strict=True):
            assert archive.read(name) == client.get(f"/api/jobs/{job}/result").content
    refused(client.get("/api/results.zip", params=[("id", first), ("id", "x")]), 404)
    for path in ("/api/results.zip", "/api/events"):
        refused(client.get(path), 422, "'id' is missing; add it to the address: ?id=...")
        many = client.get(path, params=[("id", "x")] * 501)
        refused(many, 422, "'id' was given 501 times; at most 500.")
    for job in (first, second, third):
        client.delete(f"/api/jobs/{job}")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/x.png", "x.png"),
        ("C:\\windows\\x.png", "x.png"),
        ("/", "picture.png"),
        ("..", "picture.png"),
        (".png", "png.png"),
        ("regen ü 雨.JPG", "regen ü 雨.png"),
        ('a"b\r\nX-Evil: 1<script>.png', None),
        ("x" * 180 + ".png", "x" * 180 + ".png"),
        ("x" * 300 + ".png", "x" * 200 + ".png"),
        ("雨" * 90 + ".png", "雨" * 66 + ".png"),  # of three bytes each
        ("con\u202etrol.png", "control.png"),
        ("clip.mp4", "clip.png"),
    ],
)
def test_names_are_made_harmless(client: httpx.Client, folder: Path, name: str, shown: str | None) -> None:
    job = submit(client, name, png())
    view = ended(client, job)
    assert shown is None or view["name"] == shown
    assert not set(view["name"]) & set('<>:"/\\|?*\r\n\0')
    answer = client.get(f"/api/jobs/{job}/result")
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    assert {path.name for path in jobs_in(folder)[0].rglob("*.png")} == {
        "rainy.png", "derained.png", "derained-mask.png"
    }  # fmt: skip
    client.delete(f"/api/jobs/{job}")


def test_what_is_no_picture_is_refused_by_its_content(client: httpx.Client, tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    jp2 = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)
    for content in (b"hello", playlist, b"<svg/>", b"%PDF-1.4", b"PK\x03\x04weights", jp2, bytes(100)):
        refused(send(client, "x.png", content), 415)
    refused(send(client, "x.heic", jp2), 415, "JPEG 2000")
    photo = encode_picture(noise(64, 64), ".jpg")
    damaged = {
        "photo.jpg": photo[: len(photo) // 2],
        "a.png": png()[:-30],
        "head.tif": b"II*\0" + bytes(30),
        "movie.mp4": b"\0\0\0\x18ftypisom" + bytes(200),
        "cut.mp4": clip(tmp_path, "a.mp4", 5)[:400],
        "x.gif": b"GIF89a" + bytes(10),
        "x.mkv": b"\x1aE\xdf\xa3" + os.urandom(100),
    }
    for name, content in damaged.items():
        refused(send(client, name, content), 422, name)
    refused(send(client, "x.png", b""), 422, "empty")


def test_too_large(client: httpx.Client, tmp_path: Path) -> None:
    refused(send(client, "x.png", bytes(2_000_000)), 413, "the upload is larger than the 0.4 MB limit.")

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(20_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(client.post("/api/jobs", content=chunks(), headers=headers), 413, "larger than")
    refused(send(client, "x.png", png(), model="x" * 20_000), 400)
    refused(send(client, "wide.png", flat_png(2000, 2000)), 413, "2,000 x 2,000")
    refused(send(client, "bomb.png", bomb(60_000)), 413, "60,000 x 60,000")
    refused(send(client, "long.mp4", clip(tmp_path, "a.mp4", 40)), 413, "lasts 2 s")
    wide = write_clip(tmp_path / "b.mp4", [np.zeros((1200, 1200, 3), np.uint8)] * 2).read_bytes()
    refused(send(client, "wide.mp4", wide), 413, "1,200 x 1,200")


def test_uploads_that_are_no_form(client: httpx.Client) -> None:
    refused(client.post("/api/jobs"), 415)
    refused(client.post("/api/jobs", json={"file": "http://example.org/x.png"}), 415)
    refused(client.post("/api/jobs", content=b"abc", headers={"Content-Type": "multipart/form-data"}), 400)
    refused(client.post("/api/jobs", data={"model": "spanet"}, files={"x": b"1"}), 422, "unknown field 'x'. ")
    for second, said in {
        "file": "'file' takes 1 file; more",
        "protect": "unknown field 'protect'. ",
        "model": "'model' must be text; it was sent as a file.",
    }.items():
        refused(client.post("/api/jobs", files=[("file", b"1"), (second, b"2")]), 422, said)
    as_text = client.post("/api/jobs", files={"file": (None, "a.png")})
    refused(as_text, 422, "'file' must be a file; it was sent as text.")
    refused(client.post("/api/jobs", files=[("file", b"1")] * 3), 400, "too many parts")
    refused(send(client, "a.png", png(), model="spanett"), 422, "Did you mean 'spanet'")
    refused(send(client, "a.png", png(), model="../weights/spanet.safetensors"), 422, "unknown model")
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(client.post("/api/jobs", content=cut, headers=headers), 422, "file is not complete")


def test_a_client_that_hangs_up_leaves_nothing(client: httpx.Client, folder: Path) -> None:
    head = (
        "POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    )
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(head.encode() + png())
        until(lambda: jobs_in(folder))
    until(lambda: not jobs_in(folder))
    assert client.get("/health").json() == {"status": "ok"}


def test_unknown_ids_and_paths(client: httpx.Client) -> None:
    for path in ("", "/result", "/mask", "/before", "/after"):
        refused(client.get(f"/api/jobs/unknown{path}"), 404)
    refused(client.delete("/api/jobs/unknown"), 404)
    refused(client.get("/api/events?id=unknown"), 404)
    for path in ("/page/..%2fapi.py", "/page/%2e%2e/api.py", "/api/jobs/..%2f..", "/page/index.html", "/x"):
        refused(client.get(path), 404)
    refused(client.put("/api/jobs"), 405)
    several = client.put("/api/jobs/unknown")
    refused(several, 405, "/api/jobs/unknown: takes GET, DELETE, not PUT; ")
    assert several.headers["allow"] == "GET, DELETE"
    assert client.get("/x").json() == {
        "error": "/x: there is no such address; /docs lists the addresses of the API, and the page is at /."
    }
    assert client.get("/api/v2/jobs").json()["error"].startswith("/api/v2/jobs: there is no such address")
    wrong = client.put("/health")
    assert wrong.json()["error"].startswith("/health: takes GET, not PUT; /docs lists the addresses")
    assert wrong.headers["allow"] == "GET"
    assert len(client.get(f"/{'x' * 2000}").text) < 300


def test_a_full_queue_and_cancelling(client: httpx.Client, folder: Path) -> None:
    long = submit(client, "long.png", flat_png(1000, 1000), model="spanet")
    assert next(view for _, view in events(client, long) if view["state"] == "running")
    refused(client.get(f"/api/jobs/{long}/result"), 409, "not finished")
    waiting = [submit(client, "a.png", png()), submit(client, "b.png", png())]
    assert [client.get(f"/api/jobs/{job}").json()["ahead"] for job in waiting] == [1, 2]
    answer = send(client, "c.png", png())
    refused(answer, 429, "queue is full")
    assert "retry-after" in answer.headers
    assert len(jobs_in(folder)) == 3
    with client.stream("GET", "/api/events", params={"id": long}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: job"
        assert client.delete(f"/api/jobs/{long}").status_code == 204  # while it is worked on
        assert "event: gone" in list(lines)
    # The worker stops and takes the others; had it not, this would take minutes.
    assert [ended(client, job)["state"] for job in waiting] == ["done", "done"]
    for job in waiting:
        client.delete(f"/api/jobs/{job}")


def test_other_hosts_and_sites_are_refused(client: httpx.Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", ""):
        refused(client.get("/", headers={"Host": host}), 400)
    for host in ("localhost", "LOCALHOST:1", "[::1]:8000"):
        assert client.get("/api/models", headers={"Host": host}).status_code == 200
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://["):
        files = {"file": ("a.png", png())}
        refused(client.post("/api/jobs", files=files, headers={"Origin": origin}), 403)


def test_what_is_no_way_to_start() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match="token") as refused_:
            serve(host, 0, LIMITS)
        told = in_words(refused_.value.message, refused_.value.remedy)
        assert told.endswith("To listen there, give DERAIN_TOKEN=SECRET in the environment.")  # not for ps
    with pytest.raises(UsageError, match="empty"):
        serve("127.0.0.1", 0, LIMITS, token=" ")
    with pytest.raises(UsageError, match="tpu"):
        serve("127.0.0.1", 0, LIMITS, settings=Settings(device="tpu"))
    with pytest.raises(UsageError, match="unknown model 'spanett'"):
        serve("127.0.0.1", 0, LIMITS, models=["spanett"])
    with pytest.raises(UsageError, match="both be called 'spanet'"):
        serve("127.0.0.1", 0, LIMITS, models=["spanet", "elsewhere/spanet.safetensors"])
    for host in ("", "http://example.org", "user@example.org", "*.example.org", "example.org/x"):
        with pytest.raises(UsageError, match="give HOST"):
            serve("127.0.0.1", 0, LIMITS, callback_hosts=[host])
    with pytest.raises(DerainError, match=r"missing\.pth"):
        serve("127.0.0.1", 0, LIMITS, models=["missing.pth"])


def test_a_place_where_it_cannot_listen() -> None:
    """Another port is advised only where it may help."""
    remedy = Remedy("use any free port", {"port": 0})
    for host in ("nosuch.invalid", "a..b", f"{'x' * 64}.invalid", "192.0.2.1", "ü" * 70):
        with pytest.raises(DerainError) as failed:
            listen(host, 0, remedy)
        assert failed.value.remedy is None
        assert str(failed.value) == (
            f"cannot listen on {in_address(host)}:0 "
            "(neither an address nor a name of this machine; 127.0.0.1 is one)."
        )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for wrong, why in ((port, "another program uses this port"), (70_000, "ports end at 65535")):
            with pytest.raises(DerainError) as failed:
                listen("127.0.0.1", wrong, remedy)
            assert failed.value.message == f"cannot listen on 127.0.0.1:{wrong} ({why})."
            assert failed.value.remedy == remedy


def test_headers_page_and_description(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/page/app.js", "/health", "/api/models", "/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    for path in ("/", "/docs"):
        page = client.get(path).text
        assert "http" not in page.replace("HTTP API", "").replace("http-equiv", "")  # nothing from outside
        assert "<style" not in page
        assert " style=" not in page
    described = client.get("/api/openapi.json").json()["paths"]
    assert {f"/api/v1/{end}" for end in ("jobs", "events", "models", "jobs/{job_id}/result")} <= set(
        described
    )
    models = client.get("/api/models").json()
    assert [model["name"] for model in models if model["default"]] == [DEFAULT]
    limits = client.get("/api/limits").json()
    assert limits["pixels"] == LIMITS.pixels
    formats = {found["name"]: (found["kind"], found["extensions"]) for found in limits["formats"]}
    assert formats["JPEG"] == ("picture", [".jpg", ".jpeg", ".jpe", ".jfif"])
    assert formats["Matroska"] == ("clip", [".mkv"])
    assert "Photoshop" not in formats
    assert ("HEIC" in formats) == (find_spec("pillow_heif") is not None)


def test_figures(client: httpx.Client) -> None:
    before = figures(client)
    job = submit(client, "a.png", png())
    ended(client, job)
    client.delete(f"/api/jobs/{job}")
    refused(send(client, "a.png", b"x"), 415)
    after = figures(client)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('derain_jobs_total{outcome="done"}') == 1
    assert grown('derain_http_responses_total{status="201"}') == 1
    assert grown('derain_http_responses_total{status="415"}') == 1
    assert grown("derain_upload_bytes_total") == len(png())
    assert after["process_resident_memory_bytes"] > 1e6


def figures(client: httpx.Client) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = (line for line in answer.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_token(tmp_path: Path) -> None:
    with in_thread(tmp_path, LIMITS, token="secret ü") as client:
        assert client.get("/").status_code == 200
        assert client.get("/health").status_code == 200
        for path in ("/api/models", "/api/jobs/x", "/api/openapi.json", "/metrics"):
            refused(client.get(path), 401)
        refused(send(client, "a.png", png()), 401)
        for wrong in ("", "secret", "Bearer", "Bearer secret", "Basic c2VjcmV0", "Bearer secret ü x"):
            refused(client.get("/api/models", headers={"Authorization": wrong.encode()}), 401)
        bearer = {"Authorization": "Bearer secret ü".encode("latin-1")}
        assert client.get("/api/models", headers=bearer).status_code == 200
        refused(client.post("/api/login", json={"token": "wrong"}), 401)
        refused(client.post("/api/login", json={}), 422, "'token' is missing.")
        refused(client.post("/api/login", json={"token": 3}), 422, "'token' must be text.")
        refused(client.post("/api/login", json=[]), 422, "the body must be a JSON object.")
        refused(client.post("/api/login", content=b"token=x"), 422, "the body must be JSON.")
        for odd in (b'{"token": "\\ud800"}', b'{"token": 3}', b"[]", b"", b"\xff", b'"' * 3):
            status = client.post("/api/login", content=odd).status_code
            assert status in (401, 422), odd
        refused(client.post("/api/login", content=bytes(20_000)), 413)
        answer = client.post("/api/login", json={"token": "secret ü"})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "secret" not in cookie
        assert client.get("/api/models").status_code == 200  # by the cookie
        client.cookies.clear()
        for cookie in ("derain_session=", "derain_session=secret", "derain_session=\xff", ";;=;"):
            refused(client.get("/api/models", headers={"Cookie": cookie.encode("latin-1")}), 401)


def test_time_storage_and_deletion(tmp_path: Path) -> None:
    strict = replace(LIMITS, job_seconds=0.3, upload_seconds=0.3, storage_bytes=1, keep_seconds=1)
    with in_thread(tmp_path, strict) as client:
        job = submit(client, "long.png", flat_png(1000, 1000), model="spanet")
        failed = ended(client, job)
        assert failed["state"] == "failed"
        assert failed["note"] == "long.png: took longer than 0.3 s; send a smaller picture or a shorter clip."
        until(lambda: not jobs_in(tmp_path))  # by the clock, without another request
        refused(client.get(f"/api/jobs/{job}"), 404)
        slow = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
        slow.putrequest("POST", "/api/jobs")
        slow.putheader("Content-Type", "multipart/form-data; boundary=x")
        slow.putheader("Content-Length", "1000")
        slow.endheaders(b"--x\r\n")
        answer = slow.getresponse()
        assert answer.status == 408
        assert b"took longer than 0.3 s" in answer.read()
        slow.close()
        running = submit(client, "long.png", flat_png(1000, 1000), model="spanet")
        refused(send(client, "a.png", png()), 503, "the store is full")
        assert client.get(f"/api/jobs/{running}").status_code == 200
    assert not list(tmp_path.glob("derain-serve-*"))  # stopped in the middle of a job


def test_an_upload_of_a_byte_now_and_then_loses_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derain.serve.forms.PATIENCE", 0.2)
    monkeypatch.setattr("derain.serve.guard.DRAIN_SECONDS", 0.5)
    with in_thread(tmp_path, replace(LIMITS, waiting=1, upload_pace=1e6)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as slow:
            slow.sendall(
                b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
            while not select.select([slow], [], [], 0.01)[0]:
                slow.sendall(b"-")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        until(lambda: send(client, "a.png", png()).status_code == 201)


def test_silent_connections_leave_room_for_others(client: httpx.Client) -> None:
    address = (client.base_url.host, client.base_url.port or 0)
    silent = [socket.create_connection(address) for _ in range(300)]
    try:
        for connection in silent[:150]:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert client.get("/health").status_code == 200
    finally:
        for connection in silent:
            connection.close()


def test_what_is_no_request_is_answered_and_fills_no_log(client: httpx.Client) -> None:
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as odd:
            odd.settimeout(30)
            odd.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
            assert odd.recv(100).startswith(b"HTTP/1.1 400")
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
    assert told.getvalue() == ""


def test_a_connection_that_asks_nothing_is_ended(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derain.serve.server.PATIENCE", 0.2)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as silent:
        silent.settimeout(30)
        silent.sendall(b"GET /health HTTP/1.1\r\n")
        assert silent.recv(100) == b""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as silent:
        silent.settimeout(30)
        silent.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHo")
        answer = b"".join(iter(lambda: silent.recv(1000), b""))  # until it is closed
        assert answer.count(b"200 OK") == 1
    assert client.get("/health").status_code == 200
