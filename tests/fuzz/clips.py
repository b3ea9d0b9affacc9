"""Broken clips: restored by a network that changes nothing, into any container."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from clips import moving_scene, write_clip
from derain.paths import parts_of
from derain.pictures.kinds import VIDEO_KINDS
from derain.pictures.video_facts import video_facts
from derain.restore.video import restore_video
from fuzz.mutations import mutated
from fuzz.pictures import SHARED
from fuzz.trial import Kind

HEIGHT, WIDTH, COUNT = 24, 32, 6
TARGETS = tuple(VIDEO_KINDS)
# Container -> codec of the pictures, how samples are stored, codec of the sound.
MADE = (
    (".mp4", "libx264", "yuv420p", "aac"),
    (".mp4", "mpeg4", "yuv420p", None),
    (".mov", "prores_ks", "yuva444p10le", "pcm_s16le"),
    (".mov", "qtrle", "argb", None),
    (".mkv", "libx264", "yuv420p", "flac"),
    (".mkv", "ffv1", "yuv420p10le", None),
    (".webm", "libvpx-vp9", "yuv420p", "libopus"),
    (".avi", "mpeg4", "yuv420p", "mp3"),
    (".avi", "mjpeg", "yuvj420p", None),
    (".ts", "libx264", "yuv420p", "aac"),
    (".mpg", "mpeg2video", "yuv420p", "mp2"),
    (".flv", "flv", "yuv420p", None),
    (".wmv", "wmv2", "yuv420p", None),
    (".gif", "gif", "rgb8", None),
)


@functools.cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """{container: good files}."""
    frames = list(moving_scene(COUNT, HEIGHT, WIDTH))
    found: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix, codec, stored, sound in MADE:
            path = Path(folder) / f"a{suffix}"
            texts = suffix in (".mp4", ".mkv") and sound is not None
            options = {"bf": "0"} if suffix == ".avi" and codec == "mpeg4" else None
            write_clip(
                path,
                frames,
                codec=codec,
                pixel_format=stored,
                audio=sound,
                subtitles=texts,
                rotation=90 if texts else None,
                tags={"title": "rain"},
                options=options,
            )
            found.setdefault(suffix, []).append(path.read_bytes())
    for path in sorted([*(SHARED / "formats").glob("*"), *(SHARED / "videos").glob("*")]):
        suffix = {".mts": ".ts"}.get(path.suffix, path.suffix)
        if suffix in found and path.stat().st_size < 30_000:
            found[suffix].append(path.read_bytes())
    return {name: tuple(files) for name, files in found.items()}


def make(rng: np.random.Generator, folder: Path) -> Path:
    containers = sorted(seeds())
    name = containers[int(rng.integers(len(containers)))]
    files = seeds()[name]
    content, other = (files[int(rng.integers(len(files)))] for _ in range(2))
    path = folder / f"a{name}"
    path.write_bytes(mutated(content, other, rng))
    return path


def unchanged(rainy: Tensor) -> Tensor:
    return rainy


def use(source: Path, output: Path) -> None:
    suffix = source.suffix
    if suffix not in TARGETS or source.stat().st_size % 2:
        suffix = TARGETS[source.stat().st_size // 2 % len(TARGETS)]
    target = output / f"result{suffix}"
    parts = parts_of(target)
    try:
        result = restore_video(source, target, unchanged)
        assert parts.exists() == bool(result.shortfall), result
    finally:
        # Beside what can be read, there may be segments for another run, or the mark of a damaged source.
        if target.exists():
            video_facts(target)
        if parts.exists():
            for file in parts.iterdir():
                assert ".part" not in file.name, file
                file.unlink()
            parts.rmdir()
    assert target.exists(), result


CLIPS = Kind("clips", 3_000, make, use)
