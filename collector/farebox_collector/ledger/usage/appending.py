"""Append ordinary calls to the books: their rows, their claims, and one row of sums for `folding`.

Spans that the books have are told by a look-up (`span_index`). With several writers the database decides what is new:
rows are inserted under the unique key (tenant, trace, span). Then they claim their calls (`claims`). So a span may
arrive any number of times, on any replica and in any batch. A batch with a call that needs more than that is taken
back, and booked by `booking`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, NestedTransaction
from sqlalchemy.exc import IntegrityError

from farebox_collector.ledger.journal.journal import COGS_ACCOUNT, EARNED_ACCOUNT, balance
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.differences import has_one_writer, new_ids
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.batch import Calls, Prepared
from farebox_collector.ledger.usage.batch_sums import BatchSums
from farebox_collector.ledger.usage.columns import BATCH_COLUMNS, FACT_COLUMNS, facts_of_row
from farebox_collector.ledger.usage.folding import MOST_UNFOLDED, Appending, OpenTransactions
from farebox_collector.ledger.usage.span_counts import add_span_counts
from farebox_collector.ledger.usage.stored_usage import known_facts
from farebox_collector.ledger.usage.summed_calls import any_trace_is_known, may_be_wrapped
from farebox_collector.ledger.usage.tombstones import delete_retired
from farebox_collector.ledger.usage.twins import cover_claimed
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.verdicts import Verdict

_BY_NAME = {verdict.value: verdict for verdict in Verdict}
_SPAN_KEY = ("tenant_id", "trace_id", "span_id")
ORDER_COLUMNS = ("started_at_ns", "trace_id", "span_id")
"""The order of inserts: two writers with the same spans wait for each other, and cannot deadlock."""


def append_calls(
    connection: Connection,
    tenant_id: int,
    calls: Calls,
    received_at_ns: int,
    opened: OpenTransactions,
    spans: Mapping[str, int] | None = None,
) -> list[Verdict] | None:
    """Append one tenant's calls to its open transaction, to be folded later. Returns a verdict for each, in order.

    The outcomes of the calls are counted with the other `spans` of the batch; without them the caller counts. Returns
    None, with nothing written, if any call needs individual handling: `record_calls` books them then.
    """
    prepared = calls.prepared
    if prepared is None or not has_room(connection, tenant_id, prepared.sums):
        return None
    # Nearly all traces are new, or all of them, after an outage.
    traces = frozenset(prepared.column("trace_id"))
    related = opened.tail.has_any(connection, tenant_id, traces) or any_trace_is_known(connection, tenant_id, traces)
    known = _known(connection, tenant_id, prepared) if related else frozenset()
    if known is None:
        return None
    if len(known) == prepared.size:
        verdicts = [Verdict.DUPLICATE] * prepared.size
        add_span_counts(connection, tenant_id, _counted(verdicts, spans))
        return verdicts
    new = prepared.without(known) if known else prepared
    if new is not None and opened.expects_twins(connection, tenant_id, new.claims):
        new = _with_twins_covered(connection, tenant_id, new, opened)
    if new is None:
        return None
    outcomes = map(_BY_NAME.__getitem__, new.column("verdict"))
    verdicts = [Verdict.DUPLICATE if place in known else next(outcomes) for place in range(prepared.size)]
    attempt = connection.begin_nested()
    into = opened.current(connection, tenant_id, received_at_ns)
    opened.tail.add(connection, tenant_id, traces, into.after_id)
    if not _insert(into, new, related, opened):
        _take_back(attempt, into, opened)
        return None
    first_ns, last_ns = Calls(prepared=new).priced_ns
    assert first_ns is not None
    assert last_ns is not None
    opened.append(into.transaction, new.sums, new.claims, (first_ns, last_ns), _counted(verdicts, spans))
    attempt.commit()
    return verdicts


def _counted(verdicts: Sequence[Verdict], spans: Mapping[str, int] | None) -> Mapping[str, int]:
    """Return the counts of all spans by outcome, if the caller does not count them."""
    return {} if spans is None else Counter(spans) + Counter(map(str, verdicts))


def _with_twins_covered(
    connection: Connection, tenant_id: int, new: Prepared, opened: OpenTransactions
) -> Prepared | None:
    covered = cover_claimed(connection, tenant_id, new)
    if covered is not new:
        opened.expect_twins()
    return covered


def _take_back(attempt: NestedTransaction, into: Appending, opened: OpenTransactions) -> None:
    """Undo an attempt, with the ledger transaction that it began, if it did."""
    attempt.rollback()
    if into.is_new:
        opened.forget(into.transaction.tenant_id)


def _known(connection: Connection, tenant_id: int, prepared: Prepared) -> frozenset[int] | None:
    """Return the indexes of the calls that the books have; None if one has other facts there."""
    keys = list(prepared.columns_of("trace_id", "span_id"))
    stored = known_facts(connection, tenant_id, keys)
    known = set()
    for place, (key, facts) in enumerate(zip(keys, prepared.columns_of(*FACT_COLUMNS), strict=True)):
        if key in stored:
            if stored[key][1] != facts_of_row(facts):
                return None
            known.add(place)
    return frozenset(known)


def _insert(into: Appending, new: Prepared, related: bool, opened: OpenTransactions) -> bool:
    """Insert calls and claim them. Return whether none needs more: what another replica has, or a sum."""
    transaction, after_id, _ = into
    connection = transaction.connection
    insert = _insert_rows if has_one_writer(connection) else _insert_with_ids
    record_ids = insert(into, new)
    if record_ids is None or delete_retired(connection, transaction.id, after_id):
        return False
    if related and may_be_wrapped(connection, transaction.id, after_id):
        return False
    claimed = opened.claim(into, new.claims, record_ids)
    if not claimed:
        opened.expect_twins()
    return claimed


def _insert_rows(into: Appending, new: Prepared) -> Iterable[int] | None:
    """Insert calls whose ids nobody needs. The caller, the only writer, knows that they are new."""
    names, same, rows = new.rows()
    transaction = into.transaction
    bulk_insert.insert(
        transaction.connection,
        usage_records.name,
        (*BATCH_COLUMNS, *names),
        rows,
        same=(transaction.tenant_id, transaction.id, transaction.at_ns, *same),
    )
    return ()


def _insert_with_ids(into: Appending, new: Prepared) -> Iterable[int] | None:
    """Insert calls, and return the record of each claim; None if the books have a call: the caller rolls back.

    Claims that are inserted as rows with these ids take half the time of claims selected from the records.
    """
    names, same, rows = new.rows()
    transaction = into.transaction
    record_ids = new_ids(transaction.connection, usage_records.name, new.size)
    places = sorted(range(new.size), key=list(new.columns_of(*ORDER_COLUMNS)).__getitem__)
    try:
        bulk_insert.insert(
            transaction.connection,
            usage_records.name,
            (*BATCH_COLUMNS, *names[: len(same)], "id", *names[len(same) :]),
            [(record_id, *rows[place]) for record_id, place in zip(record_ids, places, strict=True)],
            same=(transaction.tenant_id, transaction.id, transaction.at_ns, *same),
        )
    except IntegrityError:
        return None
    by_place = dict(zip(places, record_ids, strict=True))
    return [by_place[place] for place in new.places_of_claims()]


def insert_records(
    connection: Connection, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]], same: tuple[Any, ...]
) -> int:
    """Insert rows, with the same values of the first columns. Return how many are new.

    With one writer all must be: the caller has looked them up.
    """
    if has_one_writer(connection):
        bulk_insert.insert(connection, usage_records.name, columns, rows, same=same)
        return len(rows)
    return bulk_insert.insert_ignoring_conflicts(connection, usage_records.name, columns, rows, same, on=_SPAN_KEY)


def has_room(connection: Connection, tenant_id: int, sums: BatchSums) -> bool:
    """Return whether the tenant's sums stay within the range of a column, with every batch that is not folded yet."""
    if max(sums.cost_nanousd, sums.charge_nanocredits) > MAX_SUM_NANO // (4 * MOST_UNFOLDED):
        return False
    return max(spent_and_charged(connection, tenant_id)) <= MAX_SUM_NANO // 2


def spent_and_charged(connection: Connection, tenant_id: int) -> tuple[int, int]:
    """Return the folded cost in nano-USD and charge in nanocredits of a tenant's usage."""
    return (balance(connection, tenant_id, COGS_ACCOUNT), balance(connection, tenant_id, EARNED_ACCOUNT))
