"""Folders with everything in them that a folder can have: restored by the command, as a whole."""

from __future__ import annotations

import functools
import json
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from command_line import derain_here
from derain.checkpoints import save_checkpoint
from derain.errors import DerainError
from derain.pictures import read_picture
from fuzz import clips, pictures
from fuzz.checkpoints import weights
from fuzz.mutations import mutated
from fuzz.trial import Kind

NAMES = (
    *(b"photo.png", b"photo.jpg", b"photo.JPG", b"a b.tif", b"-o.png", b"--json.jpg", b"no extension"),
    *(b"\xff\xfe.png", b"line\nbreak.png", b"\x1b[31mred.jpg", b"\xe2\x80\xae.png", b"x" * 240 + b".png"),
    *("\u0300\u00fc\U0001f327.png".encode(), b"a.png.txt", b".hidden.png", b"...png", b"%s%n.png", b"a.mp4"),
    *(b"NUL.png", b"a'b\".jpg", b"$(id).png", b"[bold].png", b"*.png", b"photo.heic", b"photo.jxl", b"a.gif"),
)
FOLDERS = (b"sub", b"sub.png", b"\xff", b"maps", b"a b", b"y" * 200)
OTHERS = (b"", b"text", b"\xff\x0a" + bytes(99), b"\0\0\0\x18ftypheic" + bytes(99), b"%PDF-1.7", bytes(2000))


@functools.cache
def network() -> Path:
    path = Path(tempfile.mkdtemp(prefix="derain-fuzz-")) / "small.safetensors"
    save_checkpoint(path, weights(), {})
    return path


def make(rng: np.random.Generator, folder: Path) -> Path:
    top = os.fsencode(folder / "rainy")
    os.mkdir(top)  # noqa: PTH102  # names that are no text
    places = [top]
    for _ in range(int(rng.integers(1, 9))):
        here = places[int(rng.integers(len(places)))]
        if rng.random() < 0.25:
            path = os.path.join(here, FOLDERS[int(rng.integers(len(FOLDERS)))])  # noqa: PTH118
            with suppress(OSError):
                os.mkdir(path)  # noqa: PTH102
                places.append(path)
            continue
        path = os.path.join(here, NAMES[int(rng.integers(len(NAMES)))])  # noqa: PTH118
        with suppress(OSError):
            _put(path, top, rng)
    return folder / "rainy"


def _put(path: bytes, top: bytes, rng: np.random.Generator) -> None:
    if os.path.lexists(path):
        return
    match int(rng.integers(14)):
        case 0:
            os.symlink(os.path.basename(path), path)  # noqa: PTH119, PTH211  # to itself
        case 1:
            os.symlink(top, path)  # noqa: PTH211
        case 2:
            os.symlink(b"/nowhere", path)  # noqa: PTH211
        case 3:
            os.mkfifo(path)
        case 4 if len(path) < 100:
            with socket.socket(socket.AF_UNIX) as place:
                place.bind(path)
        case 5 | 6:
            _write(path, OTHERS[int(rng.integers(len(OTHERS)))])
        case 7:
            files = clips.seeds()[".gif"]
            _write(path, files[int(rng.integers(len(files)))])
        case kind:
            groups = pictures.seeds()
            files = groups[sorted(groups)[int(rng.integers(len(groups)))]]
            content, other = (files[int(rng.integers(len(files)))] for _ in range(2))
            _write(path, content if kind < 12 else mutated(content, other, rng))


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)


def use(source: Path, output: Path) -> None:
    """All pictures that can be read are restored, whatever lies beside them."""
    ran = derain_here("run", source, "-o", output, "--model", network(), "--json")
    code, told = ran.returncode, ran.stdout
    if code == 2:  # nothing to restore, or two would become one
        raise DerainError("refused as a whole")
    assert code in (0, 1), (code, told)
    report = json.loads(told)
    rows = [*report["pictures"], *report["videos"]]
    assert len(rows) == report["restored"] + report["failed"] + report["skipped"]
    for row in report["pictures"]:
        readable = True
        try:
            read_picture(row["source"])
        except DerainError:
            readable = False
        assert (row["status"] == "restored") == readable or row["status"] == "failed", row
        if row["status"] == "restored":
            read_picture(row["target"])
        assert "an unexpected error" not in row["note"], row
    complete = not report["failed"] and not any(entry["advice"] for entry in report["unread"])
    assert code == (0 if complete else 1), (code, report)


FOLDERS_OF_FILES = Kind("folders", 1_000, make, use, quiet=False)
