"""Many clients at once against `derain serve`: good, huge, broken and hostile uploads for a minute.

Every good upload must give exactly what `derain run` writes, every bad one a clean answer of 400 to 499, and
nothing may be left in the end. A full queue (429) is a clean answer to a good upload, too; it is tried again.

    python benchmarks/load_serve.py [SECONDS] [CLIENTS]
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import psutil

from derain.pictures import Picture, encode_picture

LIMIT = 20_000_000  # bytes of one upload
KINDS = (".png", ".jpg", ".webp", ".tif")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bad_uploads() -> dict[str, Callable[[httpx.Client], httpx.Response]]:
    """{what it is: one request that must be refused}."""
    photo = encode_picture(Picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), ".jpg")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(20_000_000)))
    bomb = b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'

    def file(name: str, content: bytes) -> Callable[[httpx.Client], httpx.Response]:
        return lambda client: client.post("/api/jobs", files={"file": (name, content)})

    return {
        "huge, announced": file("huge.png", bytes(LIMIT + 5_000_000)),
        "huge, in chunks": lambda client: client.post(
            "/api/jobs", content=(bytes(1 << 20) for _ in range(40)), headers=form
        ),
        "bomb": file("bomb.png", bomb),
        "half a JPEG": file("half.jpg", photo[: len(photo) // 2]),
        "a broken form": lambda client: client.post("/api/jobs", content=part + photo, headers=form),
        "no picture": file("../../etc/passwd.png", b"root:x:0:0"),
        "a playlist": file("clip.mp4", b"#EXTM3U\nfile:///etc/passwd\n"),
        "a broken clip": file("clip.mp4", b"\0\0\0\x18ftypisom" + os.urandom(5000)),
        "no model": lambda client: client.post(
            "/api/jobs", files={"file": ("a.jpg", photo)}, data={"model": "../../x"}
        ),
        "an unknown id": lambda client: client.get("/api/jobs/..%2f..%2fetc/result"),
        "another host": lambda client: client.get("/api/models", headers={"Host": "evil.example"}),
        "another site": lambda client: client.post(
            "/api/jobs", files={"file": ("a.jpg", photo)}, headers={"Origin": "http://evil.example"}
        ),
    }


def restore(client: httpx.Client, name: str, content: bytes) -> bytes | None:
    """The result of a good upload; None when the queue was full."""
    answer = client.post("/api/jobs", files={"file": (name, content)})
    if answer.status_code == 429:
        return None
    assert answer.status_code == 201, answer.text
    job = answer.json()["id"]
    with client.stream("GET", "/api/events", params={"id": job}) as stream:
        views = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert views[-1]["state"] == "done", views[-1]
    result = client.get(f"/api/jobs/{job}/result").content
    if random.random() < 0.5:
        assert client.delete(f"/api/jobs/{job}").status_code == 204
    return result


def hang_up(address: str, head: bytes) -> None:
    """Half an upload, and gone."""
    url = httpx.URL(address)
    with socket.create_connection((url.host, url.port)) as raw:
        raw.sendall(
            b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head
        )


def main(seconds: float, clients: int) -> None:
    command = [sys.executable, "-m", "derain"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        good: dict[str, bytes] = {}
        (folder / "rainy").mkdir()
        for number in range(8):
            name = f"{number}{KINDS[number % 4]}"
            pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 48, 3), np.uint8)
            good[name] = encode_picture(Picture(pixels), KINDS[number % 4])
            (folder / "rainy" / name).write_bytes(good[name])
        subprocess.run([*command, "run", str(folder / "rainy"), "-o", str(folder / "dry")], check=True)
        right = {name: (folder / "dry" / name).read_bytes() for name in good}

        (folder / "tmp").mkdir()
        server = subprocess.Popen(
            [*command, "serve", "-q", "--port", "0", "--max-upload", str(LIMIT / 1e6), "--max-waiting", "12"],
            env={**os.environ, "TMPDIR": str(folder / "tmp")}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        counts: Counter[str] = Counter()
        wrong: list[str] = []
        end = time.monotonic() + seconds
        peak = 0

        def visit(number: int) -> None:
            chance = random.Random(number)
            bad = bad_uploads()
            with httpx.Client(base_url=address, timeout=300) as client:
                while time.monotonic() < end:
                    what = "?"
                    try:
                        if chance.random() < 0.5:
                            what = chance.choice(sorted(good))
                            result = restore(client, what, good[what])
                            counts["queue full" if result is None else "good"] += 1
                            if result is not None and result != right[what]:
                                wrong.append(f"{what}: not what derain run writes")
                        elif chance.random() < 0.1:
                            hang_up(address, b"--x\r\n")
                            counts["hung up"] += 1
                        else:
                            what = chance.choice(sorted(bad))
                            answer = bad[what](client)
                            counts[f"refused {answer.status_code}"] += 1
                            if not 400 <= answer.status_code < 500 or answer.json().keys() != {"error"}:
                                wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")
                    except (AssertionError, httpx.HTTPError, OSError) as error:
                        wrong.append(f"{what}: {type(error).__name__} {error}")

        threads = [threading.Thread(target=visit, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        resident = psutil.Process(server.pid)
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, resident.memory_info().rss)
            threads[0].join(0.1)
            time.sleep(0.1)
        with httpx.Client(base_url=address, timeout=300) as client:
            figures = client.get("/metrics").text
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        left = [str(path) for path in (folder / "tmp").rglob("*")]
    print(f"{clients} clients, {seconds:g} s: {dict(sorted(counts.items()))}")
    print(next(line for line in figures.splitlines() if line.startswith("derain_job_seconds_total")))
    print(f"peak resident memory of the server {peak / 1e6:,.0f} MB; files left: {len(left)}")
    print(f"wrong: {len(wrong)}", *wrong[:20], sep="\n  ")
    sys.exit(bool(wrong or left))


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 60, int(sys.argv[2]) if sys.argv[2:] else 16)
