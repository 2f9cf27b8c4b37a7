"""Append ordinary calls to the books: their rows, their claims, and one row of sums for `folding`.

The database decides what is new: rows are inserted with ON CONFLICT DO NOTHING under the unique key (tenant, trace,
span), then claim their calls (`claims`) in the same way. So a span may arrive any number of times, on any replica and
in any batch. Batches with calls that need more than that are booked by `booking`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, NestedTransaction

from farebox_collector.ledger.journal.journal import COGS_ACCOUNT, EARNED_ACCOUNT, balance
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.batch import Calls, Prepared
from farebox_collector.ledger.usage.batch_sums import BatchSums
from farebox_collector.ledger.usage.columns import BATCH_COLUMNS, FACT_COLUMNS, facts_of_row
from farebox_collector.ledger.usage.folding import MOST_UNFOLDED, Appending, OpenTransactions
from farebox_collector.ledger.usage.span_counts import add_span_counts
from farebox_collector.ledger.usage.stored_usage import known_facts
from farebox_collector.ledger.usage.summed_calls import any_trace_is_known, may_be_wrapped
from farebox_collector.ledger.usage.tombstones import delete_retired
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.verdicts import Verdict

SPAN_KEY = ("tenant_id", "trace_id", "span_id")
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
    attempt = connection.begin_nested()
    into = opened.current(connection, tenant_id, received_at_ns)
    known = _insert_new(into, prepared)
    if known is not None and len(known) == prepared.size:
        _take_back(attempt, into, opened)
        verdicts = [Verdict.DUPLICATE] * prepared.size
        add_span_counts(connection, tenant_id, _counted(spans, verdicts))
        return verdicts
    new = prepared.without(known) if known else prepared
    if known is None or not opened.claim(into, new.size, new.claims):
        _take_back(attempt, into, opened)
        return None
    first_ns, last_ns = Calls(prepared=new).priced_ns
    assert first_ns is not None
    assert last_ns is not None
    verdicts = [Verdict.DUPLICATE if place in known else Verdict.CHARGED for place in range(prepared.size)]
    opened.append(into.transaction, new.sums, new.claims, (first_ns, last_ns), _counted(spans, verdicts))
    attempt.commit()
    return verdicts


def _take_back(attempt: NestedTransaction, into: Appending, opened: OpenTransactions) -> None:
    """Undo an attempt, with the ledger transaction that it began, if it did."""
    attempt.rollback()
    if into.is_new:
        opened.forget(into.transaction.tenant_id)


def _counted(spans: Mapping[str, int] | None, verdicts: Sequence[Verdict]) -> Mapping[str, int]:
    return {} if spans is None else Counter(spans) + Counter(map(str, verdicts))


def _insert_new(into: Appending, prepared: Prepared) -> frozenset[int] | None:
    """Insert the calls that the books do not have. Return the indexes of the others; None if a call needs more."""
    transaction, after_id, _ = into
    connection = transaction.connection
    names, same, rows = prepared.rows()
    if not has_one_writer(connection):
        places = prepared.columns_of(*ORDER_COLUMNS)
        rows = [row for _, row in sorted(zip(places, rows, strict=True))]
    related = any_trace_is_known(connection, transaction.tenant_id, prepared.column("trace_id"))
    columns = (*BATCH_COLUMNS, *names)
    batch = (transaction.tenant_id, transaction.id, transaction.at_ns)
    inserted = bulk_insert.insert_ignoring_conflicts(
        connection, usage_records.name, columns, rows, (*batch, *same), on=SPAN_KEY
    )
    if delete_retired(connection, transaction.id, after_id):
        return None
    if inserted and related and may_be_wrapped(connection, transaction.id, after_id):
        return None
    return frozenset() if inserted == prepared.size else _known(into, prepared)


def _known(into: Appending, prepared: Prepared) -> frozenset[int] | None:
    """Return the indexes of the calls that the books already had; all calls were inserted or known.

    None if a call has other facts in the books, or was removed in between.
    """
    transaction, after_id, _ = into
    keys = list(prepared.columns_of("trace_id", "span_id"))
    stored = known_facts(transaction.connection, transaction.tenant_id, keys)
    known = set()
    for place, (key, facts) in enumerate(zip(keys, prepared.columns_of(*FACT_COLUMNS), strict=True)):
        found = stored.get(key)
        if found is None:
            return None
        if found.transaction_id != transaction.id or found.record_id <= after_id:
            if found.facts != facts_of_row(facts):
                return None
            known.add(place)
    return frozenset(known)


def has_room(connection: Connection, tenant_id: int, sums: BatchSums) -> bool:
    """Return whether the tenant's sums stay within the range of a column, with every batch that is not folded yet."""
    if max(sums.cost_nanousd, sums.charge_nanocredits) > MAX_SUM_NANO // (4 * MOST_UNFOLDED):
        return False
    return max(spent_and_charged(connection, tenant_id)) <= MAX_SUM_NANO // 2


def spent_and_charged(connection: Connection, tenant_id: int) -> tuple[int, int]:
    """Return the folded cost in nano-USD and charge in nanocredits of a tenant's usage."""
    return (balance(connection, tenant_id, COGS_ACCOUNT), balance(connection, tenant_id, EARNED_ACCOUNT))
