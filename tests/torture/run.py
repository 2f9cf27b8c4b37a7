"""`make torture`: do to a collector what production will, and show that nothing was lost and nothing charged twice."""

import argparse
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from blank import blank_postgresql, blank_sqlite
from postgres import PostgresServer, find_binaries
from rich.console import Console
from rich.table import Table
from torture.faults import BOTH, FAULTS, POSTGRESQL, Fault
from torture.world import MOST_RESIDENT_MIB, Result, World

PAGE = Path(__file__).parents[2] / "docs/explanation/reliability.md"
SEED = 20_260_101


class Row(NamedTuple):
    """A line of the table; no result where the fault could not be finished."""

    fault: str
    database: str
    result: Result | None
    seconds: float


def torture(fault: Fault, kind: str, seed: int, short: bool, postgres: PostgresServer | None) -> Result:
    """One fault on new books of one kind."""
    with tempfile.TemporaryDirectory(prefix="farebox-torture-") as directory:
        world = World(kind, Path(directory), seed, short=short, postgres=postgres)
        try:
            return fault.hurt(world)
        finally:
            world.close()


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few tries of each")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", default="", help="only faults with this in their name")
    parser.add_argument("--databases", default=",".join(BOTH), help="sqlite,postgresql")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/explanation/reliability.md")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    kinds = [kind for kind in arguments.databases.split(",") if kind in BOTH]
    binaries = find_binaries()
    if POSTGRESQL in kinds and binaries is None:
        console.print("PostgreSQL's server is not installed here: only SQLite is tried", style="yellow")
        kinds.remove(POSTGRESQL)
    chosen = [fault for fault in FAULTS if arguments.only.lower() in fault.name.lower()]
    if not chosen or not kinds:
        parser.error("nothing to do; the faults are: " + ", ".join(fault.name for fault in FAULTS))
    postgres = PostgresServer(binaries) if POSTGRESQL in kinds and binaries else None
    try:
        rows = run(console, chosen, kinds, arguments.seed, arguments.short, postgres)
    finally:
        if postgres is not None:
            postgres.close()
    console.print(table(rows, arguments.seed))
    red = [row for row in rows if row.result is None or not row.result.clean]
    if arguments.write_docs and not red:
        write_docs(rows, arguments.seed, binaries)
    return 1 if red else 0


def run(
    console: Console,
    chosen: Sequence[Fault],
    kinds: Sequence[str],
    seed: int,
    short: bool,
    server: PostgresServer | None,
) -> list[Row]:
    """All faults, the databases side by side, telling how each went as soon as it is known."""

    # Alembic is no thing for two threads at once: what all books are copied from is made first.
    with tempfile.TemporaryDirectory() as directory:
        blank_sqlite(Path(directory))
    if server is not None:
        blank_postgresql(server)

    def one_by_one(kind: str) -> list[Row]:
        return [hurt(console, fault, kind, seed, short, server) for fault in chosen if kind in fault.databases]

    with ThreadPoolExecutor(len(kinds)) as side_by_side:
        rows = [row for done in side_by_side.map(one_by_one, kinds) for row in done]
    order = [fault.name for fault in FAULTS]
    return sorted(rows, key=lambda row: order.index(row.fault))


def hurt(console: Console, fault: Fault, kind: str, seed: int, short: bool, server: PostgresServer | None) -> Row:
    """One line of the table."""
    started = time.monotonic()
    result = None
    try:
        result = torture(fault, kind, seed, short, server)
    except Exception:
        console.print(traceback.format_exc(), style="red", markup=False)
    row = Row(fault.name, kind, result, time.monotonic() - started)
    console.print(f"{fault.name}, {kind}: {figures(row)} in {row.seconds:.1f} s", markup=False)
    return row


def figures(row: Row) -> str:
    """The result in words."""
    if row.result is None:
        return "could not be finished"
    tried, lost, off, mismatches, _, ratio, peak_mib = row.result
    waited = "" if ratio is None else f", p99 of bystanders {ratio:.2f} of what it is without"
    return f"tried {tried:,}, L={lost} D={off} A={mismatches}, {peak_mib} MiB{waited}"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    if row.result is None:
        return row.fault, row.database, "", "broken", "broken", "broken", "", "", ""
    tried, lost, off, mismatches, recovery_s, ratio, peak_mib = row.result
    shown = "" if recovery_s is None else f"{recovery_s:.1f} s"
    waited = "" if ratio is None else f"{ratio:.2f}"
    counted = f"{tried:,}", str(lost), str(off), str(mismatches)
    return row.fault, row.database, *counted, shown, waited, str(peak_mib or "")


HEADINGS = ("fault", "database", "times", "L", "D", "A", "back within", "p99", "MiB")


def table(rows: Sequence[Row], seed: int) -> Table:
    """The table for the terminal."""
    shown = Table(
        title=f"make torture, seed {seed}",
        caption="L acknowledged spans lost, D nano-USD and nanocredits off, A mismatches of the audit: all must be 0;"
        " p99 of bystanders during the fault, by their normal one: at most 2;"
        f" the most memory of a collector, in MiB: at most {MOST_RESIDENT_MIB}",
    )
    for heading in HEADINGS:
        shown.add_column(heading, justify="left" if heading in ("fault", "database") else "right")
    for row in rows:
        red = row.result is None or not row.result.clean
        shown.add_row(*cells(row), style="bold red" if red else "green")
    return shown


def write_docs(rows: Sequence[Row], seed: int, binaries: Path | None) -> None:
    """Put the table into the page, with what it was made on; what this run did not try keeps its line."""
    page = PAGE.read_text(encoding="utf-8")
    between = re.compile("(<!-- torture -->\n)(.*?)(<!-- /torture -->)", re.DOTALL)
    found = between.search(page)
    assert found, "the page has no place for the table"
    lines = {(line[0], line[1]): line for line in _lines_of(found[2])}
    lines |= {(row.fault, row.database): cells(row) for row in rows}
    shown = [lines[key] for fault in FAULTS for key in ((fault.name, kind) for kind in fault.databases) if key in lines]
    text = "".join("| " + " | ".join(line) + " |\n" for line in (HEADINGS, ("---",) * len(HEADINGS), *shown))
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    if binaries is not None:
        command = [str(binaries / "postgres"), "--version"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        versions.append("PostgreSQL " + told.split()[2])
    text += f"\n{', '.join(versions)}, {os.cpu_count()} CPUs, seed {seed}.\n"
    PAGE.write_text(between.sub(lambda place: place[1] + text + place[3], page), encoding="utf-8")


def _lines_of(table: str) -> list[tuple[str, ...]]:
    """The lines of a table in the page, as long as ours, without its head."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return [tuple([*line, *[""] * len(HEADINGS)][: len(HEADINGS)]) for line in found[2:]]


if __name__ == "__main__":
    sys.exit(main())
