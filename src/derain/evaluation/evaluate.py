"""Runs candidates over a set of pictures and saves each outcome, so that it can resume.

Every finished picture is a line in `records.jsonl` and a restored PNG; a second run reuses the lines made
with the same weights, settings, files and protocols, and does only the rest.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from derain.errors import DerainError, UsageError, errors_of, reason
from derain.evaluation.candidates import Candidate
from derain.evaluation.cases import Case
from derain.evaluation.levels import Array, Quantise, as_rgb, single
from derain.evaluation.registry import Protocol, protocol
from derain.evaluation.scores import PictureScore, SetScore
from derain.evaluation.scoring import read_levels
from derain.paths import real
from derain.peak_memory import most_memory, start_memory
from derain.pictures import Picture, read_picture, to_rgb8, to_tensor, write_picture
from derain.records import append_records, read_records


@dataclass(frozen=True)
class Record:
    """What one candidate did with one picture.

    Attributes:
        key: hash of everything that the values depend on.
        scores: {protocol: {measure: value}}; for the first frame of a clip, without the protocols that
            compare with the frame before.
        seconds, cpu_seconds: time taken by restoring, without reading, scoring and writing; None for
            finished results.
        pixels: height times width.
        peak_bytes: peak memory of the device meanwhile, above what was in use before; None where
            unknown.
    """

    candidate: str
    name: str
    key: str
    scores: Mapping[str, Mapping[str, float]]
    seconds: float | None
    cpu_seconds: float | None
    pixels: int
    peak_bytes: int | None


@dataclass(frozen=True)
class Result:
    """All records of one candidate, in the order of the cases.

    Attributes:
        failed: why pictures, or single protocols on them, are missing; one message each. What fails with
            one candidate is missing from the records of all, so that their means can be compared.
    """

    candidate: Candidate
    records: tuple[Record, ...]
    failed: tuple[str, ...] = ()

    def scores(self, name: str) -> SetScore:
        """The scores of all pictures under a protocol."""
        found = (PictureScore(r.name, r.scores[name]) for r in self.records if name in r.scores)
        return SetScore(name, tuple(found))

    @property
    def seconds(self) -> float | None:
        """Median wall time of one picture."""
        known = [r.seconds for r in self.records if r.seconds is not None]
        return statistics.median(known) if known else None

    @property
    def cpu_seconds_per_megapixel(self) -> float | None:
        """Median over the pictures, as the first one also includes what a process does only once."""
        known = [r.cpu_seconds / r.pixels * 1e6 for r in self.records if r.cpu_seconds is not None]
        return statistics.median(known) if known else None

    @property
    def peak_bytes(self) -> int | None:
        return max((r.peak_bytes for r in self.records if r.peak_bytes is not None), default=None)


def evaluate(
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    protocols: Sequence[str],
    folder: Path,
    quantise: Quantise = "round",
    on_picture: Callable[[], None] = lambda: None,
) -> tuple[Result, ...]:
    """Restores and scores every picture with every candidate, resuming where an earlier run stopped.

    Args:
        candidates: networks, and finished results; see `derain.evaluation.candidates`.
        cases: rainy pictures and what they are compared with.
        protocols: names; those that take floats score the network's output itself, clamped to [0, 1].
            Grey pictures count as three equal channels. Those that compare frames take the cases of one
            folder as a clip's frames.
        folder: receives `records.jsonl` and `restored/CANDIDATE/NAME.png`.
        quantise: how the output becomes bytes, in the file and for protocols that score bytes.
        on_picture: called after each picture of each candidate, including those done before.

    Raises:
        DerainError: under some protocol no picture could be read, restored, compared and written; the
            message names the first.
        UsageError: a protocol compares frames, and there are no consecutive ones.
    """
    chosen = [protocol(name) for name in dict.fromkeys(protocols)]
    before: dict[str, Case] = {}
    if any(p.needs_frames for p in chosen):
        before = {b.name: a for a, b in itertools.pairwise(cases) if a.rainy.parent == b.rainy.parent}
        if not before:
            raise UsageError("these protocols compare frames of a clip, and there is only one picture.")
    records_file = folder / "records.jsonl"
    # The latest record of each: the restored picture beside it comes from the same run.
    done = {(record.candidate, record.name): record for record in _load(records_file)}
    found: list[dict[str, Record]] = []
    failed: list[list[DerainError]] = []
    for candidate in candidates:
        records: dict[str, Record] = {}
        errors: list[DerainError] = []
        for case in cases:
            earlier = before.get(case.name)
            wanted = [p for p in chosen if earlier or not p.needs_frames]
            try:
                with errors_of(case.rainy, *candidate.finished.values()):
                    key = _key(candidate, case, earlier, quantise)
                    record = done.get((candidate.name, case.name))
                    if (
                        record is None
                        or not _covers(record, key, wanted)
                        or not restored_file(folder, candidate, case).is_file()
                    ):
                        record, missing = _run(candidate, case, earlier, wanted, folder, quantise, key)
                        errors += missing
                        append_records(records_file, [asdict(record)])
            except DerainError as error:
                errors.append(error)
            else:
                records[case.name] = record
            on_picture()
        found.append(records)
        failed.append(errors)
    return _comparable(candidates, cases, chosen, found, failed)


def _covers(record: Record, key: str, protocols: Sequence[Protocol]) -> bool:
    """Whether a record has scores by all these protocols, with the weights, settings and files of `key`."""
    return record.key == key and {p.name for p in protocols} <= set(record.scores)


def _comparable(
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    protocols: Sequence[Protocol],
    found: Sequence[Mapping[str, Record]],
    failed: Sequence[Sequence[DerainError]],
) -> tuple[Result, ...]:
    """The results, with only those pictures and protocols that all candidates have records of."""
    shared = {
        c.name: [records[c.name] for records in found] for c in cases if all(c.name in r for r in found)
    }
    names = {
        name: {p.name for p in protocols if all(p.name in record.scores for record in records)}
        for name, records in shared.items()
    }
    first = next((error for errors in failed for error in errors), None)
    if first is not None and any(not any(p.name in kept for kept in names.values()) for p in protocols):
        raise first
    return tuple(
        Result(
            candidate,
            tuple(
                replace(
                    records[name], scores={p: v for p, v in records[name].scores.items() if p in names[name]}
                )
                for name in shared
            ),
            tuple(dict.fromkeys(map(str, errors))),
        )
        for candidate, records, errors in zip(candidates, found, failed, strict=True)
    )


def restored_file(folder: Path, candidate: Candidate, case: Case) -> Path:
    """The path of a case's restored picture; finished results stay in their own folder."""
    if candidate.finished:
        return candidate.finished[case.name]
    return folder / "restored" / candidate.name / PurePath(case.name).with_suffix(".png")


def _run(
    candidate: Candidate,
    case: Case,
    earlier: Case | None,
    protocols: Sequence[Protocol],
    folder: Path,
    quantise: Quantise,
    key: str,
) -> tuple[Record, list[DerainError]]:
    """Restores, or reads the finished result, and scores; `earlier` is the clip's previous frame.

    Returns:
        The record, and why scores are missing from it.
    """
    rainy = read_picture(case.rainy)
    partners = _partners(case, earlier, {need for p in protocols for need in p.needs})
    if earlier is not None:
        previous = read_picture(restored_file(folder, candidate, earlier))
        partners["previous"] = to_rgb8(previous)
    for kind, partner in partners.items():
        _refuse_other_size(case.rainy, rainy.size, kind, partner.shape[:2])
    seconds = cpu_seconds = peak = None
    if candidate.restore is None:
        found = read_picture(candidate.finished[case.name])
        _refuse_other_size(case.rainy, rainy.size, str(candidate.finished[case.name]), found.size)
        restored: Any = to_rgb8(found) if found.largest == 255 else to_tensor(found)
    else:
        picture = to_tensor(rainy)
        held = start_memory(candidate.device)
        wall, cpu = time.perf_counter(), time.process_time()
        restored = candidate.restore(picture)
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        most = most_memory(candidate.device)
        peak = None if held is None or most is None else max(0, most - held)
    scores: dict[str, dict[str, float]] = {}
    errors: list[DerainError] = []
    for p in protocols:
        try:
            with errors_of(f"{case.rainy}, {candidate.name}"):
                scores[p.name] = p(restored, partners.get("clean"), quantise, **_others(partners))
        except DerainError as error:
            errors.append(error)
    if not candidate.finished:
        pixels = single(restored, 1, quantise)
        write_picture(restored_file(folder, candidate, case), Picture(pixels))
    height, width = rainy.size
    record = Record(candidate.name, case.name, key, scores, seconds, cpu_seconds, height * width, peak)
    return record, errors


def _partners(case: Case, earlier: Case | None, needs: Set[str]) -> dict[str, Array]:
    """What a picture is compared with, as bytes (H, W, 3); the mask has the shape that its file gives."""
    files = {"clean": case.clean, "mask": case.mask, "rainy": case.rainy}
    if earlier is not None:
        files |= {"previous_clean": earlier.clean, "previous_rainy": earlier.rainy}
    found = {}
    for kind, path in files.items():
        if kind in needs and path is not None:
            levels = read_levels(path)[0]
            found[kind] = levels if kind == "mask" else as_rgb(levels)
    return found


def _others(partners: Mapping[str, Array]) -> dict[str, Any]:
    return {kind: partner for kind, partner in partners.items() if kind != "clean"}


def _refuse_other_size(rainy: Path, size: tuple[int, int], other: str, other_size: tuple[int, ...]) -> None:
    if size != other_size:
        raise DerainError(
            f"{rainy} is {size[1]}x{size[0]} and the {other} one {other_size[1]}x{other_size[0]}; "
            "they must be equal."
        )


def _key(candidate: Candidate, case: Case, earlier: Case | None, quantise: Quantise) -> str:
    """A hash that changes with the weights, the settings and the files."""
    facts = [candidate.name, candidate.identity, quantise]
    files = [path for c in (case, earlier) if c for path in (c.rainy, c.clean, c.mask) if path]
    files += [candidate.finished[c.name] for c in (case, earlier) if c and candidate.finished]
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
        facts += [str(real(path)), str(status.st_size), str(status.st_mtime_ns)]
    return hashlib.sha256("\0".join(facts).encode(errors="surrogatepass")).hexdigest()[:24]


def recorded(folder: Path) -> set[str]:
    """The names of all candidates that were ever evaluated into a folder."""
    return {record.candidate for record in _load(folder / "records.jsonl")}


def _load(path: Path) -> Iterator[Record]:
    """The records of earlier runs."""
    for fields in read_records(path):
        with suppress(TypeError):  # written by a version that kept other figures
            yield Record(**fields)


def ranked(result: Result, name: str, cases: Sequence[Case]) -> list[tuple[Case, Record]]:
    """Cases and their records from the best to the worst by the first measure of a protocol."""
    distance = protocol(name).distance
    by_name = {case.name: case for case in cases}
    entries = [(by_name[r.name], r) for r in result.records if name in r.scores]
    return sorted(entries, key=lambda entry: distance(entry[1].scores[name]))
