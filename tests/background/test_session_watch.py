"""The costliest session of the last hour is the one that the calls say, however they arrive and whoever restarts."""

import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import median_low
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector.background import session_watch
from farebox_collector.background.session_watch import SessionWatch
from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.reports.agent_sessions import MINUTE_NS, last_record, last_record_before, session_costs
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from prometheus_client import CollectorRegistry
from sqlalchemy import update

HOUR_NS = 60 * MINUTE_NS
NOW_NS = START_NS // MINUTE_NS * MINUTE_NS + HOUR_NS
NOTHING = dict.fromkeys(TOOLS, (0, 0))


class Watched:
    """Books, a clock, and what a watch reported last, by tool."""

    def __init__(self, database: Database, now_ns: int = NOW_NS) -> None:
        self.database = database
        self.now_ns = now_ns
        self.told: dict[str, tuple[int, int]] = {}
        self.watch = SessionWatch(database, lambda: self.now_ns, self._note)

    def _note(self, tool: str, costliest: int, median: int) -> None:
        self.told[tool] = costliest, median

    def book(self, *made: PricedUsage) -> None:
        with self.database.transaction() as connection:
            record_usage(connection, 1, made, self.now_ns, TotalLabels())

    def run(self) -> dict[str, tuple[int, int]]:
        self.watch.round()
        return self.told


def agent_call(number: int, session: str, cost: int, at_ns: int = NOW_NS, tool: str = TOOLS[0], **more: Any) -> Any:
    """A call of a tool's session, at a cost in nano-USD."""
    made = call(number, trace=number, cost_nanousd=cost, start_ns=at_ns, **more)
    return made._replace(usage=made.usage._replace(dialect=tool, action_id=session))


def expected(made: Sequence[PricedUsage], now_ns: int) -> dict[str, tuple[int, int]]:
    """What the calls say, each looked at: the costliest session of each tool, and the median of the others."""
    sums: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in made:
        if one.priced_at_ns // MINUTE_NS > now_ns // MINUTE_NS - 60 and one.usage.action_id and one.cost_nanousd:
            sums[one.usage.dialect][one.usage.action_id] += one.cost_nanousd
    found = {}
    for tool in TOOLS:
        costs = sorted(sums[tool].values(), reverse=True)
        found[tool] = (costs[0] if costs else 0, median_low(costs[1:]) if costs[1:] else 0)
    return found


def test_only_charged_calls_of_sessions_of_the_last_hour_count(database: Database) -> None:
    watched = Watched(database)
    assert watched.run() == NOTHING
    watched.book(
        agent_call(1, "s1", 300),
        agent_call(2, "s1", 400, NOW_NS - HOUR_NS + MINUTE_NS),
        agent_call(3, "s2", 50),
        agent_call(4, "s3", 20),
        agent_call(5, "s4", 10),
        agent_call(6, "s1", 5_000, NOW_NS - HOUR_NS),  # over an hour ago
        agent_call(7, "", 5_000),  # of no session
        agent_call(8, "s1", 5_000, verdict=Verdict.UNPRICED),
        agent_call(9, "s1", 5_000, tool="genai"),  # of another application
        agent_call(10, "s1", 30, tool=TOOLS[1]),  # the same name, another tool
        agent_call(11, "s9", 40, NOW_NS + 7 * HOUR_NS, tool=TOOLS[2]),  # the clock of a laptop
    )
    told = NOTHING | {TOOLS[0]: (700, 20), TOOLS[1]: (30, 0), TOOLS[2]: (40, 0)}
    assert watched.run() == told
    assert watched.run() == told, "nothing is counted twice"
    watched.now_ns += HOUR_NS - MINUTE_NS
    assert watched.run()[TOOLS[0]] == (300, 20)
    watched.now_ns += MINUTE_NS
    assert watched.run() == NOTHING
    assert not watched.watch._costs, "sessions that are over take no memory"


def test_calls_arrive_in_any_order_and_a_watch_begins_at_any_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_watch, "_RECORDS_AT_ONCE", 3)
    chance = random.Random(20)
    watched, made, number = Watched(database), [], 0
    for _ in range(14):
        arrived = []
        for _ in range(chance.randrange(12)):
            number += 1
            at_ns = watched.now_ns - chance.randrange(90) * MINUTE_NS - chance.randrange(MINUTE_NS)
            tool, session = chance.choice((*TOOLS[:2], "genai")), f"s{chance.randrange(5)}"
            arrived.append(agent_call(number, session, chance.randrange(1_000), at_ns, tool))
        watched.book(*arrived)
        made += arrived
        right = expected(made, watched.now_ns)
        assert watched.run() == right
        assert Watched(database, watched.now_ns).run() == right, "after a restart it knows the same"
        watched.now_ns += chance.randrange(20) * MINUTE_NS
    assert sum(bool(cost) for cost, _ in watched.told.values()) == 2


def test_a_call_that_is_set_right_within_a_run_counts_as_it_is_then(database: Database) -> None:
    watched = Watched(database)
    watched.book(agent_call(1, "s1", 300), agent_call(2, "s1", 30))
    assert watched.run()[TOOLS[0]] == (330, 0)
    with database.transaction() as connection:
        connection.execute(
            update(usage_records).where(usage_records.c.cost_nanousd == 300).values(verdict=Verdict.DUPLICATE.value)
        )
    watched.now_ns += MINUTE_NS
    assert watched.run()[TOOLS[0]] == (30, 0)


def test_a_run_that_fails_half_way_is_made_good_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_watch, "_RECORDS_AT_ONCE", 2)
    watched = Watched(database)
    watched.book(*(agent_call(number, "s1", 100) for number in range(1, 8)))
    watched.run()
    asked: list[tuple[Any, ...]] = []

    def failing(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 3:
            raise OSError("the disk is away")
        return session_costs(*arguments)

    monkeypatch.setattr(session_watch, "session_costs", failing)
    with pytest.raises(OSError, match="away"):
        watched.run()
    assert watched.run()[TOOLS[0]] == (700, 0)
    assert watched.run()[TOOLS[0]] == (700, 0)


def test_the_first_record_of_a_time_is_found(database: Database) -> None:
    watched = Watched(database)
    upto = {0: 0}
    for minute in range(1, 9):
        watched.now_ns = minute * MINUTE_NS
        watched.book(*(agent_call(10 * minute + n, "s", 1) for n in range(minute % 3 + 1)))
        with database.reading() as connection:
            upto[minute] = last_record(connection)
    with database.reading() as connection:
        for minute in range(9):
            assert last_record_before(connection, minute * MINUTE_NS + 1) == upto[minute]
        assert last_record_before(connection, MINUTE_NS) == 0


def test_the_metric_is_in_dollars() -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, 1)

    def shown(tool: str, which: str) -> float | None:
        return registry.get_sample_value("farebox_agent_session_usd", {"tool": tool, "which": which})

    assert {shown(tool, which) for tool in TOOLS for which in ("costliest", "median")} == {0.0}
    meters.agent_sessions(TOOLS[0], 21_500_000_000, 2_000_000_000)
    assert (shown(TOOLS[0], "costliest"), shown(TOOLS[0], "median")) == (21.5, 2.0)
    assert shown(TOOLS[1], "costliest") == 0.0
