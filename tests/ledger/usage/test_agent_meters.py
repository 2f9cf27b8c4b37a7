"""Points of metrics are added once each, in either temporality, through restarts and repetitions."""

import random

from farebox_collector.dialects.agent_metrics import INPUT, OUTPUT, MeterReading, meter_readings
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.agents import agent_meters, agent_series
from farebox_collector.ledger.usage.agent_meters import METER_DAYS, SERIES_DAYS, add_readings, forget_old
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import MetricPoint
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

NOW_NS = 20_000 * DAY_NS + 12 * 3600 * 10**9
MINUTE_NS = 60 * 10**9


def reading(
    series: int, tokens: int, minute: int, *, start: int = 0, delta: bool = False, kind: str = INPUT
) -> MeterReading:
    """A point of a series at a minute of the day."""
    name = series.to_bytes(16, "big")
    return MeterReading(
        "claude_code", "ada", kind, name, tokens, delta, NOW_NS + start * MINUTE_NS, NOW_NS + minute * MINUTE_NS
    )


def add(database: Database, *readings: MeterReading, now_ns: int = NOW_NS + 60 * MINUTE_NS) -> None:
    with database.transaction() as connection:
        add_readings(connection, 1, readings, now_ns)


def sums(database: Database) -> dict[tuple[int, str, str], tuple[int, int]]:
    """Day, tool, person → input and output."""
    with database.reading() as connection:
        rows = connection.execute(select(agent_meters)).all()
    return {(row.day, row.tool, row.person): (row.input_tokens, row.output_tokens) for row in rows}


TODAY = (20_000, "claude_code", "ada")


def test_both_temporalities_repetitions_and_restarts(database: Database) -> None:
    add(database, reading(1, 10, 1, delta=True), reading(1, 5, 2, delta=True, start=1))
    add(database, reading(1, 5, 2, delta=True, start=1))  # sent again
    assert sums(database) == {TODAY: (15, 0)}
    add(database, reading(2, 100, 1, kind=OUTPUT), reading(2, 130, 2, kind=OUTPUT))
    add(database, reading(2, 130, 2, kind=OUTPUT), reading(2, 120, 1, kind=OUTPUT))
    assert sums(database) == {TODAY: (15, 130)}
    add(database, reading(2, 7, 4, start=3, kind=OUTPUT))  # the sum began anew
    add(database, reading(2, 9, 5, start=3, kind=OUTPUT))
    add(database, reading(2, 4, 6, start=3, kind=OUTPUT))  # lower without a new start
    assert sums(database) == {TODAY: (15, 130 + 9 + 4)}


def test_points_in_any_batches_add_up_to_what_was_used(database: Database) -> None:
    chosen = random.Random(7)
    used = 0
    points = []
    for series in range(5):
        total, delta = 0, series % 2 == 0
        for minute in range(1, 20):
            more = chosen.randrange(100)
            total, used = total + more, used + more
            points.append(reading(series, more if delta else total, minute, delta=delta))
    points.sort(key=lambda point: point.time_ns)
    for start in range(0, len(points), 7):
        part = points[start : start + 7]
        for _ in range(chosen.randrange(1, 3)):
            add(database, *part)
    assert sums(database) == {TODAY: (used, 0)}


def test_times_out_of_range_count_as_now_and_old_rows_are_forgotten(database: Database) -> None:
    add(database, reading(1, 3, 0, delta=True)._replace(time_ns=5), reading(2, 4, 10**6, delta=True))
    assert sums(database) == {TODAY: (7, 0)}
    before_midnight = reading(3, 2, 0, delta=True)._replace(start_ns=20_000 * DAY_NS - 1, time_ns=20_000 * DAY_NS + 9)
    add(database, before_midnight)
    assert sums(database)[(19_999, "claude_code", "ada")] == (2, 0)
    with database.transaction() as connection:
        forget_old(connection, NOW_NS + (SERIES_DAYS + 1) * DAY_NS)
    with database.reading() as connection:
        assert connection.execute(select(agent_series)).all() == []
    assert len(sums(database)) == 2
    with database.transaction() as connection:
        forget_old(connection, NOW_NS + (METER_DAYS + 2) * DAY_NS)
    assert sums(database) == {}


def point(metric: str, value: float = 5, scope: str = "s", **attributes: str) -> MetricPoint:
    told = {key.replace("__", "."): value for key, value in attributes.items()}
    return MetricPoint(metric, value, True, 1, 2, told, scope)


def test_kinds_of_tokens_of_each_tool() -> None:
    read = meter_readings(
        [
            point("claude_code.token.usage", type="cacheRead", user__email="ada@example.com", user__id="f"),
            point("claude_code.token.usage", type="output", user__id="f"),
            point("gemini_cli.token.usage", type="thought"),
            point("gemini_cli.token.usage", type="cache"),
            point("codex.turn.token_usage", token_type="input"),
            point("codex.turn.token_usage", token_type="total"),
            point("codex.turn.token_usage", float("nan"), token_type="input"),
            point("codex.turn.token_usage", -1, token_type="input"),
        ]
    )
    assert [(one.tool, one.kind, one.person) for one in read] == [
        ("claude_code", INPUT, "ada@example.com"),
        ("claude_code", OUTPUT, "f"),
        ("gemini_cli", OUTPUT, ""),
        ("codex_cli", INPUT, ""),
    ]


@given(st.sampled_from(["session.id", "model", "user.id", "host.name"]), st.sampled_from(["x", "y"]))
def test_series_differ_by_any_attribute(key: str, value: str) -> None:
    plain = point("claude_code.token.usage", type="output")
    other = plain._replace(attributes={**plain.attributes, key: value})
    (one,), (another,), (again,) = (meter_readings([told]) for told in (plain, other, other))
    assert one.series != another.series == again.series
