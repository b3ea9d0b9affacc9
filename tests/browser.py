"""A real headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PATIENCE = 180  # seconds for one step


class Tab:
    """One page; raises `AssertionError` where the page's JavaScript fails."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers, self._events = socket, itertools.count(1), list[dict[str, Any]]()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Accessibility", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            said = json.loads(self._socket.recv(PATIENCE))
            if said.get("id") == number:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            self._events.append(said)

    def event(self, method: str, **wanted: Any) -> dict[str, Any]:
        """Waits for an event with these parameters."""
        while True:
            for said in self._events:
                if said.get("method") == method and wanted.items() <= said["params"].items():
                    self._events.remove(said)
                    return said["params"]
            self._events.append(json.loads(self._socket.recv(PATIENCE)))

    def problems(self) -> list[str]:
        """What the page reported: exceptions, and whatever its own security policy refused."""
        self.run("0")  # all events before this one are in
        errors = [e["params"]["entry"] for e in self._events if e.get("method") == "Log.entryAdded"]
        thrown = [e["params"]["exceptionDetails"] for e in self._events
                  if e.get("method") == "Runtime.exceptionThrown"]  # fmt: skip
        return [e["text"] for e in errors if e["level"] == "error"] + [str(e) for e in thrown]

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, condition: str) -> Any:
        """Waits until an expression of the page is true; looks after every change of the page, and anew where
        the page loads itself anew."""
        wait = f"""new Promise((done) => {{
                const look = () => {{
                    const found = {condition};
                    if (found) {{ seen.disconnect(); done(found); }}
                }};
                const seen = new MutationObserver(look);
                const all = {{subtree: true, childList: true, attributes: true, characterData: true}};
                seen.observe(document, all);
                look();
            }})"""
        while True:
            try:
                return self.run(wait)
            except AssertionError as error:
                if "navigated" not in str(error):
                    raise

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.event("Page.loadEventFired")

    def drop(self, selector: str, files: list[Path]) -> None:
        """Drags files from the desktop onto an element."""
        x, y = self.run(
            f"""(() => {{
                const place = document.querySelector({json.dumps(selector)});
                place.scrollIntoView();
                const r = place.getBoundingClientRect();
                return [r.x + r.width / 2, r.y + r.height / 2];
            }})()"""
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, code: int) -> None:
        """One key, by its name and its virtual key code."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def scheme(self, name: str) -> None:
        """light or dark"""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def violations(self) -> list[str]:
        """What axe-core, a checker of accessibility, finds on the page; skips the test without it.

        DERAIN_AXE names the file axe.min.js of the package axe-core.
        """
        axe = os.environ.get("DERAIN_AXE")
        if axe is None:
            pytest.skip("DERAIN_AXE does not name a file axe.min.js")
        self.run(Path(axe).read_text("utf-8") + "; 0")
        found: list[str] = self.run(
            "axe.run().then((r) => r.violations.map((v) => [v.id, ...v.nodes.map((n) => n.html)].join(' ')))"
        )
        return found

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def names(self) -> dict[str, list[str]]:
        """{role: accessible names} of all that a user can operate."""
        found: dict[str, list[str]] = {}
        for node in self.call("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            if not node["ignored"] and role in (
                "button",
                "link",
                "slider",
                "combobox",
                "textbox",
                "progressbar",
            ):
                found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        return found


@contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """A tab of a fresh browser whose files lie in `folder`; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        said = (line.partition("DevTools listening on ")[2].strip() for line in running.stderr)
        address = next(filter(None, said), None)
        assert address, "Chromium did not start"
        with connect(address, max_size=None) as socket:
            yield Tab(socket)
    finally:
        running.terminate()
        running.communicate()
