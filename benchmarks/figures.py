"""What was measured: figures with their goals, as a table for people, as JSON, and as a section of a page."""

import json
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres import find_binaries
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/explanation/performance.md"
_SYNCS = 200


class Figure(NamedTuple):
    """One line of the result."""

    what: str
    where: str
    value: float
    unit: str = ""
    goal: float | None = None
    at_least: bool = True
    """Whether more is better; without it the goal is the most that it may be."""
    note: str = ""
    samples: Sequence[float] = ()

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def row(self) -> tuple[str, ...]:
        """As words: what, where, value, goal, reached, note."""
        goal = "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {number(self.goal)}{_unit(self.unit)}"
        reached = {None: "", True: "yes", False: "no"}[self.reached]
        return self.what, self.where, number(self.value) + _unit(self.unit), goal, reached, self.note


HEADINGS = ("what", "where", "measured", "goal", "reached", "note")


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The ratio of two medians. Rounds alternate, so that what disturbs the machine for a while hits both."""
    return statistics.median(numerators) / statistics.median(denominators)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies."""
    ascending = sorted(values)
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def show(console: Console, title: str, figures: Sequence[Figure]) -> None:
    """Print a table; goals that were missed are red."""
    table = Table(title=title, title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("measured", "goal") else "left")
    for figure in figures:
        style = {None: "", True: "green", False: "red"}[figure.reached]
        *start, reached, note = figure.row()
        table.add_row(*start, f"[{style}]{reached}[/]" if style else reached, note)
    console.print(table)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the documentation."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_section(name: str, text: str) -> None:
    """Put text between the marks of a name in docs/explanation/performance.md."""
    page = PAGE.read_text(encoding="utf-8")
    section = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    changed, found = section.subn(lambda match: match[1] + text + match[2], page)
    if found != 1:
        raise ValueError(f"{PAGE} has {found} sections {name}")
    PAGE.write_text(changed, encoding="utf-8")


def save(path: Path, command: str, machine: dict[str, Any], figures: Sequence[Figure], **more: Any) -> None:
    """Write everything as JSON, every round of it."""
    document = {
        "command": command,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "figures": [{**figure._asdict(), "reached": figure.reached} for figure in figures],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures were taken on, with what."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory_kib / 2**20),
        "kernel": platform.release(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "fdatasync_ms": round(_sync_s() * 1e3, 3),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": _postgresql(),
        "commit": _commit(),
    }


def machine_words(machine: dict[str, Any]) -> str:
    """The machine in a sentence."""
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, Linux {machine['kernel']},"
        f" fdatasync {machine['fdatasync_ms']} ms, Python {machine['python']}, SQLite {machine['sqlite']},"
        f" {machine['postgresql']},"
        f" load {machine['load_at_start']} at the start, commit {machine['commit']}"
    )


def _sync_s() -> float:
    """What it takes to make a page durable where the books are."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=REPOSITORY) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _postgresql() -> str:
    binaries = find_binaries()
    if binaries is None:
        return "no PostgreSQL"
    said = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True)
    return "PostgreSQL " + said.stdout.partition(") ")[2].split()[0]


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"
