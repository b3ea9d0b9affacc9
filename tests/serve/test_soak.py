"""Many clients at once, good ones and hostile ones: every good request is answered right, nothing is left."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from derain.pictures import Picture, read_picture, write_picture
from derain.restore import load
from fuzz import requests
from serving import LOG, PATIENCE, as_command

MEGABYTES = 600
FULL = (429, 503)  # the queue or the storage is full: the client asks again


@dataclass
class Findings:
    """What clients saw."""

    statuses: Counter[int | None] = field(default_factory=Counter)
    good: int = 0
    wrong: list[str] = field(default_factory=list)
    megabytes: float = 0.0


def soak(folder: Path, clients: int, goes_on: Callable[[int], bool]) -> Findings:
    """Lets clients, every second of them hostile, send requests; each as long as `goes_on(its round)`.

    Args:
        folder: of the server's files; it is empty afterwards.
    """
    found, lock = Findings(), threading.Lock()
    pictures = [_picture(folder.parent / "good", number) for number in range(4)]
    (folder).mkdir()
    options = ("--max-pixels", "1", "--max-waiting", str(clients))
    with as_command(folder, *options, stop=signal.SIGTERM) as address:
        (server,) = (p for p in psutil.Process().children(recursive=True) if "serve" in p.cmdline())
        port = int(address.rpartition(":")[2])
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                found.megabytes = max(found.megabytes, server.memory_info().rss / 1e6)

        def client(number: int) -> None:
            rounds = 0
            while goes_on(rounds):
                rounds += 1
                if number % 2:
                    status = _hostile(port, folder.parent, number, rounds)
                    with lock:
                        found.statuses[status] += 1
                    continue
                content, right = pictures[(number + rounds) % len(pictures)]
                statuses, told = _good(address, content, right, folder.parent / f"{number}.png")
                with lock:
                    found.statuses.update(statuses)
                    found.good += told == ""
                    found.wrong += [told] if told else []

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))
        ended.set()
        watcher.join()
        assert httpx.get(f"{address}/health", timeout=PATIENCE).json() == {"status": "ok"}
    assert [path.name for path in folder.iterdir()] == [LOG]
    return found


def _picture(folder: Path, number: int) -> tuple[bytes, np.ndarray]:
    """A rainy picture as a file, and what becomes of it."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 255, (24 + number, 30, 3), dtype=np.uint8)
    write_picture(folder / f"{number}.png", Picture(pixels))
    load()(folder / f"{number}.png", output=folder / f"dry{number}.png")
    return (folder / f"{number}.png").read_bytes(), read_picture(folder / f"dry{number}.png").pixels


def _hostile(port: int, folder: Path, number: int, rounds: int) -> int | None:
    rng = np.random.default_rng([number, rounds])
    place = folder / f"hostile{number}"
    place.mkdir(exist_ok=True)
    content = requests.make(rng, place).read_bytes()
    if rounds % 7 == 0:  # says nothing for a while, and goes
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(content[: len(content) // 2])
        return None
    return requests.status_of(port, content)


def _good(address: str, content: bytes, right: np.ndarray, place: Path) -> tuple[list[int], str]:
    """The statuses of all requests for one picture, and what was wrong; "" for nothing."""
    statuses = []
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        while True:
            sent = client.post("/api/jobs", files={"file": ("a.png", content)})
            statuses.append(sent.status_code)
            if sent.status_code not in FULL:
                break
            threading.Event().wait(0.05 + 0.1 * random.random())
        if sent.status_code != 201:
            return statuses, sent.text
        job = sent.json()["id"]
        with client.stream("GET", "/api/events", params={"id": job}) as events:
            statuses.append(events.status_code)
            told = "".join(events.iter_lines())
        result = client.get(f"/api/jobs/{job}/result")
        statuses.append(result.status_code)
        statuses.append(client.delete(f"/api/jobs/{job}").status_code)
    if result.status_code != 200:
        return statuses, told[-500:]
    place.write_bytes(result.content)
    same = np.array_equal(read_picture(place).pixels, right)
    return statuses, "" if same else "another picture came back"


def check(found: Findings) -> None:
    assert found.wrong == []
    assert found.good
    assert [status for status in found.statuses if status and status >= 500 and status != 503] == []
    assert found.megabytes < MEGABYTES


def test_a_few_clients_at_once(tmp_path: Path) -> None:
    check(soak(tmp_path / "server", 8, lambda rounds: rounds < 3))


@pytest.mark.heavy
def test_64_clients_for_three_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = time.monotonic() + 180
    found = soak(tmp_path / "server", 64, lambda _: time.monotonic() < end)
    with capsys.disabled():
        print(f"\n{found.good} good, {dict(found.statuses)}, at most {found.megabytes:,.0f} MB")
    check(found)
