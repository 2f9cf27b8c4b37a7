"""Actions without an end are counted, in bounded steps."""

from typing import Any

import pytest
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage import long_actions
from farebox_collector.ledger.usage.action_pricing import Change, FirstCall, move_actions
from farebox_collector.ledger.usage.long_actions import LONGEST_NS, RECENT_NS, count_long_actions
from farebox_collector.settings import Settings

START_NS = 1_767_300_000 * 10**9


def act(database: Database, action: str, calls: int, apart_ns: int, floor: int = 5, begun_ns: int = START_NS) -> None:
    """Some calls of an action, the first and the last so far apart."""
    key = ("ada", "run", action)
    with database.transaction() as connection:
        for at_ns, number in ((begun_ns, calls - 1), (begun_ns + apart_ns, 1)):
            move_actions(connection, 1, [Change(key, number, 0, floor, FirstCall(at_ns, "00"))])


def counted(database: Database, at_ns: int, limit: int) -> int:
    found, after = 0, 0
    while True:
        with database.reading() as connection:
            step = count_long_actions(connection, at_ns, after, limit)
        found += step.long
        if step.last_id is None:
            return found
        after = step.last_id


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_long_actions_are_counted_while_they_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(long_actions, "MOST_CALLS", 10)
    act(database, "a day", 2, LONGEST_NS)
    act(database, "more than a day", 2, LONGEST_NS + 1)
    act(database, "ten calls", 10, 1)
    act(database, "eleven calls", 11, 1)
    act(database, "without a floor", 11, LONGEST_NS + 1, floor=0)
    act(database, "long over", 11, 1, begun_ns=START_NS - RECENT_NS)
    assert counted(database, START_NS + 1, limit) == 2
    assert counted(database, START_NS + RECENT_NS + 1, limit) == 1
    assert counted(database, START_NS + RECENT_NS + LONGEST_NS + 1, limit) == 0


def test_rounds_go_on_where_the_last_one_ended(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from farebox_collector.background import upkeep

    def few(connection: Any, at_ns: int, after_id: int) -> long_actions.LongActions:
        return count_long_actions(connection, at_ns, after_id, 2)

    monkeypatch.setattr(upkeep, "_ACTION_STEPS", 1)
    monkeypatch.setattr(upkeep, "count_long_actions", few)
    for number in range(3):
        act(database, str(number), 2, LONGEST_NS + 1)
    told: list[int] = []
    settings = Settings(database_url="sqlite:///unused")
    work = Upkeep(settings, database, lambda: START_NS, long_actions=told.append)
    for _ in range(4):
        work._count_long_actions()
    assert told == [3, 3]
