"""The report of an evaluation as files: JSON, PNG sheets, and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from string import Template

from PIL import Image

from derain.atomic import replace_file
from derain.evaluation.baselines import published
from derain.evaluation.candidates import UNCHANGED
from derain.evaluation.evaluate import recorded
from derain.evaluation.formats import FORMATS, as_html
from derain.evaluation.levels import Array
from derain.evaluation.measures import MEASURES, figure
from derain.evaluation.registry import protocol
from derain.evaluation.report import Report, sheet, to_json
from derain.evaluation.tables import Table, make_table
from derain.pictures import Picture, encode_picture

COLOURS = tuple(f"var(--c{i})" for i in range(5))  # in the template; the first is for the unchanged input


def write_report(report: Report) -> Path:
    """Writes `report.json`, `sheet-NAME.png` for each network, tables and `index.html`; returns the last.

    Sheets left in the folder by an earlier evaluation of other networks are removed.

    Raises:
        DerainError: a file cannot be written, or a picture of the run is missing.
    """
    content = to_json(report)
    replace_file(report.folder / "report.json", json.dumps(content, indent=2, allow_nan=False).encode())
    sheets = {result.candidate.name: sheet(report, result) for result in report.networks}
    for name, pixels in sheets.items():
        replace_file(report.folder / f"sheet-{name}.png", encode_picture(Picture(pixels), ".png"))
    gone = {f"sheet-{name}.png" for name in recorded(report.folder) - sheets.keys()}
    for file in report.folder.glob("sheet-*.png"):
        if file.name in gone:
            file.unlink()
    table = make_table([content])
    for form in FORMATS:
        write_table(report.folder, form, table)
    index = report.folder / "index.html"
    replace_file(index, page(report, table, sheets).encode(errors="backslashreplace"))
    return index


def write_table(folder: Path, form: str, table: Table) -> str:
    """Writes a table in one of the `FORMATS` into a folder, and returns it. Raises `DerainError`."""
    suffix, write = FORMATS[form]
    text = write(table)
    replace_file(folder / f"table{suffix}", text.encode(errors="backslashreplace"))
    return text


def page(report: Report, table: Table, sheets: Mapping[str, Array]) -> str:
    """The page; `sheets` are contact sheets (H, W, 3) uint8 RGB by network, embedded as JPEG."""
    template = Template((files("derain.evaluation") / "report.html").read_text(encoding="utf-8"))
    protocols = "".join(f"<p><b>{n}</b>: {html.escape(protocol(n).summary)}</p>" for n in report.protocols)
    more = template.substitute(
        charts="".join(
            f"<h2>{name}</h2>{_gains(report, name)}{_chart(report, name)}" for name in report.protocols
        ),
        unstated=_unstated(report),
        sheets="".join(
            as_figure(f"Best, median and worst picture of {name}", pixels) for name, pixels in sheets.items()
        ),
        pictures=_pictures(report),
    )
    facts = f"<p>{len(report.cases)} pictures</p><p>{html.escape(report.settings)}</p>{protocols}"
    return as_html(table, f"Evaluation on {report.title}", more, facts)


def _gains(report: Report, name: str) -> str:
    """The number of pictures on which each network beats doing nothing."""
    title = MEASURES[protocol(name).measures[0]].title
    total = report.results[0].scores(name).count
    gains = (
        f"{html.escape(r.candidate.name)} on {report.better_than_input(r, name)}" for r in report.networks
    )
    infinite = sum(result.scores(name).infinite for result in report.results)
    more = f" {infinite} pictures equal their truth; means with them are infinite." if infinite else ""
    return (
        f"<p>By {title}, better than the unchanged input: {', '.join(gains)} of {total} pictures.{more}</p>"
    )


def _unstated(report: Report) -> str:
    rows = [
        [
            b.method,
            figure("psnr", b.psnr),
            "" if b.ssim is None else figure("ssim", b.ssim),
            f"{b.source}; {b.setting}".rstrip("; "),
        ]
        for b in (published(report.dataset, "") if report.dataset else ())
    ]
    if not rows:
        return ""
    summary = "Published for this set without a stated protocol; not to be compared"
    head = ["method", "PSNR dB", "SSIM", "source"]
    return f"<details><summary>{summary}</summary>{_table(head, rows, last_is_text=True)}</details>"


def _pictures(report: Report) -> str:
    """Scores of every picture under every protocol, before and after."""
    columns = [(result, name) for name in report.protocols for result in report.results]
    head = [f"{r.candidate.name}, {name}" for r, name in columns]
    rows = []
    for i, case in enumerate(report.cases):
        values = (r.records[i].scores.get(name, {}) for r, name in columns)
        rows.append([case.name, *(" / ".join(figure(m, x) for m, x in v.items()) for v in values)])
    return _table(["picture", *head], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], last_is_text: bool = False) -> str:
    """An HTML table: a column of text followed by columns of figures."""

    def line(cells: Sequence[str], tag: str) -> str:
        text = {0, len(cells) - 1} if last_is_text else {0}
        return "".join(
            f"<{tag}{'' if i in text else ' class=n'}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    header = f"<thead><tr>{line(head, 'th')}</tr></thead>"
    return f"<div class=wide><table>{header}<tbody>{body}</tbody></table></div>"


def _chart(report: Report, name: str) -> str:
    """The first measure of every picture as dots, in the order of the unchanged input's scores."""
    measure = protocol(name).measures[0]
    scored = {r.candidate.name: r.scores(name).pictures for r in report.results}
    series = {label: [p.values[measure] for p in pictures] for label, pictures in scored.items()}
    names = [p.name for p in scored[UNCHANGED]]
    finite = [value for line in series.values() for value in line if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step: float = 10.0 ** math.floor(math.log10(max(high - low, 1e-3) / 2))
    low, high = math.floor(low / step), math.floor(high / step) + 1
    width, height, left = 900, 250, 36
    order = sorted(range(len(names)), key=lambda i: series[UNCHANGED][i])

    def x(place: int) -> float:
        return left + (place + 0.5) * (width - left) / len(order)

    def y(value: float) -> float:
        return 8 + (height - 16) * (high - value / step) / (high - low)

    marks = "".join(
        f"<line class=grid x1={left} x2={width} y1={y(v * step):.1f} y2={y(v * step):.1f} />"
        f"<text x={left - 6} y={y(v * step) + 4:.1f} text-anchor=end>{v * step:g}</text>"
        for v in range(low, high + 1, max(1, round((high - low) / 6)))
    )
    legend = ""
    for (label, line), colour in zip(series.items(), cycle(COLOURS), strict=False):
        legend += f"<span><i style='background:{colour}'></i>{html.escape(label)}</span>"
        marks += "".join(
            f"<circle cx={x(place):.1f} cy={y(line[i]):.1f} r=3.2 style='fill:{colour}'>"
            f"<title>{html.escape(f'{names[i]}, {label}: {figure(measure, line[i])}')}</title></circle>"
            for place, i in enumerate(order)
            if math.isfinite(line[i])
        )
    caption = f"{MEASURES[measure].title} of each picture, in the order of the unchanged ones"
    return (
        f"<figure><figcaption>{caption}<span class=legend>{legend}</span></figcaption>"
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='{caption}'>{marks}</svg></figure>"
    )


def as_figure(text: str, pixels: Array) -> str:
    """An embedded picture (H, W, 3) uint8 RGB; `text` describes it to those who cannot see it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f"<figure><img alt='{html.escape(text, quote=True)}' src='{source}'></figure>"
