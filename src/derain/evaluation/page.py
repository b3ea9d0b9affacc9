"""The report of an evaluation as files: JSON, PNG sheets, and one HTML page without outside parts."""

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

import torch
from PIL import Image

from derain.atomic import replace_file
from derain.evaluation.baselines import published
from derain.evaluation.evaluate import RAINY
from derain.evaluation.pairs import Array
from derain.evaluation.registry import protocol
from derain.evaluation.report import MEASURED, SIDE, Report, multiply_adds, sheet, table, to_json
from derain.evaluation.scores import UNITS, figure
from derain.pictures import Picture, encode_picture

COLOURS = tuple(f"var(--c{i})" for i in range(5))  # of the template; the first is the rainy picture


def write_report(report: Report) -> Path:
    """Writes `report.json`, `sheet-NAME.png` for each network and `index.html`; returns the last.

    Raises:
        DerainError: a file cannot be written, or a picture of the run is gone.
    """
    content = json.dumps(to_json(report), indent=2, allow_nan=False)
    replace_file(report.folder / "report.json", content.encode())
    sheets = {result.contender.name: sheet(report, result) for result in report.networks}
    for name, pixels in sheets.items():
        replace_file(report.folder / f"sheet-{name}.png", encode_picture(Picture(pixels), ".png"))
    index = report.folder / "index.html"
    replace_file(index, page(report, sheets).encode())
    return index


def page(report: Report, sheets: Mapping[str, Array]) -> str:
    """The page; `sheets` are contact sheets (H, W, 3) uint8 RGB by network, embedded as JPEG."""
    template = Template((files("derain.evaluation") / "report.html").read_text(encoding="utf-8"))
    title = f"Evaluation on {report.dataset or 'an own set'}"
    facts = f"{len(report.pairs)} pairs · {report.device} · PyTorch {torch.__version__}"
    return template.substitute(
        title=html.escape(title),
        facts=html.escape(facts),
        notes="".join(f"<p class=note>{html.escape(note)}</p>" for note in report.notes),
        protocols="".join(_protocol_section(report, name) for name in report.protocols),
        costs=_costs(report),
        unstated=_unstated(report),
        sheets="".join(_figure(name, pixels) for name, pixels in sheets.items()),
        pictures=_pictures(report),
    )


def _protocol_section(report: Report, name: str) -> str:
    chosen = protocol(name)
    found = table(report, name)
    has_own = any(row.own for row in found)
    rows = []
    for row in found:
        own = f"{row.own.psnr:.2f} / {row.own.ssim:.4f}" if row.own else ""
        cells = [
            row.name,
            *(figure(m, row.values[m]) if m in row.values else "" for m in chosen.measures),
            *([own] if has_own else []),
            f"{row.parameters / 1e6:.2f}" if row.parameters else "",
            f"{row.multiply_adds / 1e9:.1f}" if row.multiply_adds else "",
            row.source,
        ]
        rows.append((cells, row.source == MEASURED))
    head = ["network", *(UNITS[m] for m in chosen.measures), *(["published for it"] if has_own else [])]
    head += ["parameters, M", f"multiply-adds at {SIDE}², G", "source"]
    infinite = sum(result.scores(name).infinite for result in report.results)
    note = f"<p>{infinite} pictures equal their truth; means with them are infinite.</p>" if infinite else ""
    shown = _table(head, rows, last_is_text=True)
    summary = html.escape(chosen.summary)
    return f"<section><h2>{name}</h2><p>{summary}</p>{note}{shown}{_chart(report, name)}</section>"


def _costs(report: Report) -> str:
    head = ["network", "parameters", f"multiply-adds at {SIDE}², G", "median seconds a picture"]
    head += ["megapixels a second", "peak memory, MiB"]
    rows = []
    for r in report.networks:
        adds = multiply_adds(r)
        cells = [r.contender.name, f"{r.contender.parameters:,}", f"{adds / 1e9:.2f}" if adds else ""]
        cells += [f"{r.seconds:.2f}", f"{r.megapixels_per_second:.3f}", f"{r.peak_bytes / 2**20:,.0f}"]
        rows.append((cells, False))
    return _table(head, rows)


def _unstated(report: Report) -> str:
    rows = [
        ([b.method, f"{b.psnr:.2f}", f"{b.ssim:.4f}", f"{b.source}; {b.setting}".rstrip("; ")], False)
        for b in (published(report.dataset, "") if report.dataset else ())
    ]
    if not rows:
        return ""
    summary = "Published for this set without a stated protocol; not to be compared"
    head = ["method", "PSNR dB", "SSIM", "source"]
    return f"<details><summary>{summary}</summary>{_table(head, rows, last_is_text=True)}</details>"


def _pictures(report: Report) -> str:
    """Every picture under every protocol, before and after."""
    columns = [(result, name) for name in report.protocols for result in report.results]
    head = [f"{r.contender.name}, {name}" for r, name in columns]
    rows = []
    for i, pair in enumerate(report.pairs):
        values = (r.records[i].scores[name] for r, name in columns)
        rows.append(([pair.name, *(" / ".join(figure(m, x) for m, x in v.items()) for v in values)], False))
    return _table(["picture", *head], rows)


def _table(
    head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], last_is_text: bool = False
) -> str:
    """Columns of figures behind a first one of text; rows are (cells, whether to mark them)."""

    def line(cells: Sequence[str], tag: str) -> str:
        text = {0, len(cells) - 1} if last_is_text else {0}
        return "".join(
            f"<{tag}{'' if i in text else ' class=n'}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(
        f"<tr{' class=measured' if marked else ''}>{line(cells, 'td')}</tr>" for cells, marked in rows
    )
    header = f"<thead><tr>{line(head, 'th')}</tr></thead>"
    return f"<div class=wide><table>{header}<tbody>{body}</tbody></table></div>"


def _chart(report: Report, name: str) -> str:
    """The first measure of every picture as dots, pictures ordered by what they score before."""
    measure = protocol(name).measures[0]
    series = {
        r.contender.name: [record.scores[name][measure] for record in r.records] for r in report.results
    }
    finite = [value for line in series.values() for value in line if math.isfinite(value)]
    if not finite:
        return ""
    low, high = math.floor(min(finite)), math.floor(max(finite)) + 1
    width, height, left = 900, 250, 36
    order = sorted(range(len(report.pairs)), key=lambda i: next(iter(series.values()))[i])

    def x(place: int) -> float:
        return left + (place + 0.5) * (width - left) / len(order)

    def y(value: float) -> float:
        return 8 + (height - 16) * (high - value) / (high - low)

    marks = "".join(
        f"<line class=grid x1={left} x2={width} y1={y(v):.1f} y2={y(v):.1f} />"
        f"<text x={left - 6} y={y(v) + 4:.1f} text-anchor=end>{v}</text>"
        for v in range(low, high + 1, max(1, round((high - low) / 6)))
    )
    legend = ""
    for (label, line), colour in zip(series.items(), cycle(COLOURS), strict=False):
        legend += f"<span><i style='background:{colour}'></i>{html.escape(label)}</span>"
        marks += "".join(
            f"<circle cx={x(place):.1f} cy={y(line[i]):.1f} r=3.2 style='fill:{colour}'>"
            f"<title>{html.escape(f'{report.pairs[i].name}, {label}: {line[i]:.2f}')}</title></circle>"
            for place, i in enumerate(order)
            if math.isfinite(line[i])
        )
    caption = f"{UNITS[measure]} of each picture, in the order of the {RAINY} one"
    return (
        f"<figure><figcaption>{caption}<span class=legend>{legend}</span></figcaption>"
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='{caption}'>{marks}</svg></figure>"
    )


def _figure(name: str, pixels: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    text = html.escape(f"Best, median and worst picture of {name}", quote=True)
    return f"<figure><img alt='{text}' src='{source}'></figure>"
