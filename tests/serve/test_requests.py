"""What programs and operators get: waiting, batches, callbacks, finishing, logs, figures."""

from __future__ import annotations

import http.server
import io
import json
import logging
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import clips
from clips import moving_scene, write_clip
from derain.errors import DerainError
from derain.pictures import Picture, encode_picture
from derain.pictures.picture import Text
from derain.restore import load
from derain.serve import callbacks
from derain.serve.finishing import finished, refuse_other_shape
from derain.serve.kept import held_by_picture
from derain.serve.limits import Limits, Refused
from derain.serve.models import offered
from serving import ended, in_thread, send, submit, until

LIMITS = Limits(upload_bytes=400_000, pixels=1_200_000, clip_seconds=1, waiting=3)


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Someone on loopback who takes calls: its HOST:PORT, and what it was told."""
    with listener() as found:
        yield found


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, heard: tuple[str, list[dict[str, object]]]
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("server")
    hosts = frozenset({heard[0]})
    with in_thread(folder, LIMITS, models=["spanet", "everyday"], workers=2, callback_hosts=hosts) as found:
        yield found
    assert not list(folder.glob("derain-serve-*"))


@pytest.fixture(autouse=True)
def _at_rest(client: httpx.Client) -> Iterator[None]:
    """What one test cancels has ended before the next one begins."""
    yield
    until(lambda: "derain_jobs_running 0" in client.get("/metrics").text)


@contextmanager
def listener() -> Iterator[tuple[str, list[dict[str, object]]]]:
    told: list[dict[str, object]] = []

    class Ear(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def noise(height: int = 24, width: int = 32) -> bytes:
    return encode_picture(
        Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)), ".png"
    )


def test_old_paths_and_new_ones_are_the_same(client: httpx.Client) -> None:
    for path in ("/models", "/limits", "/openapi.json"):
        assert client.get(f"/api{path}").json() == client.get(f"/api/v1{path}").json()
    assert client.get("/api/v2/models").status_code == 404
    assert all(path.startswith(("/api/v1/", "/health", "/ready", "/metrics"))
               for path in client.get("/api/v1/openapi.json").json()["paths"])  # fmt: skip


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    job = submit(client, "a.png", noise())
    ended(client, job)
    for path in ("/", "/health", "/metrics", "/page/app.js", f"/api/jobs/{job}", f"/api/jobs/{job}/result",
                 f"/api/v1/events?id={job}", "/nothing", "/api/jobs/x"):  # fmt: skip
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        if path != "/metrics":
            assert head.headers.get("content-length") == got.headers.get("content-length"), path
    assert client.head("/api/v1/batches").status_code == 405
    client.delete(f"/api/jobs/{job}")


def test_head_of_events_does_not_wait_for_the_job(client: httpx.Client) -> None:
    content = encode_picture(Picture(np.full((1000, 1000, 3), 90, np.uint8)), ".png")
    long = submit(client, "long.png", content)
    assert client.head(f"/api/events?id={long}").status_code == 200
    assert client.get(f"/api/jobs/{long}").json()["state"] != "done"
    client.delete(f"/api/jobs/{long}")


def test_requests_have_ids_and_a_line_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "derain.serve")
    answer = send(client, "a.png", noise(), model="everyday")
    job = answer.json()["id"]
    ended(client, job)
    mine = client.get(f"/api/jobs/{job}?secret=1", headers={"X-Request-ID": "order-17.b"})
    assert mine.headers["x-request-id"] == "order-17.b"
    made_up = [client.get("/health", headers={"X-Request-ID": odd}).headers["x-request-id"]
               for odd in ("", "a b", "x" * 65, '"}')]  # fmt: skip
    assert len(set(made_up)) == 4
    assert all(len(name) == 16 for name in made_up)
    until(lambda: len(rows(caplog)) >= 8)
    found = rows(caplog)
    (upload,) = [row for row in found if row.get("id") == answer.headers["x-request-id"] and "route" in row]
    assert (upload["method"], upload["route"], upload["status"]) == ("POST", "/api/v1/jobs", 201)
    (done,) = [row for row in found if row["event"] == "job" and row["job"] == job[:6]]
    assert (done["id"], done["outcome"], done["model"]) == (upload["id"], "done", "everyday")
    assert (done["width"], done["height"]) == (32, 24)
    (asked,) = [row for row in found if row.get("id") == "order-17.b"]
    assert (asked["route"], asked["job"]) == ("/api/v1/jobs/{job_id}", job[:6])
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert job not in said  # who reads the log sees no job
    assert "secret" not in said
    client.delete(f"/api/jobs/{job}")


def rows(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "derain.serve"]


def test_waiting_for_a_picture(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(noise())
    for model, strength in (("everyday", 0.4), ("spanet", 1.0)):
        answer = client.post(
            "/api/v1/restore",
            files={"file": ("ü.png", noise())},
            data={"model": model, "strength": str(strength)},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"].endswith("filename*=UTF-8''%C3%BC-derained.png")
        assert unquote(answer.headers["derain-note"]) == ""
        target = tmp_path / f"{model}.png"
        load(model, device="cpu", strength=strength)(tmp_path / "a.png", target)
        assert answer.content == target.read_bytes()
    assert "derain_stored_bytes 0" in client.get("/metrics").text  # nothing is kept
    clip = write_clip(tmp_path / "a.mp4", list(moving_scene(6, 48, 64)))
    for files, data, said in (
        ({"file": ("a.png", b"no picture")}, {}, "neither a known kind of picture"),
        ({"file": ("a.mp4", clip.read_bytes())}, {}, "takes pictures only; send clips to /api/v1/jobs."),
        ({"file": ("a.png", noise())}, {"callback": "http://127.0.0.1"}, "unknown field 'callback'. "),
        ({"file": ("a.png", noise())}, {"strength": "1.6"}, "strength 1.6"),
        ({"file": ("a.png", noise())}, {"strength": "much"}, "strength 'much'"),
    ):
        refused = client.post("/api/v1/restore", files=files, data=data)
        assert refused.status_code in (415, 422)
        assert said in refused.json()["error"]


def test_who_stops_waiting_leaves_nothing(client: httpx.Client) -> None:
    content = encode_picture(Picture(np.full((1000, 1000, 3), 90, np.uint8)), ".png")
    request = client.build_request("POST", "/api/v1/restore", files={"file": ("a.png", content)})
    head = f"POST /api/v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request.read())}\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
        kind = request.headers["content-type"]
        raw.sendall(f"{head}Content-Type: {kind}\r\n\r\n".encode() + request.read())
        until(lambda: "derain_jobs_running 1" in client.get("/metrics").text)
    until(lambda: "derain_stored_bytes 0" in client.get("/metrics").text)


def test_a_batch(client: httpx.Client) -> None:
    contents = {"a.png": noise(), "notes.txt": b"text", "empty.png": b"", "b.png": noise()}
    files = [("file", item) for item in contents.items()]
    answer = client.post("/api/v1/batches", files=files, data={"model": "everyday", "strength": "0.5"})
    assert answer.status_code == 201, answer.text
    first, second, empty, third = answer.json()
    assert (empty["job"], empty["error"]) == (None, "the file is empty.")
    assert second["job"] is None
    assert "neither a known kind of picture" in second["error"]
    for entry, name in ((first, "a.png"), (third, "b.png")):
        assert (entry["name"], entry["error"]) == (name, "")
        view = ended(client, entry["job"]["id"])
        assert (view["state"], view["model"], view["strength"]) == ("done", "everyday", 0.5)
        client.delete(f"/api/jobs/{entry['job']['id']}")
    large = [("file", (f"{number}.png", bytes(150_000))) for number in range(3)]
    assert client.post("/api/v1/batches", files=large).status_code == 413


def test_unknown_and_repeated_fields_are_refused(client: httpx.Client) -> None:
    unknown = send(client, "a.png", noise(), quality="9").json()["error"]
    assert unknown == "unknown field 'quality'. Known: callback, file, folder, model, strength."
    twice = client.post(
        "/api/jobs", files={"file": ("a.png", noise())}, data={"model": ["spanet", "everyday"]}
    )
    assert twice.status_code == 422
    assert twice.json()["error"] == "'model' was given twice."


def test_the_end_of_a_job_is_told(client: httpx.Client, heard: tuple[str, list[dict[str, object]]]) -> None:
    host, told = heard
    good = send(client, "a.png", noise(), callback=f"http://{host}/done?order=1").json()["id"]
    until(lambda: told)
    until(lambda: not [1 for one in told if one["id"] != good])
    assert [(one["id"], one["state"]) for one in told] == [(good, "done")]  # once, and no redirect followed
    client.delete(f"/api/jobs/{good}")
    port = host.rpartition(":")[2]
    for url in (
        f"http://localhost:{port}/", f"http://127.0.0.1:{int(port) + 1}/", "http://127.0.0.1/",
        f"ftp://{host}/",
        f"http://user@{host}/", f"http://{host}@example.org/", "file:///etc/passwd",
        f"http://{host}/\r\nX: y",
        f"//{host}/", "http://[", f"http://{host}/ü", "http://127.0.0.1:99999/",
    ):  # fmt: skip
        answer = send(client, "a.png", noise(), callback=url)
        assert answer.status_code == 422, url


def test_hosts_with_and_without_a_port() -> None:
    hosts = callbacks.allowed_hosts(("Example.org", "[::1]:8080"))
    for url in ("http://example.org/x", "https://EXAMPLE.org:443", "http://[::1]:8080/"):
        callbacks.refuse_unless_allowed(url, hosts)
    for url in (
        "http://example.org:8080/",
        "https://example.org:80/",
        "http://[::1]/",
        "http://sub.example.org",
    ):
        with pytest.raises(Refused):
            callbacks.refuse_unless_allowed(url, hosts)


def test_models_workers_and_readiness(client: httpx.Client) -> None:
    assert [(m["name"], m["default"]) for m in client.get("/api/v1/models").json()] == [
        ("spanet", True), ("everyday", False)
    ]  # fmt: skip
    assert client.get("/ready").json() == {"status": "ok"}
    content = encode_picture(Picture(np.full((1000, 1000, 3), 90, np.uint8)), ".png")
    jobs = [submit(client, "long.png", content) for _ in range(2)]
    until(lambda: "derain_jobs_running 2" in client.get("/metrics").text)  # both at once
    for job in jobs:
        client.delete(f"/api/jobs/{job}")
    first, *_ = offered([])
    assert first == offered([first.name])[0]
    assert all(model.title.lower().startswith(f"{model.name}: ") for model in offered([]))  # of the card
    assert offered(["folder/mine.safetensors"])[0].name == "mine"
    assert offered(["hf:someone/network@v1"])[0].name == "someone/network@v1"


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    """A checkpoint of the operator's, by its path; clients know it by its name."""
    from derain.checkpoints.bundled import bundled

    (tmp_path / "mine.safetensors").write_bytes(bundled("everyday").read_bytes())
    with in_thread(tmp_path, LIMITS, models=[str(tmp_path / "mine.safetensors")]) as client:
        assert client.get("/api/v1/models").json() == [{"name": "mine", "title": "mine", "default": True}]
        answer = client.post("/api/v1/restore", files={"file": ("a.png", noise())})
        assert answer.status_code == 200
        refused = send(client, "a.png", noise(), model="everyday")
        assert refused.status_code == 422


def test_figures_of_time(client: httpx.Client) -> None:
    client.get("/health")
    text = client.get("/metrics").text
    client.get("/api/openapi.json")
    assert 'route="/api/v1/openapi.json"' in client.get("/metrics").text
    name = 'derain_http_answer_seconds_bucket{method="GET",route="/health",le="'
    counts = [int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
    assert len(counts) == 8
    assert counts == sorted(counts)
    assert counts[-1] >= 1
    assert f'derain_http_answer_seconds_count{{method="GET",route="/health"}} {counts[-1]}' in text
    assert text.count("# TYPE derain_job_seconds histogram") == 1


def test_the_description_says_how_to_sign_in_and_what_comes_back(
    client: httpx.Client, tmp_path: Path
) -> None:
    described = client.get("/api/v1/openapi.json").json()
    assert "security" not in described  # no token, nothing to show
    fields = described["components"]["schemas"]["JobView"]["properties"]
    assert all(field.get("description") for field in fields.values())
    body = described["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(body["schema"]["properties"]) == {"file", "model", "strength", "folder", "callback"}
    for path in ("jobs", "batches", "restore"):
        assert "503" in described["paths"][f"/api/v1/{path}"]["post"]["responses"], path
    with in_thread(tmp_path, LIMITS, token="t") as guarded:
        described = guarded.get("/api/v1/openapi.json", headers={"Authorization": "Bearer t"}).json()
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert described["security"] == [{"token": []}, {"cookie": []}]
    assert described["paths"]["/health"]["get"]["security"] == []


def test_less_of_the_change_and_none_in_places(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(noise(40, 60))
    job = submit(client, "a.png", noise(40, 60))
    done = ended(client, job)
    assert (done["finish"], done["kept"], done["width"], done["height"]) == (None, [], 60, 40)
    path = f"/api/v1/jobs/{job}"
    whole = client.get(f"{path}/result").content
    rainy, restored = (pixels(content) for content in ((tmp_path / "a.png").read_bytes(), whole))

    # As `derain run --strength` makes it, but for rounding.
    answer = client.put(f"{path}/finish", files={"strength": (None, "0.25")})
    assert answer.json()["finish"] == {"strength": 0.25, "protect": False}
    load("spanet", device="cpu", strength=0.25)(tmp_path / "a.png", tmp_path / "quarter.png")
    quarter = pixels((tmp_path / "quarter.png").read_bytes())
    assert np.abs(pixels(client.get(f"{path}/result").content) - quarter).max() <= 1

    mask = np.zeros((20, 30, 3), np.uint8)
    mask[:, 22:] = 255
    files = {"strength": (None, "1"), "protect": ("p.png", encode_picture(Picture(mask), ".png"))}
    assert client.put(f"{path}/finish", files=files).json()["finish"] == {"strength": 1.0, "protect": True}
    half = pixels(client.get(f"{path}/result").content)
    assert (half[:, :25] == restored[:, :25]).all()
    assert (half[:, 46:] == rainy[:, 46:]).all()
    edge = np.abs(half - restored)[:, 32:40].max(), np.abs(half - rainy)[:, 32:40].max()
    assert min(edge) > 0  # soft, as with `derain run --protect`
    assert (rainy[:, :25] != restored[:, :25]).any()
    with zipfile.ZipFile(io.BytesIO(client.get("/api/results.zip", params={"id": job}).content)) as archive:
        assert (pixels(archive.read("a-derained.png")) == half).all()
    assert pixels(client.get(f"{path}/protect").content).shape[:2] == (20, 30)

    for sent in ({"json": {"strength": 0.5}}, {}):
        answer = client.put(f"{path}/finish", **sent)
        assert answer.status_code == 415
        said = "send multipart/form-data, 'strength' and, as a file, 'protect', or one of them."
        assert answer.json()["error"] == said
    for files, status in (
        ({"protect": ("p.png", b"no picture")}, 422),
        ({"protect": ("p.png", noise(20, 30))}, 422),  # a photograph by mistake
        ({"protect": ("p.png", encode_picture(Picture(mask[:, :20]), ".png"))}, 422),  # of another shape
        ({"strength": (None, "2")}, 422),
        ({"file": ("p.png", noise())}, 422),
    ):
        answer = client.put(f"{path}/finish", files=files)
        assert answer.status_code == status
        assert answer.json()["error"].count("protect: ") <= 1
    assert (pixels(client.get(f"{path}/result").content) == half).all()  # what was wrong changed nothing
    assert client.put(f"{path}/finish", files={"strength": (None, "1")}).json()["finish"] is None
    assert client.get(f"{path}/result").content == whole
    assert client.get(f"{path}/protect").status_code == 404
    client.delete(path)


@pytest.mark.parametrize(
    ("mask", "picture", "fits"),
    [
        ((320, 480), (320, 480), True),
        ((683, 1024), (2000, 3000), True),  # as the page draws them, rounded
        ((13, 1024), (30, 2300), True),
        ((1, 1024), (2, 5000), True),
        ((670, 1000), (2000, 3000), True),  # enlarged from 67 x 100
        ((10, 10), (320, 480), False),
        ((480, 320), (320, 480), False),
        ((320, 500), (320, 480), False),
        ((1, 1024), (20, 5000), False),
    ],
)
def test_a_mask_has_the_shape_of_its_picture(
    mask: tuple[int, int], picture: tuple[int, int], fits: bool
) -> None:
    with nullcontext() if fits else pytest.raises(DerainError, match="aspect ratio"):
        refuse_other_shape(mask, picture)


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image, np.int32)


def test_previews_as_large_as_the_picture(client: httpx.Client) -> None:
    job = submit(client, "a.png", encode_picture(Picture(np.full((30, 2300, 3), 90, np.uint8)), ".png"))
    ended(client, job)
    for side in ("before", "after"):
        assert pixels(client.get(f"/api/jobs/{job}/{side}").content).shape[1] == 2000
        assert pixels(client.get(f"/api/jobs/{job}/{side}?full=true").content).shape[:2] == (30, 2300)
    client.delete(f"/api/jobs/{job}")


def test_a_clip_has_a_film_and_says_what_it_kept(client: httpx.Client, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", list(moving_scene(6, 48, 64)), audio="aac")
    job = submit(client, "a.mp4", path.read_bytes(), strength="0")
    done = ended(client, job)
    assert (done["film"], done["kept"], done["strength"]) == (True, ["sound"], 0.0)
    answer = client.get(f"/api/jobs/{job}/film")
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "film.mp4").write_bytes(answer.content)
    frames = np.stack(clips.content(tmp_path / "film.mp4").frames).astype(int)
    assert frames.shape == (6, 48, 128, 3)
    assert np.abs(frames[:, :, :64] - frames[:, :, 64:]).mean() < 3  # strength 0: both halves are one
    assert client.put(f"/api/jobs/{job}/finish", files={"strength": (None, "0.5")}).status_code == 409
    client.delete(f"/api/jobs/{job}")


def test_what_a_picture_holds_is_said() -> None:
    assert held_by_picture(Picture(np.zeros((2, 2, 3), np.uint8))) == ()
    deep = Picture(
        np.zeros((2, 2, 1), np.uint16), np.zeros((2, 2), np.uint16), exif=b"x", texts=(Text("Title", "rain"),)
    )
    assert held_by_picture(deep) == ("16 bits", "grey", "transparency", "EXIF", "texts")


def test_a_finished_result_keeps_depth_and_grey() -> None:
    rng = np.random.default_rng(0)
    deep = Picture(rng.integers(0, 65536, (600, 7, 1), np.uint16))
    other = Picture(rng.integers(0, 65536, (600, 7, 1), np.uint16))
    assert (finished(deep, other, 0, None).pixels == deep.pixels).all()
    assert (finished(deep, other, 1, None).pixels == other.pixels).all()
    keep = torch.from_numpy(rng.random((600, 7), np.float32))[None, None]
    change = other.pixels[..., 0].astype(float) - deep.pixels[..., 0]
    expected = deep.pixels[..., 0] + (1 - keep[0, 0].numpy()) * change
    assert np.abs(finished(deep, other, 1, keep).pixels[..., 0] - expected).max() < 0.6
    assert finished(deep, other, 1.5, None).pixels.max() == 65535
