"""Runs restoring functions over a set of pairs and keeps what each picture gave, so that it can go on.

Every finished picture is a line of `records.jsonl` and a restored PNG; a second run takes the lines that
were made with the same weights, settings, files and protocols, and does only the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import psutil
import torch
from torch import Tensor

from derain.data.pairing import Pair
from derain.errors import DerainError
from derain.evaluation.files import read_levels
from derain.evaluation.pairs import Array, Quantise, as_rgb, single
from derain.evaluation.registry import protocol
from derain.evaluation.scores import PictureScore, SetScore
from derain.pictures import Picture, read_picture, to_tensor, write_picture

RAINY = "rainy"  # the contender that does nothing: what the pictures score before


@dataclass(frozen=True)
class Contender:
    """Something that restores pictures.

    Attributes:
        name: a folder name; unique in an evaluation.
        method: the name of the network and size, by which published figures of the same one are
            found; "" for a size that nobody published.
        restore: (1, 3, H, W) float32 RGB in [0, 1] -> the same, on the CPU.
        identity: what the result depends on (hash of the weights, settings).
        parameters: how many it has.
        multiply_adds: of one (height, width) picture; None where there is no network.
    """

    name: str
    method: str
    restore: Callable[[Tensor], Tensor]
    identity: str
    parameters: int
    multiply_adds: Callable[[int, int], int] | None


@dataclass(frozen=True)
class Record:
    """What one contender did with one picture.

    Attributes:
        key: hash of all that the values depend on.
        scores: {protocol: {measure: value}}.
        seconds: wall time of restoring, without reading, scoring and writing.
        pixels: height times width.
        peak_bytes: most memory of the process meanwhile (of the accelerator where there is one).
    """

    contender: str
    name: str
    key: str
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    pixels: int
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """All records of one contender, in the order of the pairs."""

    contender: Contender
    records: tuple[Record, ...]

    def scores(self, name: str) -> SetScore:
        """Of all pictures under a protocol."""
        return SetScore(name, tuple(PictureScore(r.name, r.scores[name]) for r in self.records))

    @property
    def seconds(self) -> float:
        """Median wall time of one picture."""
        return statistics.median(r.seconds for r in self.records)

    @property
    def megapixels_per_second(self) -> float:
        return sum(r.pixels for r in self.records) / 1e6 / sum(r.seconds for r in self.records)

    @property
    def peak_bytes(self) -> int:
        return max(r.peak_bytes for r in self.records)


def rainy_contender() -> Contender:
    """The pictures as they are, so that a table says what was gained."""
    return Contender(RAINY, RAINY, lambda rainy: rainy, RAINY, 0, None)


def evaluate(
    contenders: Sequence[Contender],
    pairs: Sequence[Pair],
    protocols: Sequence[str],
    folder: Path,
    quantise: Quantise = "round",
    on_picture: Callable[[], None] = lambda: None,
) -> tuple[Result, ...]:
    """Restores and scores every pair with every contender, going on where an earlier run stopped.

    Args:
        pairs: rainy pictures (as `restored`) with their clean ones.
        protocols: names; those that take floats score the network's output itself, clamped to [0, 1].
            Grey pictures count as three equal channels.
        folder: receives `records.jsonl` and `restored/CONTENDER/NAME.png`.
        quantise: how the output becomes bytes, in the file and for protocols that score bytes.
        on_picture: called after each picture of each contender, also those done before.

    Raises:
        DerainError: a picture cannot be read, restored, compared or written; names it.
    """
    chosen = list(dict.fromkeys(protocols))
    records_file = folder / "records.jsonl"
    # The latest of each: the restored picture beside it is of the same run.
    done = {(record.contender, record.name): record for record in _load(records_file)}
    results = []
    for contender in contenders:
        records = []
        for pair in pairs:
            key = _key(contender, pair, quantise)
            record = done.get((contender.name, pair.name))
            target = restored_file(folder, contender, pair)
            if (
                record is None
                or record.key != key
                or not set(chosen) <= set(record.scores)
                or not target.is_file()
            ):
                record, pixels = _run(contender, pair, chosen, quantise, key)
                if contender.name != RAINY:
                    write_picture(target, Picture(pixels))
                _append(records_file, record)
            records.append(record)
            on_picture()
        results.append(Result(contender, tuple(records)))
    return tuple(results)


def restored_file(folder: Path, contender: Contender, pair: Pair) -> Path:
    """Where the restored picture of a pair lies; the rainy one stays where it is."""
    if contender.name == RAINY:
        return pair.restored
    return folder / "restored" / contender.name / PurePath(pair.name).with_suffix(".png")


def _run(
    contender: Contender, pair: Pair, protocols: Sequence[str], quantise: Quantise, key: str
) -> tuple[Record, Array]:
    rainy, (clean, _) = read_picture(pair.restored), read_levels(pair.clean)
    if rainy.size != clean.shape[:2]:
        (height, width), (clean_height, clean_width) = rainy.size, clean.shape[:2]
        raise DerainError(
            f"{pair.restored} is {width}x{height} and {pair.clean} {clean_width}x{clean_height}; "
            "they must be equal."
        )
    picture = to_tensor(rainy)
    try:
        with _peak_memory() as peak:
            began = time.perf_counter()
            restored = contender.restore(picture)
            seconds = time.perf_counter() - began
        pixels = single(restored, 1, quantise)
        truth = as_rgb(clean)
        scores = {name: protocol(name)(restored, truth, quantise) for name in protocols}
    except DerainError as error:
        raise type(error)(f"{pair.restored}: {error}") from None
    height, width = rainy.size
    record = Record(contender.name, pair.name, key, scores, seconds, height * width, peak[0])
    return record, pixels


def _key(contender: Contender, pair: Pair, quantise: Quantise) -> str:
    """Changes with the weights, the settings and the two files."""
    facts = [contender.name, contender.identity, quantise]
    for path in (pair.restored, pair.clean):
        try:
            status = path.stat()
        except OSError as error:
            raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
        facts += [str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]


def _append(path: Path, record: Record) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            is_torn = file.read(1) not in (b"", b"\n")  # the last line of a run that was cut off
            file.write(b"\n" * is_torn + json.dumps(asdict(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DerainError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _load(path: Path) -> Iterator[Record]:
    """The records of earlier runs; a line that was cut off by a stop is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield Record(**fields)


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Most memory while the block runs, in the list's only entry: of CUDA, else resident, sampled."""
    peak = [0]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # only where a network is on it
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = torch.cuda.max_memory_allocated()
        return
    process, stop = psutil.Process(), threading.Event()

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss)
            if stop.wait(0.01):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
        peak[0] = max(peak[0], process.memory_info().rss)


def ranked(result: Result, name: str, pairs: Sequence[Pair]) -> list[tuple[Pair, Record]]:
    """Pairs and their records from the best to the worst by the first measure of a protocol."""
    chosen = protocol(name)
    measure, sign = chosen.measures[0], -1 if chosen.higher_is_better else 1
    entries = list(zip(pairs, result.records, strict=True))
    return sorted(entries, key=lambda entry: sign * entry[1].scores[name][measure])
