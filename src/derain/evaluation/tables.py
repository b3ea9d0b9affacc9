"""One table of one or more evaluations: a row per network, columns by set, protocol and measure.

It is made from what `derain.evaluation.report.to_json` returns, so it can include reports from other days and
machines.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from derain.cores import cores
from derain.data.duplicates import find_duplicates
from derain.errors import DerainError, reason
from derain.evaluation.candidates import UNCHANGED
from derain.evaluation.measures import MEASURES
from derain.evaluation.registry import protocol
from derain.evaluation.report import SIDE, best_on, folder_of, in_one_line

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A measure of a set under a protocol; `measure` is a key of `MEASURES`, or "" for the wins."""

    dataset: str
    pictures: int
    protocol: str
    measure: str

    @property
    def title(self) -> str:
        """The heading, with an arrow that shows which way is better."""
        if not self.measure:
            return "best on"
        found = MEASURES[self.measure]
        if found.ideal in (math.inf, -math.inf):
            return f"{found.title} {'↑' if found.ideal > 0 else '↓'}"
        return (
            f"{found.title} ↓" if self.measure in ("harm", "flicker") else f"{found.title} → {found.ideal:g}"
        )


@dataclass(frozen=True)
class ColumnGroup:
    """Neighbouring columns of one set and protocol; `dataset` includes the number of pictures."""

    dataset: str
    protocol: str
    columns: int


@dataclass(frozen=True)
class Cell:
    """A figure.

    Attributes:
        value: the value; infinite if pictures equal their clean ones.
        interval: 95 % interval of the mean, None where there is none.
        place: 1 or 2 for the best and the second best of the measured networks, otherwise 0.
        published: the figure that the network's authors publish; None if there is none.
    """

    value: float
    interval: tuple[float, float] | None = None
    place: int = 0
    published: float | None = None


@dataclass(frozen=True)
class Line:
    """A row; costs are None where unknown, and `source` is that of the scores, "" if they were measured."""

    name: str
    cells: tuple[Cell | None, ...]
    parameters: int | None
    multiply_adds: float | None
    cpu_seconds: float | None
    peak_bytes: int | None
    source: str
    cost_source: str = ""


@dataclass(frozen=True)
class Table:
    """A table and its notes.

    Attributes:
        columns, lines: measured lines first, *input unchanged* at their head; then the published ones.
        settings: how the figures were made.
        notes: what a reader must know before comparing.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measured(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.source)

    @property
    def published(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.source)

    @property
    def groups(self) -> list[ColumnGroup]:
        """The groups of columns, from left to right."""
        key = attrgetter("dataset", "pictures", "protocol")
        return [
            ColumnGroup(f"{dataset} ({pictures})", protocol, len(list(columns)))
            for (dataset, pictures, protocol), columns in itertools.groupby(self.columns, key)
        ]


COSTS = {
    "parameters": "parameters, M",
    "multiply_adds": f"multiply-adds at {SIDE}², G",
    "cpu_seconds": "CPU s per Mpixel",
    "peak_bytes": "peak memory, MiB",
}
COST_SCALES = {"parameters": 1e6, "multiply_adds": 1e9, "cpu_seconds": 1.0, "peak_bytes": 2.0**20}
COST_DIGITS = {"parameters": 2, "multiply_adds": 1, "cpu_seconds": 2, "peak_bytes": 0}


def costs_shown(table: Table) -> list[str]:
    """The keys of `COSTS` for which some line has a value."""
    return [name for name in COSTS if any(getattr(line, name) for line in table.lines)]


def cost_text(line: Line, name: str) -> str:
    """A cost of a line in the unit of its column, "" if unknown; with two digits if it would round to 0."""
    value, digits = getattr(line, name), COST_DIGITS[name]
    if not value:
        return ""
    value /= COST_SCALES[name]
    if value < 10**-digits:
        digits = 1 - math.floor(math.log10(value))
    return f"{value:,.{digits}f}"


def read_report(folder: Path) -> dict[str, Any]:
    """The `report.json` of an evaluation's folder.

    Raises:
        DerainError: there is none, or another program or version wrote it.
    """
    path = folder / "report.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
    except ValueError:
        raise DerainError(f"{path}: not a report of an evaluation.") from None
    if not isinstance(content, dict) or not {"dataset", "files", "settings", "protocols"} <= set(content):
        raise DerainError(f"{path}: not a report that this version can read; evaluate again into its folder.")
    return content


def make_table(reports: Sequence[Json]) -> Table:
    """One table of one or more reports, see `to_json`.

    Networks of the same name share a row; if their weights or settings differ, their names are numbered.
    Reports of the same pictures share columns unless their names differ, and the wins are counted again.
    """
    reports = _joined([_with_own_names(report, reports[:i]) for i, report in enumerate(reports)])
    titles = _titles(reports)
    columns = tuple(
        Column(title, report["pictures"], protocol, measure)
        for title, report in zip(titles, reports, strict=True)
        for protocol, found in report["protocols"].items()
        for measure in (*found["measures"], "")
    )
    names = list(dict.fromkeys(name for report in reports for name in report["models"]))
    measured = [_measured(name, reports) for name in names]
    places = [_places(column, measured, i) for i, column in enumerate(columns)]
    lines = [_marked(line, places) for line in measured]
    several = len(reports) > 1
    settings = _settings(titles, reports)
    notes = [
        f"{title}: {note}" if several else note
        for title, report in zip(titles, reports, strict=True)
        for note in report["notes"]
    ]
    lines += _published(reports)
    return Table(columns, tuple(lines), settings, (*notes, *_shared_scenes(titles, reports)))


def _titles(reports: Sequence[Json]) -> list[str]:
    """The names of the sets; without one, that of the folder, with its parents where folders are alike."""
    folders = [None if report["dataset"] else folder_of(report["files"]) for report in reports]
    found: list[str] = []
    for report, folder in zip(reports, folders, strict=True):
        if folder is None:
            found.append(report["dataset"])
            continue
        others = {f"/{other.as_posix()}" for other in folders if other not in (None, folder)}
        tails = ("/".join(folder.parts[-count:]) for count in range(1, len(folder.parts)))
        alone = (tail for tail in tails if not any(other.endswith(f"/{tail}") for other in others))
        title = next(alone, folder.as_posix())
        found.append(f"{title} ({found.count(title) + 1})" if title in found else title)
    return found


def _settings(titles: Sequence[str], reports: Sequence[Json]) -> tuple[str, ...]:
    """How the figures were made; where reports differ, with the sets to which each applies."""
    sets: dict[str, list[str]] = {}
    for title, report in zip(titles, reports, strict=True):
        sets.setdefault(report["settings"], []).append(title)
    if len(sets) == 1:
        return tuple(sets)
    return tuple(f"{', '.join(named)}: {text}" for text, named in sets.items())


def _with_own_names(report: Json, earlier: Sequence[Json]) -> Json:
    """The report, with a number after each name that an earlier one uses for another network."""
    new: dict[str, str] = {}
    for name, facts in report["models"].items():
        known = [r["models"][name]["identity"] for r in earlier if name in r["models"]]
        differs = any(facts["identity"] and identity and facts["identity"] != identity for identity in known)
        new[name] = f"{name} ({1 + len(set(known))})" if differs else name
    return {
        **report,
        "models": {new[name]: facts for name, facts in report["models"].items()},
        "protocols": {
            protocol: {**found, "models": {new[name]: scores for name, scores in found["models"].items()}}
            for protocol, found in report["protocols"].items()
        },
    }


def _joined(reports: Sequence[Json]) -> list[Json]:
    """Reports of the same pictures joined into one, unless their names differ or something failed."""
    joined: list[Json] = []
    for report in reports:
        place = next((i for i, earlier in enumerate(joined) if _are_of_one_set(earlier, report)), None)
        if place is None:
            joined.append(report)
        else:
            joined[place] = _both(joined[place], report)
    return joined


def _are_of_one_set(first: Json, second: Json) -> bool:
    names = {report["dataset"] for report in (first, second)} - {""}
    same = all(first[key] == second[key] for key in ("files", "quantise"))
    return same and len(names) < 2 and not (first.get("failed") or second.get("failed"))


def _both(first: Json, second: Json) -> dict[str, Any]:
    """Two reports of the same pictures, merged; what is in both is taken from the first."""
    protocols = {**second["protocols"], **first["protocols"]}
    for name in first["protocols"].keys() & second["protocols"].keys():
        ours, theirs = first["protocols"][name], second["protocols"][name]
        protocols[name] = {
            **ours,
            "models": _with_wins(name, {**ours["models"], **_without(theirs["models"], ours["models"])}),
            "published": ours["published"] or theirs["published"],
        }
    models = {**first["models"], **_without(second["models"], first["models"])}
    device, versions = (_each_once(first.get(key, ""), second.get(key, "")) for key in ("device", "torch"))
    precisions = [facts.get("precision", "") for name, facts in models.items() if name != UNCHANGED]
    return {
        **first,
        "dataset": first["dataset"] or second["dataset"],
        "notes": list(dict.fromkeys((*first["notes"], *second["notes"]))),
        "device": device,
        "torch": versions,
        "settings": in_one_line(first["quantise"], precisions, device, versions),
        "protocols": {n: protocols[n] for n in dict.fromkeys((*first["protocols"], *second["protocols"]))},
        "models": models,
    }


def _each_once(first: str, second: str) -> str:
    """Two comma-separated lists as one, without repeats."""
    return ", ".join(dict.fromkeys(part for part in (*first.split(", "), *second.split(", ")) if part))


def _without(models: Json, known: Json) -> dict[str, Any]:
    return {name: facts for name, facts in models.items() if name not in known}


def _with_wins(name: str, models: Json) -> dict[str, Any]:
    """The scores of all models under a protocol, with `best_on` counted over all of them."""
    distance = protocol(name).distance
    values = {
        model: [
            distance({m: math.inf if v is None else v for m, v in picture.items() if m != "name"})
            for picture in scored["pictures"]
        ]
        for model, scored in models.items()
    }
    wins = best_on(values)
    return {model: {**scored, "best_on": wins[model]} for model, scored in models.items()}


def _measured(name: str, reports: Sequence[Json]) -> Line:
    cells = [
        _cell(found["models"].get(name), measure)
        for report in reports
        for found in report["protocols"].values()
        for measure in (*found["measures"], "")
    ]
    facts = [report["models"][name] for report in reports if name in report["models"]]
    cpu = [f["cpu_seconds_per_megapixel"] for f in facts if f["cpu_seconds_per_megapixel"] is not None]
    peaks = [f["peak_memory_bytes"] for f in facts if f["peak_memory_bytes"] is not None]
    return Line(
        name,
        tuple(cells),
        facts[0]["parameters"],
        facts[0][f"multiply_adds_{SIDE}"],
        sum(cpu) / len(cpu) if cpu else None,
        max(peaks, default=None),
        "",
    )


def _cell(scored: Json | None, measure: str) -> Cell | None:
    if scored is None:
        return None
    if not measure:
        return Cell(scored["best_on"])
    mean, interval = scored["mean"][measure], scored["interval"][measure]
    theirs = scored["published_for_it"]
    return Cell(
        math.inf if mean is None else mean,
        None if interval is None else tuple(interval),
        published=None if theirs is None else theirs.get(measure),
    )


def _marked(line: Line, places: Sequence[Mapping[str, int]]) -> Line:
    cells = (
        cell and replace(cell, place=found.get(line.name, 0))
        for cell, found in zip(line.cells, places, strict=True)
    )
    return replace(line, cells=tuple(cells))


def _places(column: Column, lines: Sequence[Line], i: int) -> dict[str, int]:
    """{name: 1 or 2} of the best and the second best network, unless they are worse than the unchanged input.

    By definition, the unchanged input does no harm and keeps all detail, so it is not compared there.
    """
    if not column.measure:
        return {}
    distance = MEASURES[column.measure].distance
    before = next((line.cells[i] for line in lines if line.name == UNCHANGED), None)
    limit = math.inf if before is None else distance(before.value)
    values = {
        line.name: distance(cell.value)
        for line in lines
        if line.name != UNCHANGED and (cell := line.cells[i]) is not None
    }
    better = {name: value for name, value in values.items() if value < limit or limit == 0}
    order = sorted(set(better.values()))[:2]
    return {name: 1 + order.index(value) for name, value in better.items() if value in order}


def _published(reports: Sequence[Json]) -> Iterator[Line]:
    """The published rows, one per method and setting, best first by the earliest column that has them."""
    groups = [found for report in reports for found in report["protocols"].values()]
    methods: dict[tuple[str, str], dict[int, Json]] = {}
    for i, found in enumerate(groups):
        for row in found["published"]:
            methods.setdefault((row["method"], row["setting"]), {}).setdefault(i, row)

    def order(rows: Mapping[int, Json]) -> tuple[int, float]:
        place = min(rows)
        return place, -rows[place]["psnr"]

    for (method, setting), rows in sorted(methods.items(), key=lambda item: order(item[1])):
        cells = [
            Cell(rows[i][measure]) if measure and i in rows and rows[i].get(measure) is not None else None
            for i, found in enumerate(groups)
            for measure in (*found["measures"], "")
        ]
        first = rows[min(rows)]
        sources = dict.fromkeys(row["source"] for row in rows.values())
        name = f"{method} ({setting})" if setting else method
        costs = first["parameters"], first["multiply_adds"]
        yield Line(name, tuple(cells), *costs, None, None, "; ".join(sources), first["cost_source"])


def _shared_scenes(titles: Sequence[str], reports: Sequence[Json]) -> Iterator[str]:
    """A sentence for every two sets that share scenes, unless the files of one are missing or it is a part of
    the other."""
    present = [
        (title, [Path(file) for file in report["files"]])
        for title, report in zip(titles, reports, strict=True)
        if all(Path(file).is_file() for file in report["files"])
    ]
    for (title, files), (other, others) in itertools.combinations(present, 2):
        if set(files) <= set(others) or set(files) >= set(others):
            continue
        found = find_duplicates(files, others, cores())
        if found:
            shown = ", ".join(f"{d.first.name} and {d.second.name}" for d in found[:8])
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            scenes = "a scene" if len(found) == 1 else f"{len(found)} scenes"
            yield f"{title} and {other} share {scenes}: {shown}{more}."
