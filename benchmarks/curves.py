"""Curves as one SVG: a panel each, side by side, every panel with axes of its own."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

_PANEL, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 320, 240, 48, 42, 16, 40
_COLUMNS = 3
_LINES = 4
_INK, _FAINT, _CURVE = "#333333", "#dddddd", "#1f6fb2"


class Point(NamedTuple):
    """One measurement."""

    size: float
    cost: float


class Curve(NamedTuple):
    """How a cost grows with something."""

    title: str
    points: Sequence[Point]


def svg(curves: Sequence[Curve], unit: str) -> str:
    """The panels as a picture. Costs begin at zero, in one scale for all; points are evenly spaced."""
    rows = -(-len(curves) // _COLUMNS)
    columns = min(len(curves), _COLUMNS)
    width, height = columns * _PANEL, rows * _HEIGHT
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "font-family": "sans-serif",
            "font-size": "11",
        },
    )
    ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    top = _round_up(max(point.cost for curve in curves for point in curve.points))
    for index, curve in enumerate(curves):
        at = f"translate({index % _COLUMNS * _PANEL} {index // _COLUMNS * _HEIGHT})"
        _panel(ElementTree.SubElement(root, "g", {"transform": at}), curve, unit, top)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _panel(group: ElementTree.Element, curve: Curve, unit: str, top: float) -> None:
    inner_width, inner_height = _PANEL - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    _text(group, _LEFT, 16, curve.title, weight="bold")
    _text(group, _LEFT, 31, unit)
    for number in range(_LINES + 1):
        y = _TOP + inner_height * (1 - number / _LINES)
        ends = {"x1": f"{_LEFT}", "x2": f"{_PANEL - _RIGHT}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        ElementTree.SubElement(group, "line", {**ends, "stroke": _FAINT})
        _text(group, _LEFT - 6, y + 4, f"{top * number / _LINES:g}", anchor="end")
    step = inner_width / max(1, len(curve.points) - 1)
    places = [
        (_LEFT + index * step, _TOP + inner_height * (1 - point.cost / top)) for index, point in enumerate(curve.points)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    ElementTree.SubElement(group, "polyline", {"points": line, "fill": "none", "stroke": _CURVE, "stroke-width": "2"})
    # Only as many names below the axis as there is room for; the first and the last are always among them.
    every = -(-len(places) // 6)
    for index, ((x, y), point) in enumerate(zip(places, curve.points, strict=True)):
        ElementTree.SubElement(group, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "2.5", "fill": _CURVE})
        if (len(places) - 1 - index) % every == 0:
            _text(group, x, _HEIGHT - _BOTTOM + 16, short(point.size), anchor="middle")


def _text(group: ElementTree.Element, x: float, y: float, words: str, anchor: str = "start", weight: str = "") -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": _INK, "text-anchor": anchor}
    ElementTree.SubElement(group, "text", attributes | ({"font-weight": weight} if weight else {})).text = words


def short(size: float) -> str:
    """A size in few letters: 1500000 is 1.5M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if size >= unit:
            return f"{size / unit:.3g}{letter}"
    return f"{size:.3g}"


def _round_up(value: float) -> float:
    """The next number above that divides into lines that people can read."""
    unit = 1.0
    while unit * 10 < value:
        unit *= 10
    return next(unit * factor for factor in (1, 2, 4, 6, 8, 10, 12) if unit * factor >= value)
