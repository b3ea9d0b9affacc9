"""A real server on loopback: in a thread of this process, or as the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from command_line import environment
from derain.restore import Settings
from derain.serve.api import create_app
from derain.serve.guard import LOOPBACK_NAMES
from derain.serve.limits import Limits
from derain.serve.models import offered
from derain.serve.server import http_server
from derain.serve.worker import WorkerSettings

PATIENCE = 120  # seconds for one answer
LOG = "serve.log"  # the name of a file


@contextmanager
def in_thread(
    folder: Path,
    limits: Limits,
    token: str | None = None,
    *,
    models: Sequence[str] = (),
    workers: int = 1,
    callback_hosts: frozenset[str] = frozenset(),
) -> Iterator[httpx.Client]:
    """A server whose files lie in `folder`, and a client of it; ready when it comes."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    work = WorkerSettings(offered(models), Settings(device="cpu"), threads=1, workers=workers)
    app = create_app(limits, work, token=token, hosts=LOOPBACK_NAMES, callback_hosts=callback_hosts)
    server = http_server(app, stopping=lambda: app.state.server.store.close())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=address, timeout=PATIENCE) as client:
                client.get("/health").raise_for_status()
                until(lambda: app.state.server.workers.ready)
                yield client
        finally:
            server.should_exit = True
            thread.join()
            tempfile.tempdir = before


@contextmanager
def as_command(folder: Path, *options: str, stop: signal.Signals = signal.SIGINT) -> Iterator[str]:
    """The address of `derain serve OPTIONS...`, whose files and log lie in `folder`; stopped by a signal."""
    command = [sys.executable, "-m", "derain", "serve", "--port", "0", "--device", "cpu", *options]
    surroundings = {**environment(), "TMPDIR": str(folder)}
    with (folder / LOG).open("w") as log:
        running = subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert running.stdout is not None
        address = running.stdout.readline().split()
        assert address, "the server did not start"
        yield address[0]
    finally:
        running.send_signal(stop)
        running.communicate(timeout=PATIENCE)
    said = (folder / LOG).read_text("utf-8")
    assert running.returncode == 0, said  # a signal is the usual end of a server
    assert "Traceback" not in said, said


def send(client: httpx.Client, name: str, content: bytes, **fields: str) -> httpx.Response:
    return client.post("/api/jobs", files={"file": (name, content)}, data=fields)


def submit(client: httpx.Client, name: str, content: bytes, **fields: str) -> str:
    """The id of a job that is accepted."""
    answer = send(client, name, content, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def events(client: httpx.Client, *ids: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) until all jobs have ended."""
    with client.stream("GET", "/api/events", params=[("id", job) for job in ids]) as stream:
        assert stream.status_code == 200, stream.read()
        assert stream.headers["content-type"].startswith("text/event-stream")
        event = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            if line.startswith("data: "):
                yield event, json.loads(line.removeprefix("data: "))


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    """The job when it is over."""
    return list(events(client, job))[-1][1]


def until(condition: Callable[[], object]) -> None:
    """Gives way to others until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        os.sched_yield()
