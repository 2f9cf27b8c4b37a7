"""Render the dashboards as pages, from a real Prometheus and real books, without Grafana: `make preview`.

    make observe          # with `make demo` in another terminal, for some minutes
    make preview          # writes .farebox/preview/*.html, and *.png if Chromium is installed

It runs the queries of each panel, with every variable set to all. Tables from the books need PostgreSQL (`--books`).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import drawing
import psycopg
from drawing import Series, Table
from psycopg.rows import dict_row

HERE = Path(__file__).parent
BOARDS = ("operations", "finance")
_VARIABLE = re.compile(r"\$(?!__)\w+")
_POINTS = 240
_COLUMN, _ROW = 60, 38
"""Pixels of one unit of Grafana's grid."""
_STYLE = """
body{font:13px/1.35 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1f2530}
h1{font-size:18px;margin:14px 12px 2px} p{margin:0 12px 10px;color:#5b6472}
.grid{position:relative;margin:0 6px} .panel,.row{position:absolute;box-sizing:border-box;padding:4px}
.row{font-weight:700;padding:10px 8px 0} .box{background:#fff;border:1px solid #dfe3e8;border-radius:4px;height:100%;
box-sizing:border-box;padding:6px 8px;overflow:hidden} h2{font-size:13px;margin:0 0 4px}
.stat{font-size:30px;font-weight:600;text-align:center;padding-top:22px} svg{display:block}
svg text{font-size:10px;fill:#5b6472} .legend{font-size:11px;max-height:52px;overflow:hidden}
.legend span{margin-right:10px;white-space:nowrap} .legend i{display:inline-block;width:9px;height:9px;margin-right:3px}
table{border-collapse:collapse;width:100%;font-size:12px} th{text-align:left;color:#5b6472;font-weight:600}
th,td{padding:2px 6px 2px 0;border-bottom:1px solid #eef0f3} .number{font-variant-numeric:tabular-nums}
.bar{display:flex;gap:8px;align-items:center;margin:5px 0} .name{width:32%}
.track{flex:1;background:#eef0f3;height:14px} .fill{display:block;height:100%}
.empty{color:#9aa3af;text-align:center;padding-top:50px}
"""


class CannotPreview(Exception):
    """A requirement is missing; the message names it."""


class Sources(NamedTuple):
    """The data sources and the time range."""

    prometheus: str
    books: str
    from_s: float
    to_s: float

    @property
    def range_s(self) -> int:
        """Length of the time shown, in seconds."""
        return round(self.to_s - self.from_s)

    def ask(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Run a query on Prometheus."""
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]["result"]  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            raise CannotPreview(f"{query['query']}: {error.read().decode()}") from error
        except OSError as error:
            raise CannotPreview(
                f"no Prometheus at {self.prometheus}: {error}; start one with `make observe`"
            ) from error

    def filled_in(self, text: str) -> str:
        """Replace Grafana's macros and variables in a query."""
        macros = {
            "$__rate_interval": "1m",
            "$__range": f"{self.range_s}s",
            "$__unixEpochNanoFrom()": str(round(self.from_s * 10**9)),
            "$__unixEpochNanoTo()": str(round(self.to_s * 10**9)),
        }
        for macro, value in macros.items():
            text = text.replace(macro, value)
        return _VARIABLE.sub(".*", text)


def content(panel: Mapping[str, Any], sources: Sources) -> str:
    """Draw the content of a panel."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    if panel["type"] == "stat":
        return drawing.draw_stat(_figures(panel, unit, steps, sources))
    if panel["type"] == "bargauge":
        bars = [
            (_name(target, labels), value) for target in panel["targets"] for labels, value in _instant(target, sources)
        ]
        return drawing.draw_bars(bars, unit, steps)
    if panel["type"] == "table":
        return drawing.draw_table(_table(panel, unit, sources))
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    at_least = (0.0, custom.get("axisSoftMin", 0.0), custom.get("axisSoftMax", 0.0))
    series = [line for target in panel["targets"] for line in _lines(target, sources)]
    width = panel["gridPos"]["w"] * _COLUMN - 30
    return drawing.draw_lines(series, unit, (sources.from_s, sources.to_s), width, stacked=stacked, at_least=at_least)


def _figures(
    panel: Mapping[str, Any], unit: str, steps: Sequence[Mapping[str, Any]], sources: Sources
) -> list[tuple[str, str, str]]:
    found: list[tuple[str, float]] = []
    for target in panel["targets"]:
        if "rawSql" in target:
            found += [figure for row in _sql(target, sources) for figure in row.items()]
        else:
            found += [(_name(target, labels), value) for labels, value in _instant(target, sources)]
    decimals = panel["fieldConfig"]["defaults"].get("decimals")
    return [(name, drawing.shown(value, unit, decimals), drawing.color_of(value, steps)) for name, value in found]


def _instant(target: Mapping[str, Any], sources: Sources) -> list[tuple[dict[str, str], float]]:
    found = sources.ask("query", query=sources.filled_in(target["expr"]), time=str(sources.to_s))
    return [(one["metric"], float(one["value"][1])) for one in found]


def _lines(target: Mapping[str, Any], sources: Sources) -> list[Series]:
    step = max(1, sources.range_s // _POINTS)
    window = {"start": str(sources.from_s), "end": str(sources.to_s), "step": str(step)}
    found = sources.ask("query_range", query=sources.filled_in(target["expr"]), **window)
    return [
        Series(_name(target, one["metric"]), [(float(at), float(value)) for at, value in one["values"]])
        for one in found
    ]


def _name(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The legend of a series."""
    legend = target.get("legendFormat", "__auto")
    if legend == "__auto":
        return ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def _table(panel: Mapping[str, Any], unit: str, sources: Sources) -> Table:
    """Merge the rows of several queries by their labels, as Grafana's merge does."""
    overrides = {
        override["matcher"]["options"]: rule["value"]
        for override in panel["fieldConfig"]["overrides"]
        for rule in override["properties"]
        if rule["id"] == "unit"
    }
    merged: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    columns: dict[str, None] = {}
    for target in panel["targets"]:
        if "rawSql" in target:
            rows = _sql(target, sources)
            merged |= {((target["refId"], str(number)),): row for number, row in enumerate(rows)}
            columns |= dict.fromkeys(name for row in rows for name in row)
            continue
        for labels, value in _instant(target, sources):
            row = merged.setdefault(tuple(sorted(labels.items())), dict(labels))
            row[target["legendFormat"]] = value
            columns |= dict.fromkeys([*labels, target["legendFormat"]])
    names = [*columns]
    cells = [[row.get(name, float("nan")) for name in names] for row in merged.values()]
    for sorting in panel["options"].get("sortBy", ()):
        if sorting["displayName"] in names:
            place = names.index(sorting["displayName"])
            cells.sort(key=lambda row: row[place], reverse=sorting["desc"])
    return Table(names, cells, dict.fromkeys(names, unit) | overrides)


def _sql(target: Mapping[str, Any], sources: Sources) -> list[dict[str, Any]]:
    """Run a query on the books; no rows without PostgreSQL."""
    if not sources.books:
        return []
    with psycopg.connect(sources.books.replace("+psycopg", ""), row_factory=dict_row) as books:
        rows = books.execute(sources.filled_in(target["rawSql"]).encode()).fetchall()
    return [{name: value if isinstance(value, str) else float(value) for name, value in row.items()} for row in rows]


def page(board: Mapping[str, Any], sources: Sources) -> str:
    """Render a dashboard as one page."""
    parts, lowest = [], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        lowest = max(lowest, at["y"] + at["h"])
        style = (
            f"left:{at['x'] * _COLUMN}px;top:{at['y'] * _ROW}px;width:{at['w'] * _COLUMN}px;height:{at['h'] * _ROW}px"
        )
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="{style}">{escape(panel["title"])}</div>')
            continue
        inside = f'<h2 title="{escape(panel["description"])}">{escape(panel["title"])}</h2>{content(panel, sources)}'
        parts.append(f'<div class="panel" style="{style}"><div class="box">{inside}</div></div>')
    head = f"<h1>{escape(board['title'])}</h1><p>{escape(board['description'])} A preview, not Grafana.</p>"
    size = f"width:{24 * _COLUMN}px;height:{lowest * _ROW + 20}px"
    body = f'{head}<div class="grid" style="{size}">{"".join(parts)}</div>'
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{_STYLE}</style><body>{body}</body></html>'


def write_pages(directory: Path, sources: Sources) -> list[tuple[Path, int]]:
    """Write a page of each dashboard. Return paths with heights in pixels. Raises CannotPreview."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in BOARDS:
        board = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        path = directory.resolve() / f"{name}.html"
        path.write_text(page(board, sources), encoding="utf-8")
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        written.append((path, bottom * _ROW + 90))
    return written


def photograph(path: Path, height: int) -> Path | None:
    """Take a picture of a page; None without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        return None
    picture = path.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=1456,{height}"]
    subprocess.run([browser, *options, f"--screenshot={picture}", path.as_uri()], check=True, capture_output=True)
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a page and a picture of each dashboard."""
    parser = argparse.ArgumentParser(description="Render the dashboards as pages, without Grafana.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--books", default="", help="URL of the books in PostgreSQL, for the tables that query them")
    parser.add_argument("--minutes", type=float, default=15, help="length of the time shown")
    parser.add_argument("--directory", type=Path, default=Path(".farebox/preview"))
    chosen = parser.parse_args(arguments)
    now = time.time()
    sources = Sources(chosen.prometheus, chosen.books, now - chosen.minutes * 60, now)
    try:
        for path, height in write_pages(chosen.directory, sources):
            print(photograph(path, height) or path)
    except CannotPreview as error:
        print(f"make preview: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
