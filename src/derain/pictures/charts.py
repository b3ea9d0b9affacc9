"""Line charts, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Line = tuple[str, list[tuple[float, float]]]
COLOURS = ("#1f4e9e", "#c8501e", "#3a8a3a", "#8c4a9e", "#9a7a1a", "#4a4a4a")
WIDTH, HEIGHT, MARGIN = 960, 340, (70, 24, 24, 40)  # left, top, right, bottom of one chart


def chart_sheet(charts: Sequence[tuple[str, Sequence[Line]]]) -> Image.Image:
    """Charts one below another, 960 x 340 pixels each.

    Args:
        charts: (title, lines) for each; a line is a name and (x, y) points from left to right. Points
            that are not finite are left out; the x axis begins at 0.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(charts)), "white")
    draw = ImageDraw.Draw(picture)
    for number, (title, lines) in enumerate(charts):
        _chart(draw, number * HEIGHT, title, lines)
    return picture


def _chart(draw: ImageDraw.ImageDraw, top: int, title: str, lines: Sequence[Line]) -> None:
    font = ImageFont.load_default(13)
    points = [point for _, line in lines for point in line if math.isfinite(point[1])]
    if not points:
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks, y_ticks = _ticks(min(0, *xs), max(xs)), _ticks(min(ys), max(ys))
    left, right = MARGIN[0], WIDTH - MARGIN[2]
    upper, lower = top + MARGIN[1], top + HEIGHT - MARGIN[3]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return left + across * (right - left), lower - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (
            lower - upper
        )

    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        draw.line((x, upper, x, lower), "#e4e4e4")
        draw.text((x, lower + 6), f"{tick:g}", "#444444", font, "ma")
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        draw.line((left, y, right, y), "#e4e4e4")
        draw.text((left - 6, y), f"{tick:g}", "#444444", font, "rm")
    draw.text((left, upper - 6), title, "black", font, "ls")
    legend = right
    for (name, line), colour in reversed(list(zip(lines, COLOURS * len(lines), strict=False))):
        drawn = [place(*point) for point in line if math.isfinite(point[1])]
        draw.line(drawn, colour, 2)
        for x, y in drawn if len(drawn) < 30 else ():
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
        draw.text((legend, upper - 6), name, colour, font, "rs")
        legend -= int(font.getlength(name)) + 16


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose the range."""
    span = (high - low) or max(abs(high), 1)
    unit = 10 ** math.floor(math.log10(span / 4))
    unit *= next(m for m in (1, 2, 5, 10) if span / (m * unit) <= 5)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    return [number * unit for number in range(first, max(last, first + 1) + 1)]
