"""Know the costliest session of the last hour of each coding agent, for the metric and its alert.

Each run reads only the records that came since the run before, so a scrape costs nothing, and a run as much as a minute
of traffic. Records are read twice: at once, and for good a run later, when every transaction of that time has ended
and twins of the calls have been set right.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median_low
from typing import NamedTuple

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.reports.agent_sessions import MINUTE_NS, last_record, last_record_before, session_costs
from farebox_collector.ledger.storage.database import Database

PAUSE_S = 60.0
"""The pause between two runs: as long as the longest transaction."""
_MINUTES = 60
_RECORDS_AT_ONCE = 50_000
_LATE_NS = 5 * MINUTE_NS
"""How old records are that the first run takes as they will stay, and how far clocks of collectors may be apart."""

_Session = tuple[int, str, str]
"""A tenant, a tool, and a session of it."""
_Costs = defaultdict[_Session, defaultdict[int, int]]
"""What a session cost, by minute, in nano-USD."""


class Sessions(NamedTuple):
    """What sessions of a tool cost in the last hour, in nano-USD; 0 if there is none."""

    costliest_nanousd: int
    median_nanousd: int
    """Of the other sessions."""


class SessionWatch:
    """Add up the cost of sessions, run by run; `report` gets each tool with its `Sessions`."""

    def __init__(self, database: Database, clock: Callable[[], int], report: Callable[[str, int, int], object]) -> None:
        self._database = database
        self._clock = clock
        self._report = report
        self._costs = _no_costs()
        self._read_for_good = self._read_at_once = -1

    def round(self) -> None:
        """Read what came since the last run, and report."""
        now_ns = self._clock()
        with self._database.snapshot() as connection:
            newest = last_record(connection)
            if self._read_for_good < 0:
                hour_ago_ns = now_ns - _MINUTES * MINUTE_NS
                self._read_for_good = last_record_before(connection, hour_ago_ns - _LATE_NS)
                self._read_at_once = last_record_before(connection, now_ns - _LATE_NS)
        # A run that fails continues behind the last range that was read for good.
        for upto in _steps(self._read_for_good, self._read_at_once):
            self._read(self._costs, self._read_for_good, upto, now_ns)
            self._read_for_good = upto
        latest = _no_costs()
        after = self._read_for_good
        for upto in _steps(after, newest):
            self._read(latest, after, upto, now_ns)
            after = upto
        self._read_at_once = newest
        self._forget(now_ns)
        for tool, costs in self._by_tool(latest).items():
            self._report(tool, *costs)

    def _read(self, costs: _Costs, after: int, upto: int, now_ns: int) -> None:
        now = now_ns // MINUTE_NS
        with self._database.snapshot() as connection:
            rows = session_costs(connection, after, upto, (now - _MINUTES + 1) * MINUTE_NS)
        for row in rows:
            # The clock of a laptop may be ahead.
            costs[row.tenant_id, row.tool, row.session][min(row.minute, now)] += int(row.cost_nanousd)

    def _forget(self, now_ns: int) -> None:
        """Drop minutes that are over an hour ago, and sessions without others."""
        over = now_ns // MINUTE_NS - _MINUTES
        for session, minutes in list(self._costs.items()):
            for minute in [minute for minute in minutes if minute <= over]:
                del minutes[minute]
            if not minutes:
                del self._costs[session]

    def _by_tool(self, latest: _Costs) -> dict[str, Sessions]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for session in self._costs.keys() | latest.keys():
            minutes = [costs[session] for costs in (self._costs, latest) if session in costs]
            found[session[1]].append(sum(sum(cost.values()) for cost in minutes))
        return {tool: _sessions(found[tool]) for tool in TOOLS}


def _sessions(costs_nanousd: list[int]) -> Sessions:
    *others, costliest = sorted(costs_nanousd) or [0]
    return Sessions(costliest, median_low(others) if others else 0)


def _no_costs() -> _Costs:
    return defaultdict(lambda: defaultdict(int))


def _steps(after: int, upto: int) -> Iterator[int]:
    """Yield the ends of ranges that are read at once."""
    while after < upto:
        after = min(after + _RECORDS_AT_ONCE, upto)
        yield after
