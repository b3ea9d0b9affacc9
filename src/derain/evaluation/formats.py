"""Tables as text: LaTeX with booktabs, Markdown, CSV, HTML."""

from __future__ import annotations

import csv
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from string import Template

from derain.evaluation.measures import figure
from derain.evaluation.tables import COSTS, Cell, Column, ColumnGroup, Line, Table, cost_text, costs_shown

LATEX_COLUMNS = 12  # columns of figures that stay legible side by side on a landscape page


def legend(table: Table) -> str:
    """The meaning of the marks that occur in a table."""
    cells = [cell for line in table.lines for cell in line.cells if cell]
    parts = []
    if any(cell.place for cell in cells):
        parts.append(
            "Best and second best of the measured rows are marked, where better than the unchanged input."
        )
    if any(cell.interval for cell in cells):
        parts.append("Brackets: 95 % bootstrap interval of the mean.")
    if not all(column.measure for column in table.columns):
        parts.append("Best on: pictures on which a row is the best of the measured ones.")
    if table.published:
        parts.append("Published rows are grey and were not measured here.")
    return " ".join(parts)


def value_text(column: Column, cell: Cell) -> str:
    """The figure alone."""
    if not column.measure:
        return f"{cell.value:g}"
    return "∞" if math.isinf(cell.value) else figure(column.measure, cell.value)


def interval_text(column: Column, cell: Cell) -> str:
    """The interval as "[33.10, 34.90]"; "" where there is none."""
    if cell.interval is None:
        return ""
    return "[" + ", ".join(figure(column.measure, end) for end in cell.interval) + "]"


def source_text(line: Line, scores: bool = True, costs: bool = True) -> str:
    """The source of a published row's scores or costs; "" if they were measured."""
    sizes = costs and line.cost_source
    return "; ".join([line.source] * scores + [f"size: {line.cost_source}"] * bool(sizes))


def as_markdown(table: Table) -> str:
    """A pipe table; the best figure is bold, the second best italic."""
    costs = costs_shown(table)
    with_source = bool(table.published)
    head = ["network", *(f"{c.dataset} ({c.pictures}), {c.protocol}, {c.title}" for c in table.columns)]
    head += [COSTS[name] for name in costs] + ["source"] * with_source
    rows = [head, ["---", *["---:"] * (len(head) - 1 - with_source), *["---"] * with_source]]
    for line in table.lines:
        marks = ("", "**", "_")
        cells = [line.name]
        for column, cell in zip(table.columns, line.cells, strict=True):
            if cell is None:
                cells.append("")
                continue
            mark = marks[cell.place]
            cells.append(f"{mark}{value_text(column, cell)}{mark} {interval_text(column, cell)}".strip())
        cells += [cost_text(line, name) for name in costs]
        cells += [f"published: {source_text(line)}" if line.source else "measured"] * with_source
        rows.append([cell.replace("|", "\\|") for cell in cells])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{text}\n\n" + "\n\n".join(filter(None, (*table.settings, legend(table), *table.notes))) + "\n"


def as_csv(table: Table) -> str:
    """One row per figure, for programs; an infinite value is "inf"."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    costs = list(COSTS)
    head = ["network", "set", "pictures", "protocol", "measure", "value", "low", "high", "place", "source"]
    writer.writerow([*head, *costs])
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            if cell is None:
                continue
            low, high = cell.interval or ("", "")
            row = [line.name, column.dataset, column.pictures, column.protocol, column.measure or "best_on"]
            row += [cell.value, low, high, cell.place or "", source_text(line) or "measured"]
            found = (getattr(line, name) for name in costs)
            writer.writerow([*row, *("" if value is None else value for value in found)])
    return file.getvalue()


def as_latex(table: Table) -> str:
    """A document that compiles without changes; the table between its rules can be copied elsewhere.

    A table of more than `LATEX_COLUMNS` columns of figures is split into parts, one below another, with the
    costs in the last.
    """
    letters: dict[str, str] = {}  # the letters of sources, in the order of their rows
    caption = _latex(" ".join((*table.settings, legend(table))).strip())
    parts: list[str] = []
    for groups, places, costs in _latex_parts(table):
        parts += [
            r"\begin{table}[htp]",
            *([f"\\caption{{{caption}}}"] if not parts else []),
            r"\centering",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",  # reduces, never enlarges
            *_tabular(table, groups, places, costs, letters),
            "}",
            r"\end{table}",
        ]
    lines = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage{color}",
        r"\definecolor{published}{gray}{0.45}",
        r"\setlength{\belowcaptionskip}{6pt}",
        r"\begin{document}",
        *parts,
        *([r"\footnotesize\noindent"] if letters or table.notes else []),
        *(f"$^{{{letters[source]}}}$ {_latex(source)}.\\quad" for source in letters),
        *(f"\n\\noindent {_latex(note)}" for note in table.notes),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _latex_parts(table: Table) -> list[tuple[list[ColumnGroup], range, list[str]]]:
    """For each part, its groups of columns, the indices of their columns, and the costs in it."""
    parts: list[tuple[list[ColumnGroup], range, list[str]]] = []
    for group in table.groups:
        start = parts[-1][1].stop if parts else 0
        end = start + group.columns
        if parts and end - parts[-1][1].start <= LATEX_COLUMNS:
            groups, places, _ = parts[-1]
            parts[-1] = ([*groups, group], range(places.start, end), [])
        else:
            parts.append(([group], range(start, end), []))
    costs = costs_shown(table)
    groups, places, _ = parts[-1]
    if len(places) + len(costs) <= LATEX_COLUMNS:
        return [*parts[:-1], (groups, places, costs)]
    return [*parts, ([], range(0), costs)]


def _tabular(
    table: Table, groups: Sequence[ColumnGroup], places: range, costs: Sequence[str], letters: dict[str, str]
) -> list[str]:
    """Some columns of a table, with the rows that have entries there; new sources get letters."""

    def row(line: Line) -> str:
        source = source_text(line, bool(places), bool(costs))
        letter = letters.setdefault(source, _letter(len(letters))) if source else ""
        cells = [_latex(line.name) + (f"\\,$^{{{letter}}}$" if letter else "")]
        for i in places:
            cell = line.cells[i]
            cells.append("" if cell is None else _latex_cell(table.columns[i], cell))
        cells += [cost_text(line, name) for name in costs]
        if line.source:
            cells = [f"\\textcolor{{published}}{{{cell}}}" if cell else "" for cell in cells]
        return " & ".join(cells) + r" \\"

    above, rules, at = [], [], 2
    for group in groups:
        rules.append(f"\\cmidrule(lr){{{at}-{at + group.columns - 1}}}")
        at += group.columns
    for titles in ([g.dataset for g in groups], [g.protocol for g in groups]) if groups else ():
        cells = [
            f"\\multicolumn{{{group.columns}}}{{c}}{{{_latex(title)}}}"
            for group, title in zip(groups, titles, strict=True)
        ]
        above.append(" & ".join(["", *cells, *[""] * len(costs)]) + r" \\")
    head = ["network", *(table.columns[i].title for i in places), *(COSTS[name] for name in costs)]
    published = [row(line) for line in table.published if _has_some(line, places, costs)]
    return [
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        *above,
        *(["".join(rules)] if rules else []),
        " & ".join(_latex(text) for text in head) + r" \\",
        r"\midrule",
        *(row(line) for line in table.measured if _has_some(line, places, costs)),
        *([r"\midrule"] if published else []),
        *published,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def as_html(table: Table, title: str = "Evaluation", more: str = "", facts: str = "") -> str:
    """A self-contained page of one table; `more` is HTML after it, `facts` HTML in place of its settings."""
    template = Template((files("derain.evaluation") / "table.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title), style=style(), table=html_table(table), legend=html.escape(legend(table)),
        facts=facts or "".join(f"<p>{html.escape(text)}</p>" for text in table.settings),
        notes="".join(f"<p class=note>{html.escape(note)}</p>" for note in table.notes), more=more,
    )  # fmt: skip


def style() -> str:
    """The style sheet of all pages of an evaluation."""
    return (files("derain.evaluation") / "style.css").read_text(encoding="utf-8")


def html_table(table: Table) -> str:
    """The table alone, with several sets one below another; classes: `best`, `second`, `published`, `n`."""
    sets = [list(groups) for _, groups in itertools.groupby(table.groups, lambda group: group.dataset)]
    costs = costs_shown(table)
    if len(sets) == 1:
        return _html_part(table, sets[0], range(len(table.columns)), costs)
    parts, start = [], 0
    for groups in sets:
        end = start + sum(group.columns for group in groups)
        parts.append(_html_part(table, groups, range(start, end), []))
        start = end
    return "".join((*parts, _html_part(table, [], range(0), costs) if costs else ""))


def _html_part(table: Table, groups: Sequence[ColumnGroup], places: range, costs: Sequence[str]) -> str:
    """Some columns of a table, with the rows that have entries there."""
    lines = [line for line in table.lines if _has_some(line, places, costs)]
    with_source = any(line.source for line in lines)
    rest = f"<th colspan={len(costs) + with_source}></th>" if costs or with_source else ""
    head = ""
    for titles_above in ([g.dataset for g in groups], [g.protocol for g in groups]) if groups else ():
        cells = "".join(
            f"<th class=group colspan={group.columns}>{html.escape(title)}</th>"
            for group, title in zip(groups, titles_above, strict=True)
        )
        head += f"<tr><th></th>{cells}{rest}</tr>"
    titles = [html.escape(table.columns[i].title).replace(" ", "&nbsp;") for i in places]
    titles += [html.escape(COSTS[name]) for name in costs]
    shown = "".join(f"<th class=n>{title}</th>" for title in titles)
    head += f"<tr><th>network</th>{shown}{'<th>source</th>' * with_source}</tr>"
    body = "".join(_html_row(table, line, places, costs, with_source) for line in lines)
    return f"<div class=wide><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def _html_row(table: Table, line: Line, places: range, costs: Sequence[str], with_source: bool) -> str:
    cells = [f"<td>{html.escape(line.name)}</td>"]
    for i in places:
        column, cell = table.columns[i], line.cells[i]
        if cell is None:
            cells.append("<td></td>")
            continue
        name = ("n", "n best", "n second")[cell.place]
        interval = interval_text(column, cell)
        more = f"<small>{interval}</small>" if interval else ""
        if cell.published is not None:
            more += f"<small>published {figure(column.measure, cell.published)}</small>"
        cells.append(f"<td class='{name}'>{value_text(column, cell)}{more}</td>")
    cells += [f"<td class=n>{cost_text(line, name)}</td>" for name in costs]
    source = source_text(line, bool(places), bool(costs))
    cells += [f"<td class=source>{html.escape(source) or 'measured here'}</td>"] * with_source
    return f"<tr{' class=published' if line.source else ''}>{''.join(cells)}</tr>"


def _has_some(line: Line, places: range, costs: Sequence[str]) -> bool:
    return any(line.cells[i] for i in places) or any(cost_text(line, name) for name in costs)


def _latex_cell(column: Column, cell: Cell) -> str:
    text = "$\\infty$" if math.isinf(cell.value) else value_text(column, cell)
    text = (text, f"\\textbf{{{text}}}", f"\\underline{{{text}}}")[cell.place]
    interval = interval_text(column, cell)
    return f"{text} {{\\scriptsize {interval}}}" if interval else text


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "²": "$^2$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "∞": r"$\infty$",
    "×": r"$\times$", "–": "--", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    """Text for LaTeX: special characters are escaped, those missing in its fonts become question marks."""
    known = "".join(c if c in _LATEX or ord(c) < 0x250 else "?" for c in text)
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], known)


def _letter(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    first, last = divmod(number, 26)
    return (_letter(first - 1) if first else "") + chr(ord("a") + last)


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "latex": (".tex", as_latex),
    "markdown": (".md", as_markdown),
    "csv": (".csv", as_csv),
    "html": (".html", as_html),
}
