"""Spans that sum up the calls within them are known by their structure: each call is charged once, in any order."""

from contextlib import closing
from typing import Any, NamedTuple

import pytest
from blank import blank_sqlite
from calls import SECOND_NS, START_NS, call
from farebox_collector.assembly import open_books
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.statements import UsageFilter, usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.settlement import Waiting, settle_doubles, settle_open
from farebox_collector.ledger.usage.stored_usage import StoredCall
from farebox_collector.ledger.usage.summed_calls import Found
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def record(database: Database, *calls: PricedUsage) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, START_NS, TotalLabels())


def charged(database: Database) -> list[int]:
    """The numbers of the spans that pay, once the books are found clean."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        rows = usage(connection, 1, UsageFilter(), limit=1_000)
        return sorted(int.from_bytes(row.span_id, "big") for row in rows if row.verdict == Verdict.CHARGED)


def one(
    number: int, went_in: int, came_out: int, *, parent: int = 0, at: int = 0, took: int = 1, **more: Any
) -> PricedUsage:
    """A call with these counts; times in seconds."""
    return call(
        number,
        parent=parent,
        buckets=Buckets(input=went_in, output=came_out),
        start_ns=START_NS + at * SECOND_NS,
        latency_ns=took * SECOND_NS,
        **more,
    )


WRAPPER = one(1, 300, 30, took=10)
FIRST = one(2, 100, 10, parent=1, at=1, response_id="chatcmpl-a")
SECOND = one(3, 200, 20, parent=1, at=3, response_id="chatcmpl-b")


@pytest.mark.parametrize(
    "batches",
    [
        [[WRAPPER, FIRST, SECOND]],
        [[FIRST, SECOND], [WRAPPER]],
        [[WRAPPER], [FIRST], [SECOND]],
        [[FIRST], [WRAPPER], [SECOND]],
        [[SECOND, WRAPPER], [FIRST]],
        [[WRAPPER], [FIRST, SECOND], [WRAPPER], [SECOND]],
    ],
)
def test_a_sum_of_calls_is_given_back_once_in_any_order(database: Database, batches: list[list[PricedUsage]]) -> None:
    for batch in batches:
        record(database, *batch)
    assert charged(database) == [2, 3]


@pytest.mark.parametrize("batches", [[[1], [2, 3]], [[2, 3], [1]], [[2], [1], [3]], [[1], [2], [3]], [[2], [3], [1]]])
def test_the_span_around_has_a_response_id_of_its_own(database: Database, batches: list[list[int]]) -> None:
    spans = {1: one(1, 300, 30, took=10, response_id="chatcmpl-around"), 2: FIRST, 3: SECOND}
    for batch in batches:
        record(database, *(spans[number] for number in batch))
    assert charged(database) == [2, 3]


def test_the_span_around_has_the_response_id_of_its_last_call(database: Database) -> None:
    around = one(1, 300, 30, took=10, response_id="chatcmpl-b")
    for batch in ([FIRST], [SECOND], [around]):
        record(database, *batch)
    assert charged(database) == [2, 3]


@pytest.mark.parametrize("batches", [[[1, 2, 3]], [[2, 3], [1]], [[1], [2, 3]], [[1], [2], [3]]])
def test_a_span_in_between_that_is_not_in_the_books(database: Database, batches: list[list[int]]) -> None:
    spans = {1: WRAPPER, 2: one(2, 100, 10, parent=77, at=1), 3: one(3, 200, 20, parent=78, at=3)}
    for batch in batches:
        record(database, *(spans[number] for number in batch))
    assert charged(database) == [2, 3]


@pytest.mark.parametrize("batches", [[[1, 2]], [[1], [2]], [[2], [1]]])
@pytest.mark.parametrize("response_id", ["", "chatcmpl-a"])
def test_a_span_around_one_call_is_its_twin_at_once(
    database: Database, batches: list[list[int]], response_id: str
) -> None:
    spans = {1: one(1, 100, 10, took=5), 2: one(2, 100, 10, parent=1, at=1, response_id=response_id)}
    for batch in batches:
        record(database, *(spans[number] for number in batch))
    assert len(charged(database)) == 1


@pytest.mark.parametrize("response_ids", [("", ""), ("chatcmpl-a", "chatcmpl-b")])
def test_two_equal_siblings_in_one_batch_are_both_charged(database: Database, response_ids: tuple[str, str]) -> None:
    first, second = (one(n, 100, 10, parent=9, response_id=i) for n, i in zip((1, 2), response_ids, strict=True))
    assert record(database, first, second) == [Verdict.CHARGED, Verdict.CHARGED]
    assert charged(database) == [1, 2]


@pytest.mark.parametrize(("went_in", "came_out"), [(300, 30), (180, 30), (300, 18), (180, 18)])
def test_a_sum_may_leave_out_the_cache_and_the_reasoning(database: Database, went_in: int, came_out: int) -> None:
    """Frameworks add up what a client's counts show them, and some clients have these beside the others."""
    cached = Buckets(input=40, cache_read=60, output=10, reasoning=7)
    other = Buckets(input=140, cache_write=60, output=20, reasoning=5)
    calls = [
        call(
            number, parent=1, buckets=buckets, start_ns=START_NS + number * SECOND_NS, response_id=f"chatcmpl-{number}"
        )
        for number, buckets in ((2, cached), (3, other))
    ]
    for batch in ([calls[0]], [one(1, went_in, came_out, took=10)], [calls[1]]):
        record(database, *batch)
    assert charged(database) == [2, 3]


def test_what_is_no_sum_is_charged(database: Database) -> None:
    record(database, one(1, 301, 30, took=10), FIRST, SECOND)
    record(database, one(5, 300, 30, at=20, took=1), one(6, 100, 10, parent=5, at=20))
    assert charged(database) == [1, 2, 3, 5, 6]


def test_siblings_are_not_summed_up_by_a_longer_one(database: Database) -> None:
    record(
        database, one(1, 300, 30, parent=9, took=10), one(2, 100, 10, parent=9, at=1), one(3, 200, 20, parent=9, at=3)
    )
    assert charged(database) == [1, 2, 3]


def test_calls_of_another_trace_are_nothing_to_it(database: Database) -> None:
    record(database, WRAPPER, one(2, 100, 10, parent=1, at=1, trace=2), one(3, 200, 20, parent=1, at=3, trace=2))
    assert charged(database) == [1, 2, 3]


def test_what_two_replicas_brought_at_one_moment_is_settled_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as blind:
        # Neither saw what the other was about to commit.
        blind.setattr("farebox_collector.ledger.usage.booking.cover_wrappers", lambda *_: Found([], frozenset()))
        blind.setattr("farebox_collector.ledger.usage.appending.may_be_wrapped", lambda *_: False)
        record(database, WRAPPER)
        record(database, FIRST, SECOND)
    assert charged(database) == [1, 2, 3]
    for _ in range(2):
        with database.transaction() as connection:
            waiting = Waiting(Verdict.CHARGED, 0, START_NS + 1, 100)
            settle_doubles(connection, 1, waiting, START_NS, TotalLabels())
        assert charged(database) == [2, 3]


@pytest.mark.parametrize("comes_first", [True, False])
@pytest.mark.parametrize("price_comes", [True, False])
def test_a_sum_without_a_price_is_covered_and_never_charged_beside_its_calls(
    database: Database, comes_first: bool, price_comes: bool
) -> None:
    around = one(1, 300, 30, took=10, verdict=Verdict.UNPRICED, model="unheard-of")
    for batch in ([around], [FIRST], [SECOND]) if comes_first else ([FIRST], [SECOND], [around]):
        record(database, *batch)

    def priced(stored: StoredCall) -> PricedUsage:
        return one(1, 300, 30, took=10, model="unheard-of") if price_comes else stored.call

    with database.transaction() as connection:
        waiting = Waiting(Verdict.UNPRICED, 0, START_NS + 1, 100)
        settle_open(connection, 1, waiting, priced, START_NS, TotalLabels())
    with database.reading() as connection:
        verdicts = [row.verdict for row in usage(connection, 1, UsageFilter(), limit=10)]
    assert charged(database) == [2, 3]
    assert sorted(verdicts) == [Verdict.CHARGED, Verdict.CHARGED, Verdict.COVERED]


class Leaf(NamedTuple):
    """A call in a random tree."""

    went_in: int
    came_out: int
    with_id: bool


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> list[object]:
    """Two parts or more; each a call or another list."""
    leaf = st.builds(Leaf, st.integers(10**3, 10**9 // 64), st.integers(10**3, 10**9 // 64), st.booleans())
    part = leaf if depth == 0 else st.one_of(leaf, trees(depth - 1))
    return draw(st.lists(part, min_size=2, max_size=3))


class _Spans:
    """The spans of a tree: a wrapper for each list, with the sum of what is in it."""

    def __init__(self, tree: list[object], dropped: list[bool]) -> None:
        self.calls: list[PricedUsage] = []
        self.leaves: list[int] = []
        self._dropped = dropped
        self._next = 0
        self._clock = 0
        self._add(tree, 0)

    def _add(self, part: object, parent: int) -> tuple[int, int]:
        self._next += 1
        number = self._next
        start = self._clock
        self._clock += 1
        if isinstance(part, Leaf):
            self._clock += 1
            self.leaves.append(number)
            counts = (part.went_in, part.came_out)
            response_id = f"chatcmpl-{number}" if part.with_id else ""
            self.calls.append(one(number, *counts, parent=parent, at=start, took=1, response_id=response_id))
            return counts
        assert isinstance(part, list)
        # Now and then a span lies in between that is no call.
        below = number + 10_000 if self._dropped[number % len(self._dropped)] else number
        sums = [self._add(one_of, below) for one_of in part]
        counts = (sum(went_in for went_in, _ in sums), sum(came_out for _, came_out in sums))
        self.calls.append(one(number, *counts, parent=parent, at=start, took=self._clock - start))
        self._clock += 1
        return counts


@given(
    tree=trees(),
    dropped=st.lists(st.booleans(), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_call_of_a_random_tree_is_charged_once(
    tmp_path_factory: pytest.TempPathFactory, tree: list[object], dropped: list[bool], order: object, cuts: list[int]
) -> None:
    spans = _Spans(tree, dropped)
    calls = list(spans.calls)
    order.shuffle(calls)  # type: ignore[attr-defined]
    url = blank_sqlite(tmp_path_factory.mktemp("books"))
    with closing(open_books(Settings(database_url=url), lambda: START_NS)) as database:
        place = 0
        while calls:
            size = cuts[place % len(cuts)]
            batch, calls, place = calls[:size], calls[size:], place + 1
            record(database, *batch)
        assert charged(database) == sorted(spans.leaves)
