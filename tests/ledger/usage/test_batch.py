"""Calls that were prepared where they were read come to the same books as calls that are looked at one by one."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blank import JANUARY_NS, blank_sqlite
from calls import SECOND_NS, START_NS, call
from farebox_collector.assembly import open_books
from farebox_collector.intake.reader import ReadRequest
from farebox_collector.intake.reader_wire import packed, unpacked
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.batch_sums import BatchSums, SumsInProgress
from farebox_collector.ledger.usage.booking import record_calls
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.ledger.usage.wrappers import place_of, wrappers_in
from farebox_collector.model.records import (
    NO_QUALITY,
    Buckets,
    ModelLine,
    PricedUsage,
    Quality,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from hypothesis import event, given, settings
from hypothesis import strategies as st

_SAID = "tenant_id, number, at_ns, actor, address, action, outcome, subject, details"

names = st.sampled_from(("", "a", "b"))
counts = st.integers(0, 3)
amounts = st.integers(0, 5)


buckets = st.builds(Buckets, *[counts] * len(Buckets._fields))
lines = st.builds(ModelLine, names, names, names, names, names, names, buckets, st.just((("web_searches", 1),)))
unusual_facts = st.fixed_dictionaries(
    {},
    optional={
        "speed": names,
        "inference_region": names,
        "other_lines": st.lists(lines, max_size=2).map(tuple),
        "stated_cost_nanousd": amounts,
        "other_reading": buckets,
        "exposure": names,
    },
)


@st.composite
def ordinary_calls(draw: st.DrawFn) -> PricedUsage:
    """A call that may be prepared, of few facts, so that they repeat often."""
    made = call(trace=draw(st.integers(1, 2)), cost_nanousd=draw(amounts))
    facts: dict[str, Any] = draw(st.one_of(st.just({}), unusual_facts))
    facts |= {name: draw(names) for name in ("dept", "project", "task", "route", "region", "scope", "user_id")}
    usage = made.usage._replace(
        wallet=draw(st.sampled_from(("ada", "bob"))),
        event=draw(st.sampled_from(("chat", "agent"))),
        action_id=draw(names),
        started_at_ns=START_NS + draw(st.integers(0, 3)) * 40 * SECOND_NS,
        latency_ns=draw(st.sampled_from((0, SECOND_NS, 100 * SECOND_NS))),
        service_tier=draw(names),
        error_type=draw(st.sampled_from(("", "", "timeout"))),
        buckets=draw(st.builds(Buckets, *[counts] * len(Buckets._fields))),
        time_to_first_chunk_ns=draw(st.one_of(st.none(), st.integers(0, SECOND_NS))),
        assumptions=draw(st.sampled_from(((), ("one",), ("one", "two")))),
        units=draw(st.sampled_from(((), (("web_searches", 2),)))),
        quality=draw(st.sampled_from((NO_QUALITY, Quality(1, 500_000, 1, 0), Quality(cache_hit=0)))),
        **facts,
    )
    return made._replace(
        usage=usage,
        priced_at_ns=usage.started_at_ns + draw(st.integers(0, 1)) * 86_400 * SECOND_NS,
        price_version_ids=draw(st.sampled_from(("[1]", "[1, 2]"))),
        rule_version_id=draw(st.sampled_from((1, 2))),
        assumptions=usage.assumptions + draw(st.sampled_from(((), ("priced_as_input",)))),
    )


others = st.builds(
    call,
    st.integers(0, 30),
    response_id=st.sampled_from(("", "1", "2")),
    verdict=st.sampled_from((Verdict.UNPRICED, Verdict.UNMETERED, Verdict.CHARGED)),
)


@st.composite
def requests_of_ordinary_calls(draw: st.DrawFn) -> list[PricedUsage]:
    """Calls with spans and responses of their own, but for a few; some requests bring those of others again."""
    origin = draw(st.integers(0, 5)) * 20
    calls = []
    for place, made in enumerate(draw(st.lists(ordinary_calls(), min_size=1, max_size=8))):
        span, response = (draw(st.sampled_from((place,) * 9 + (0,))) + origin for _ in range(2))
        parent = draw(st.sampled_from((-1,) * 5 + tuple(range(8))))
        around = b"" if parent < 0 or parent == place else (parent + origin).to_bytes(8, "big")
        usage = made.usage._replace(span_id=span.to_bytes(8, "big"), parent_span_id=around, response_id=str(response))
        calls.append(made._replace(usage=usage))
    return calls


requests = requests_of_ordinary_calls()
batches = st.lists(st.one_of(requests, requests, st.lists(others, max_size=3)), min_size=1, max_size=3)


def through_the_wire(calls: Calls) -> Calls:
    """Calls as they arrive from a reading process."""
    return unpacked(packed(ReadRequest(calls, list(range(len(calls))), [], [], 0, len(calls)))).calls


def types_in(value: Any) -> Any:
    """The types within nested tuples: equal values of other types would be stored as something else."""
    return [type(value), *map(types_in, value)] if isinstance(value, tuple) else type(value)


@given(st.one_of(requests, st.lists(others, max_size=3)))
def test_what_was_prepared_can_be_made_again(made: list[PricedUsage]) -> None:
    calls = through_the_wire(Calls.of(made))
    assert len(calls) == len(made)
    assert list(calls) == made == calls
    assert [types_in(one) for one in calls] == [types_in(one) for one in made]
    assert [one.usage.quality is NO_QUALITY for one in calls] == [one.usage.quality is NO_QUALITY for one in made]
    assert [calls[place] for place in range(-1, len(made) - 1)] == [made[place] for place in range(-1, len(made) - 1)]
    assert calls[1:5:2] == made[1:5:2]
    latencies = [(one.usage.trace_id, one.usage.latency_ns) for one in made]
    assert list(calls.columns_of("trace_id", "latency_ns")) == latencies


@given(st.lists(requests, min_size=1, max_size=4))
def test_requests_together_are_what_one_would_be(parts: list[list[PricedUsage]]) -> None:
    everything = [one for part in parts for one in part]
    event(f"{min(2, sum(Calls.of(part).prepared is not None for part in parts))} prepared of {len(parts)}")
    together, whole = Calls.together([Calls.of(part) for part in parts]), Calls.of(everything)
    assert together == everything
    related = any(one.usage.parent_span_id for one in everything)
    assert together.prepared is None or whole.prepared is not None
    assert whole.prepared is None or together.prepared is not None or (related and len(parts) > 1)
    if together.prepared is not None and whole.prepared is not None:
        assert _summed(together.prepared.sums) == _summed(whole.prepared.sums)
        assert together.prepared.claims == whole.prepared.claims


def _summed(sums: BatchSums) -> tuple[Any, ...]:
    """What the texts of requests add up to, and the rest."""
    total = SumsInProgress()
    for text in sums.texts:
        total.add(json.loads(text))
    return total.sums(), sums[1:]


@st.composite
def nested_calls(draw: st.DrawFn) -> list[PricedUsage]:
    """Make calls of one trace within each other, of so few tokens that sums occur often."""
    made = []
    for number in range(1, draw(st.integers(3, 6))):
        tokens = Buckets(
            input=draw(st.integers(1, 4)),
            output=draw(st.integers(0, 2)),
            cache_read=draw(st.sampled_from((0, 0, 0, 1))),
        )
        parent = draw(st.sampled_from((0, 1, 1, 2, 3, 9)))
        made.append(
            call(
                number,
                parent=0 if parent == number else parent,
                response_id=str(number),
                buckets=tokens,
                start_ns=START_NS + draw(st.integers(0, 2)) * SECOND_NS,
            )
        )
    return made


@given(nested_calls())
def test_a_prepared_request_has_no_call_that_sums_up_others(made: list[PricedUsage]) -> None:
    traces = {one.usage.trace_id for one in made}
    wrappers = set().union(
        *(wrappers_in(place_of(one) for one in made if one.usage.trace_id == trace) for trace in traces)
    )
    spans = {one.usage.span_id for one in made}
    related = any(one.usage.parent_span_id in spans for one in made)
    event(f"{bool(wrappers)} wrappers, {related} related")
    if Calls.of(made).prepared is not None and related:
        assert not wrappers


def test_calls_within_calls_are_prepared_unless_one_sums_up_others() -> None:
    def within(tokens: int, **facts: Any) -> list[PricedUsage]:
        inner = [
            call(number, parent=3, response_id=str(number), buckets=Buckets(input=10 * number, output=5), **facts)
            for number in (1, 2)
        ]
        return [*inner, call(3, response_id="3", buckets=Buckets(input=tokens, output=10))]

    assert Calls.of(within(31)).prepared is not None
    assert Calls.of(within(30)).prepared is None
    other = [call(4, parent=3, response_id="4", buckets=Buckets(input=7, output=5))]
    assert Calls.together([Calls.of(within(31)), Calls.of(other)]).prepared is None
    of_whole = Calls.of([*within(30)[:2], *other, within(30)[2]]).prepared
    assert of_whole is not None
    assert of_whole.without({2}) is None
    apart = [call(4, trace=2, response_id="4")]
    assert Calls.together([Calls.of(within(31)), Calls.of(apart)]).prepared is not None


@settings(max_examples=25, deadline=None)
@given(st.lists(batches, min_size=1, max_size=5), st.sampled_from((1, 64)))
def test_the_books_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[list[PricedUsage]]], times: int
) -> None:
    directory = tmp_path_factory.mktemp("books")
    found = []
    for name in ("prepared", "looked-at"):
        (directory / name).mkdir()
        url = blank_sqlite(directory / name)
        with closing(open_books(Settings(database_url=url), lambda: JANUARY_NS)) as database:
            with database.transaction() as connection:
                deposit(connection, 1, "ada", 50, "given", START_NS)
                take_holds(connection, 1, [HoldRequest("ada", 30, "set aside", "chat", "a", 60)], START_NS)
            verdicts = [_record(database, batch, prepare=name == "prepared") for batch in _many(history, times)]
            with database.reading() as connection:
                assert list(audit(connection)) == []
        found.append((verdicts, _everything(directory / name / "farebox.db")))
    assert found[0] == found[1]


def _many(history: list[list[list[PricedUsage]]], times: int) -> list[list[list[PricedUsage]]]:
    """The same with each first batch repeated under other ids, so that it is worth a statement of its own."""
    if times == 1:
        return history
    return [
        [
            [
                one._replace(
                    usage=one.usage._replace(
                        trace_id=number.to_bytes(8, "big") + one.usage.trace_id[8:],
                        response_id=one.usage.response_id and f"{one.usage.response_id}-{number}",
                    )
                )
                for number in range(times)
                for one in part
            ]
            for part in batch
        ]
        for batch in history[:2]
    ]


def _record(database: Database, batch: list[list[PricedUsage]], *, prepare: bool) -> list[Verdict]:
    if prepare:
        calls = Calls.together([through_the_wire(Calls.of(part)) for part in batch])
    else:
        calls = Calls([one for part in batch for one in part])
    event(f"{calls.prepared is not None} prepared")
    with database.transaction() as connection:
        verdicts = record_calls(connection, 1, calls, START_NS, TotalLabels())
        count_spans(connection, 1, len(verdicts), Counter(verdicts))
    return verdicts


def _everything(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # A chain is salted anew in each of two books; what its entries say is compared.
        wanted = {"audit_log": _SAID, "audit_log_heads": "tenant_id, last_number, retired_number"}
        return {
            table: connection.execute(f"SELECT {wanted.get(table, '*')} FROM {table}").fetchall()
            for table in sorted(tables)
        }


def test_what_somebody_must_look_at_is_not_prepared() -> None:
    ordinary = [call(number, response_id=str(number)) for number in (1, 2, 3)]
    assert Calls.of(ordinary).prepared is not None
    for odd in (
        call(3),
        call(3, response_id="3", verdict=Verdict.UNPRICED),
        call(3, response_id="2"),
        call(2, response_id="3"),
        call(3, response_id="3")._replace(action_floor_nanocredits=5),
    ):
        assert Calls.of([*ordinary[:2], odd]).prepared is None
        assert Calls.together([Calls.of(ordinary[:2]), Calls.of([odd])]).prepared is None
    assert Calls.of([]).prepared is None
