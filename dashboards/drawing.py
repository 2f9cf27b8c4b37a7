"""Draw panels as HTML and SVG, to show a dashboard without Grafana; `preview` gathers the data.

This draws the panel's JSON (title, unit, thresholds, stacking, column names), not every detail of Grafana.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

PALETTE = ("#3366aa", "#e08214", "#3a9a5b", "#a04d8c", "#7a6a4f", "#17a2b8", "#c0392b", "#6f7f8f")
COLORS = {"green": "#2f9e58", "yellow": "#c98a00", "red": "#d0342c"}
HEIGHT = 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 8.0, 8.0, 22.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Series(NamedTuple):
    """Points (Unix seconds, value) of one line, in order."""

    name: str
    points: Sequence[tuple[float, float]]


class Table(NamedTuple):
    """Rows under named columns; a value is text or a number. `units` maps numeric columns to units."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    units: Mapping[str, str]


class _Plot(NamedTuple):
    """Map times and values to pixels."""

    window: tuple[float, float]
    low: float
    high: float
    width: float

    def x(self, at: float) -> float:
        """Pixels from the left."""
        share = (at - self.window[0]) / (self.window[1] - self.window[0])
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - _TOP - _BOTTOM)

    def path(self, line: Sequence[tuple[float, float]]) -> str:
        """The path from point to point, with gaps where there is no number."""
        strokes, down = [], False
        for at, value in line:
            if not math.isnan(value):
                strokes.append(f"{'L' if down else 'M'}{self.x(at):.1f} {self.y(value):.1f}")
            down = not math.isnan(value)
        return " ".join(strokes) or f"M{_LEFT} {HEIGHT - _BOTTOM}"


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Format a figure for people."""
    if math.isnan(value):
        return "–"
    if unit == "currencyUSD" and decimals is not None:
        return f"${value:,.{decimals}f}"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "currencyUSD":
        return f"${value:,.2f}" if abs(value) >= 10 or value == 0 else f"${value:.4g}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} req/s" if unit == "reqps" else text


def color_of(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """Return the colour of the highest threshold that a value reaches."""
    reached = [step["color"] for step in steps if step.get("value") is None or value >= step["value"]]
    return COLORS.get(reached[-1] if reached else "green", COLORS["green"])


def draw_stat(figures: Sequence[tuple[str, str, str]]) -> str:
    """Draw large figures: (name, text, colour); several with their names."""
    named = len(figures) > 1
    lines = [
        f'<div class="stat" style="color:{color}">{escape(text)}</div>' + (f"<center>{escape(name)}</center>" * named)
        for name, text, color in figures
    ]
    return "".join(lines) or empty()


def draw_bars(bars: Sequence[tuple[str, float]], unit: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """Draw figures as bars."""
    most = max((value for _, value in bars), default=0.0) or 1.0
    lines = [
        f'<div class="bar"><span class="name">{escape(name)}</span><span class="track"><span class="fill" '
        f'style="width:{max(0.0, value / most) * 100:.1f}%;background:{color_of(value, steps)}"></span></span>'
        f"<span>{escape(shown(value, unit))}</span></div>"
        for name, value in bars
    ]
    return "".join(lines) or empty()


def draw_table(table: Table) -> str:
    """Draw a table."""
    if not table.rows:
        return empty()
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(_cell(value, table.units.get(column)) for column, value in zip(table.columns, row, strict=True))
        for row in table.rows
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def draw_lines(
    series: Sequence[Series],
    unit: str,
    window: tuple[float, float],
    width: float,
    *,
    stacked: bool = False,
    at_least: Sequence[float] = (0.0,),
) -> str:
    """Draw lines over time with a legend, or stacked areas.

    The width is in pixels; the axis includes the values `at_least`.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return empty()
    lines = _stacked(drawn) if stacked else [one.points for one in drawn]
    values = [value for line in lines for _, value in line if not math.isnan(value)]
    low, high, step = _scale(min([*values, *at_least]), max([*values, *at_least]))
    plot = _Plot(window, low, high, width)
    parts = [_grid(plot, step, unit)]
    floor = [(window[0], low), (window[1], low)]
    for number, line in enumerate(lines):
        color, path = PALETTE[number % len(PALETTE)], plot.path(line)
        if stacked:
            back = plot.path(list(reversed(lines[number - 1] if number else floor))).replace("M", "L", 1)
            parts.append(f'<path d="{path} {back} Z" fill="{color}" opacity=".45"/>')
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    legend = "".join(
        f'<span><i style="background:{PALETTE[n % len(PALETTE)]}"></i>{escape(one.name)} '
        f"<b>{escape(shown(one.points[-1][1], unit))}</b></span>"
        for n, one in enumerate(drawn)
    )
    picture = f'<svg width="{width:.0f}" height="{HEIGHT:.0f}">{"".join(parts)}</svg>'
    return f'{picture}<div class="legend">{legend}</div>'


def empty() -> str:
    """The content of a panel without data."""
    return '<div class="empty">No data</div>'


def _cell(value: Any, unit: str | None) -> str:
    if isinstance(value, int | float):
        return f'<td class="number">{escape(shown(float(value), unit or "short"))}</td>'
    return f"<td>{escape(str(value))}</td>"


def _stacked(series: Sequence[Series]) -> list[list[tuple[float, float]]]:
    """Stack each line on those before it; a missing point adds nothing."""
    heights: dict[float, float] = {at: 0.0 for one in series for at, _ in one.points}
    lines = []
    for one in series:
        own = dict(one.points)
        for at in heights:
            value = own.get(at, 0.0)
            heights[at] += 0.0 if math.isnan(value) else value
        lines.append(sorted(heights.items()))
    return lines


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Return rounded bounds that include all values, and the distance of grid lines."""
    if low == high:
        high = 1.0
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in _STEPS if power * size >= rough * 0.999)
    return math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step, step


def _grid(plot: _Plot, step: float, unit: str) -> str:
    parts = []
    for number in range(round((plot.high - plot.low) / step) + 1):
        value = plot.low + number * step
        y, right = plot.y(value), plot.width - _RIGHT
        parts.append(f'<line x1="{_LEFT}" x2="{right:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e6ea"/>')
        text = escape(shown(0.0 if abs(value) < step / 1e6 else value, unit))
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{text}</text>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = plot.window[0] + share * (plot.window[1] - plot.window[0])
        clock = f"{int(at // 3600 % 24):02d}:{int(at // 60 % 60):02d}"
        parts.append(f'<text x="{plot.x(at):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{clock}</text>')
    return "".join(parts)
