"""This checkout beside another one: what a span costs in processor time, bytes written and throughput.

The other checkout runs from its own `.venv`, on new books of its own. Rounds take turns. On PostgreSQL both use one
server, and its processor time during a round counts as that of the collector which was under load.
"""

import statistics
from contextlib import closing
from pathlib import Path

from bodies import Shape
from figures import Figure, ratio
from harness import Collector
from intake import Bench
from load import HTTP
from rounds import Round, Subject, alternating, difference_nanocredits, median_rate, rates
from systems import POSTGRESQL, Farebox, children, usage


class _Other(Collector):
    """The collector of another checkout."""

    def __init__(self, tree: Path, database_url: str, log: Path) -> None:
        self._tree = tree
        super().__init__(database_url, log)

    def command(self) -> list[str]:
        """Return its command, with the interpreter of its own checkout."""
        return [str(self._tree / ".venv/bin/python"), *super().command()[1:]]


class _Measured(Subject):
    """A collector under load, with what its machine spends on it beside its own process."""

    def __init__(self, bench: Bench, server: Farebox, shape: Shape, database_pid: int | None) -> None:
        super().__init__(bench.generator, [server], shape)
        self._pid = server.pid
        self._database_pid = database_pid
        self.bytes_a_span: list[float] = []
        self.cpu_us: list[float] = []

    def round(self, seconds: float) -> Round:
        """Send for so long. Processor time is in microseconds a span, with the database server's."""
        before = _written(self._pid), self._database_cpu_s()
        made = self.send(self.load(HTTP, seconds))
        spans = len(made.sent.answered) * self.shape.spans
        self.bytes_a_span.append((_written(self._pid) - before[0]) / spans)
        self.cpu_us.append(made.server_cpu_s * 1000 + (self._database_cpu_s() - before[1]) / spans * 1e6)
        return made

    def _database_cpu_s(self) -> float:
        return usage(self._database_pid).cpu_s if self._database_pid else 0.0


def beside_another(bench: Bench, kind: str, tree: Path) -> list[Figure]:
    """Both checkouts in turns over HTTP."""
    databases, sizes = bench.databases, bench.sizes
    other = Farebox(_Other(tree, databases.empty(kind), databases.new_directory() / "log"))
    with closing(other), databases.farebox(databases.blank(kind)) as this:
        database_pid = databases.server_pid() if kind == POSTGRESQL else None
        subjects = [
            _Measured(bench, server, Shape(seed=6 + at), database_pid) for at, server in enumerate((this, other))
        ]
        for subject in subjects:
            subject.send(subject.load(HTTP, sizes.warm_up_seconds))
        own, others = alternating(
            sizes.rounds, *[lambda subject=subject: subject.round(sizes.seconds) for subject in subjects]
        )
        difference = difference_nanocredits(this, subjects[:1])
        cpu_us, other_cpu_us = (subject.cpu_us for subject in subjects)
        written, other_written = (statistics.median(subject.bytes_a_span) for subject in subjects)
        spans = subjects[0].spans
    where = f"{kind}, {HTTP}"
    note = f"{statistics.median(cpu_us):.1f} ÷ {statistics.median(other_cpu_us):.1f} µs"
    bench.console.print(
        f"{where}: processor time a span {note}; {median_rate(own):,.0f} ÷ {median_rate(others):,.0f} spans/s"
    )
    server = " with the server's" if kind == POSTGRESQL else ""
    goal = 0.5 if kind == POSTGRESQL else 0.6
    figures = [
        Figure(
            f"processor time of a span{server} ÷ that of {tree.name}",
            where,
            ratio(cpu_us, other_cpu_us),
            goal=goal,
            at_least=False,
            note=note,
            samples=cpu_us,
        ),
        Figure(
            f"spans/s ÷ those of {tree.name}",
            where,
            ratio(rates(own), rates(others)),
            note=f"{median_rate(own):,.0f} ÷ {median_rate(others):,.0f}",
            samples=rates(own),
        ),
        Figure(
            "debited wallet by wallet, less what the calls cost",
            where,
            difference,
            "nano-USD",
            0,
            False,
            f"of {spans:,} spans",
        ),
    ]
    if kind != POSTGRESQL:
        note = f"{other_written:,.0f} by {tree.name}"
        figures.append(Figure("bytes written for a span", where, written, "bytes", 4_096, False, note))
    return figures


def _written(pid: int) -> int:
    """Return the bytes that a process and its children sent to the disk so far."""
    total = 0
    for one in children(pid):
        lines = Path(f"/proc/{one}/io").read_text(encoding="ascii").splitlines()
        total += int(dict(line.split(": ") for line in lines)["write_bytes"])
    return total
