"""How the cost of a span grows: with the spans in the books, wallets, charge rules, price versions and distinct tags.

    make bench-growth
    make bench-growth ARGS="--records 10000000 --write"

The cost is CPU time of the server for a span, which other work on the machine disturbs less than the clock; spans a
second are in the table too. Books fill up once for the first curve; each point of the others has a collector and books
of its own. With --write the plot goes to docs/explanation/growth.svg and the table into
docs/explanation/performance.md.
"""

import argparse
import functools
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from typing import NamedTuple

from bodies import EVENTS, Shape
from curves import Curve, Point, short, svg
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import import_prices
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.model.records import DEFAULT_TENANT_ID, CatalogueRow
from farebox_collector.pricing.revision import PriceList
from farebox_collector.pricing.rules import RuleTerms
from farebox_collector.settings import Settings
from figures import machine, machine_words, markdown, save, write_section
from history import SHAPE, fill, keep, settings, unfinished
from load import HTTP, Generator, Sent
from rich.console import Console
from rounds import Subject, difference_nanocredits
from systems import REPOSITORY, SCRATCH, SQLITE, Databases, Farebox, usage

PICTURE = REPOSITORY / "docs/explanation/growth.svg"
UNIT = "µs of server CPU a span"
HEADINGS = ("with", "how many", "µs of server CPU a span", "spans/s")
HOUR_NS = 3_600 * 10**9
SIZES = {
    "wallets": (1, 10, 100, 1_000, 10_000),
    "charge rules": (0, 10, 100, 1_000, 10_000),
    "price versions": (0, 1_000, 10_000, 50_000),
    "distinct tags": (1, 10, 100, 1_000, 10_000),
}
SPANS = "spans in the books"


class Measured(NamedTuple):
    """One point of a curve."""

    size: int
    cpu_us: float
    spans_a_second: float


class Growth(NamedTuple):
    """What the measurements need."""

    generator: Generator
    databases: Databases
    rounds: int
    seconds: float
    console: Console

    def tell(self, name: str, measured: Measured) -> None:
        """Say how far it is."""
        rate = f"{measured.cpu_us:.1f} µs, {measured.spans_a_second:,.0f} spans/s"
        self.console.print(f"{name}: {measured.size:,}: {rate}")

    def point(self, size: int, shape: Shape, prepare: Callable[[Database], None] | None = None) -> Measured:
        """The cost of a span over new books. Raises RuntimeError where a debit is not exact."""
        url = self.databases.blank(SQLITE)
        if prepare is not None:
            with closing(assembly.open_books(Settings(database_url=url))) as database:
                prepare(database)
        with self.databases.farebox(url) as server:
            subject = Subject(self.generator, [server], shape)
            # Every wallet and tag turns up once before the clock starts.
            subject.send(subject.load(HTTP, 60)._replace(bodies=shape.templates))
            rounds = [subject.send(subject.load(HTTP, self.seconds)) for _ in range(self.rounds)]
            if difference_nanocredits(server, [subject]):
                raise RuntimeError("a wallet was not debited what its calls cost")
        cpu_us = statistics.median(one.server_cpu_s for one in rounds) * 1000
        return Measured(size, cpu_us, statistics.median(one.spans_a_second for one in rounds))


def by_spans(growth: Growth, records: int, points: int) -> list[Measured]:
    """The cost of a span while books fill up: each point is of the spans since the one before. The books are kept."""
    path = unfinished(growth.databases)
    with growth.databases.farebox(f"sqlite:///{path}", **settings()) as server:
        found = _filling(growth, server, records, points)
        server.stop()
    keep(path, records)
    return found


def _filling(growth: Growth, server: Farebox, records: int, points: int) -> list[Measured]:
    found: list[Measured] = []
    pieces: list[Sent] = []
    used_s = usage(server.pid).cpu_s

    def progress(spans: int, sent: Sent) -> None:
        nonlocal used_s
        pieces.append(sent)
        if spans < records * (len(found) + 1) / points:
            return
        now_s = usage(server.pid).cpu_s
        new = sum(len(piece.answered) for piece in pieces) * SHAPE.spans
        taken_s = sum(piece.ended_s - piece.began_s for piece in pieces)
        found.append(Measured(spans, (now_s - used_s) / new * 1e6, new / taken_s))
        growth.tell(SPANS, found[-1])
        used_s = now_s
        pieces.clear()

    fill(growth.generator, server, records, progress, piece=max(1, min(1_000, records // SHAPE.spans // points)))
    return found


def by_size(growth: Growth, name: str, sizes: Sequence[int]) -> list[Measured]:
    """The cost of a span with more and more of something."""
    prepared = {"charge rules": add_rules, "price versions": add_prices}
    found = []
    for size in sizes:
        shape = Shape(seed=70)
        if name == "wallets":
            shape = shape._replace(wallets=size)
        elif name == "distinct tags":
            shape = shape._replace(projects=size)
        add = prepared.get(name)
        found.append(growth.point(size, shape, functools.partial(add, count=size) if add else None))
        growth.tell(name, found[-1])
    return found


def add_rules(database: Database, count: int) -> None:
    """Rules of other events, and of ours as many as they have; ours charge what a call costs, as without a rule."""
    terms = RuleTerms("cost_plus", multiplier=Decimal(1))
    now_ns = time.time_ns()
    with database.transaction() as connection:
        for number in range(count):
            event = EVENTS[number] if number < len(EVENTS) else f"event-{number}"
            authorship = RuleAuthorship("bench", "to see what it costs to have many")
            set_rule(connection, DEFAULT_TENANT_ID, event, terms, authorship, now_ns)


def add_prices(database: Database, count: int) -> None:
    """Negotiated prices of the model that is called, each of an hour long past."""
    first_ns = 1_000_000_000 * 10**9
    rows = [
        CatalogueRow("openai", "gpt-4o-mini", "input", 0, 0, 0, Decimal("0.00015"), at_ns, at_ns + HOUR_NS)
        for at_ns in range(first_ns, first_ns + count * HOUR_NS, HOUR_NS)
    ]
    stated = PriceList(rows, "bench", "1", whole=False, dated=True, tenant_id=DEFAULT_TENANT_ID)
    now_ns = time.time_ns()
    with database.transaction() as connection:
        import_prices(connection, stated, [], now_ns, now_ns)


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=400_000, help="to fill the books with")
    parser.add_argument("--points", type=int, default=20, help="of the curve over spans")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a round")
    parser.add_argument("--largest", type=int, default=10**9, help="leave out what is more than that")
    parser.add_argument("--curves", nargs="+", choices=(SPANS, *SIZES), default=(SPANS, *SIZES))
    parser.add_argument(
        "--write", action="store_true", help="write docs/explanation/growth.svg and docs/explanation/performance.md"
    )
    options = parser.parse_args()
    console = Console(highlight=False)
    host = machine()
    console.print(machine_words(host))
    found: dict[str, list[Measured]] = {}
    with closing(Databases()) as databases, closing(Generator()) as generator:
        growth = Growth(generator, databases, options.rounds, options.seconds, console)
        for name in options.curves:
            if name == SPANS:
                found[name] = by_spans(growth, options.records, options.points)
            else:
                found[name] = by_size(growth, name, [size for size in SIZES[name] if size <= options.largest])
    command = f"benchmarks/growth.py {shlex.join(sys.argv[1:])}".strip()
    path = SCRATCH / "results" / time.strftime("growth-%Y%m%dT%H%M%SZ", time.gmtime())
    curves = [Curve(name, [Point(one.size, one.cpu_us) for one in points]) for name, points in found.items()]
    save(
        path.with_suffix(".json"),
        command,
        host,
        [],
        curves={name: [point._asdict() for point in points] for name, points in found.items()},
    )
    path.with_suffix(".svg").write_text(svg(curves, UNIT), encoding="utf-8")
    console.print(f"kept in {path}.json and {path}.svg")
    if options.write:
        PICTURE.write_text(svg(curves, UNIT), encoding="utf-8")
        table = markdown(HEADINGS, _rows(found))
        write_section("growth", f"`{command}`; {machine_words(host)}.\n\n{table}")
    return 0


def _rows(found: dict[str, list[Measured]]) -> list[list[str]]:
    return [
        [name, short(one.size), f"{one.cpu_us:.1f}", f"{one.spans_a_second:,.0f}"]
        for name, points in found.items()
        for one in points
    ]


if __name__ == "__main__":
    sys.exit(main())
