"""Record priced calls, and post what they cost and charge in the same transaction.

Ordinary calls are appended (`appending`) and folded at once. The others are looked at one by one here: calls that the
books have with other facts, of which other spans show the same, or which are part of an action.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.journal.journal import (
    LedgerTransaction,
    begin,
)
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.action_pricing import charge_actions_once
from farebox_collector.ledger.usage.appending import (
    append_calls,
    has_room,
    insert_records,
    spent_and_charged,
)
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.batch_sums import BatchSums
from farebox_collector.ledger.usage.claims import claim_recorded, claimed
from farebox_collector.ledger.usage.columns import (
    BATCH_COLUMNS,
    CALL_COLUMNS,
    FACT_COLUMNS,
    call_columns,
    facts_of,
)
from farebox_collector.ledger.usage.corrections import (
    Cause,
    are_frozen,
    correct,
    cover,
    update_carried_charges,
)
from farebox_collector.ledger.usage.deduplication import (
    charge_each_response_once,
    charge_related_spans_once,
    cover_unpriced_twins,
    settle_claimed_elsewhere,
)
from farebox_collector.ledger.usage.entries import COVERED_REASON, Entry, SpanKey
from farebox_collector.ledger.usage.folding import USAGE, OpenTransactions, append_batch, fold
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.ledger.usage.span_index import complete
from farebox_collector.ledger.usage.stored_usage import (
    StoredCall,
    known_facts,
    query_of_ids,
    stored_calls,
)
from farebox_collector.ledger.usage.summed_calls import (
    SUMMED_UP,
    cover_wrappers,
)
from farebox_collector.ledger.usage.tombstones import delete_retired, retired_facts
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

_CONFLICT_COLUMNS = ("tenant_id", "trace_id", "span_id", "digest", "received_at_ns", "facts")


def record_usage(
    connection: Connection,
    tenant_id: int,
    calls: Sequence[PricedUsage],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls, post and count them. Returns a verdict for each, in order."""
    verdicts = record_calls(connection, tenant_id, Calls.of(calls), received_at_ns, labels)
    count_spans(connection, tenant_id, len(calls), Counter(verdicts))
    return verdicts


def record_calls(
    connection: Connection,
    tenant_id: int,
    calls: Calls,
    received_at_ns: int,
    labels: TotalLabels,
    opened: OpenTransactions | None = None,
) -> list[Verdict]:
    """Record one tenant's calls; the caller counts their spans. Returns a verdict for each, in order.

    They are posted at once, or with `opened`, where ordinary calls were refused, by the next fold.
    """
    if opened is None:
        appended = append_calls(connection, tenant_id, calls, received_at_ns, OpenTransactions(labels))
        fold(connection, labels, tenant_id)
        if appended is not None:
            complete(connection)
            return appended
    else:
        opened.make_room(connection, tenant_id)
    transaction = begin(connection, tenant_id, USAGE, received_at_ns, is_open=True)
    verdicts = _book_individually(_Batch(transaction, labels), calls)
    # Nobody remembers the traces of these records.
    complete(connection)
    if opened is None:
        fold(connection, labels, tenant_id)
    return verdicts


class _Batch(NamedTuple):
    """The ledger transaction in which calls are recorded."""

    transaction: LedgerTransaction
    labels: TotalLabels

    @property
    def connection(self) -> Connection:
        """The database transaction."""
        return self.transaction.connection

    @property
    def tenant_id(self) -> int:
        """Return the tenant of the calls."""
        return self.transaction.tenant_id

    @property
    def transaction_id(self) -> int:
        """Return the transaction id that the records get."""
        return self.transaction.id

    @property
    def received_at_ns(self) -> int:
        """Return when the calls arrived."""
        return self.transaction.at_ns

    @property
    def columns(self) -> tuple[int, int, int]:
        """Return the values of `BATCH_COLUMNS`."""
        return self.tenant_id, self.transaction_id, self.received_at_ns


def _book_individually(batch: _Batch, calls: Sequence[PricedUsage]) -> list[Verdict]:
    """Book calls that may be known, or of which another span in the batch or in the books shows the same."""
    connection, tenant_id = batch.connection, batch.tenant_id
    entries: dict[SpanKey, Entry] = {}
    for call in calls:
        entries.setdefault((call.usage.trace_id, call.usage.span_id), Entry(call))
    summed_up, unnamed = cover_wrappers(connection, tenant_id, entries)
    _give_back(batch, summed_up, SUMMED_UP)
    charge_each_response_once(entries.values())
    displaced = charge_related_spans_once(connection, tenant_id, entries, unnamed)
    _give_back(batch, displaced)
    cover_unpriced_twins(connection, tenant_id, entries.values())
    _leave_overflow_unpriced(batch, entries.values())
    _book(batch, entries)
    verdicts = [_verdict(call, entries[call.usage.trace_id, call.usage.span_id]) for call in calls]
    conflicts = [call for call, verdict in zip(calls, verdicts, strict=True) if verdict is Verdict.CONFLICT]
    _keep_conflicts(connection, tenant_id, conflicts, batch.received_at_ns)
    return verdicts


def _leave_overflow_unpriced(batch: _Batch, entries: Iterable[Entry]) -> None:
    """Leave calls unpriced that would take the tenant's sums out of the range of a column; charge the others."""
    if not has_room(batch.connection, batch.tenant_id, BatchSums((), 0, 0, [])):
        fold(batch.connection, batch.labels, batch.tenant_id)
    spent, charged = spent_and_charged(batch.connection, batch.tenant_id)
    charging = [entry for entry in entries if entry.verdict is Verdict.CHARGED]
    costs = [entry.call.cost_nanousd or 0 for entry in charging]
    most = [_most(entry.call) for entry in charging]
    if max(spent + sum(costs), charged + sum(most)) <= MAX_SUM_NANO:
        return
    for entry in charging:
        spent += entry.call.cost_nanousd or 0
        charged += _most(entry.call)
        if max(spent, charged) > MAX_SUM_NANO:
            spent -= entry.call.cost_nanousd or 0
            charged -= _most(entry.call)
            entry.leave_open("the amount is out of range")


def _most(call: PricedUsage) -> int:
    """Return the highest possible charge of a call, before its action is considered."""
    return max(call.charge_nanocredits or 0, call.action_floor_nanocredits or 0)


def _verdict(call: PricedUsage, entry: Entry) -> Verdict:
    """Return the verdict of one call, from what the books have of its span."""
    if call is entry.arrived and entry.booked is None:
        return entry.verdict
    booked = facts_of(entry.call) if entry.booked is None else entry.booked
    return Verdict.DUPLICATE if booked == facts_of(call) else Verdict.CONFLICT


def _book(batch: _Batch, entries: dict[SpanKey, Entry]) -> None:
    """Insert new calls and post them; set `booked` on the others."""
    connection, tenant_id, transaction_id = batch.connection, batch.tenant_id, batch.transaction_id
    pending = entries
    recorded: list[Entry] = []
    while pending:
        new = _insert(batch, pending)
        claiming = [
            (entry.call_key, (entry.call.usage.started_at_ns, entry.call.usage.latency_ns))
            for entry in new.values()
            if entry.call_key is not None
        ]
        claims = len(claimed(claiming))
        # Another span has claimed the call: insert these without the claim, or replace the claimant.
        conflicting = claim_recorded(connection, transaction_id, len(claiming), claims)
        kept_out = {key: new.pop(key) for key in conflicting}
        recorded += new.values()
        displaced = settle_claimed_elsewhere(connection, tenant_id, kept_out.values()) if kept_out else []
        _give_back(batch, displaced)
        pending = kept_out
    if not recorded:
        batch.transaction.abandon()
        return
    moved = charge_actions_once(connection, tenant_id, recorded, lambda: not are_frozen(connection))
    moments = [entry.call.priced_at_ns for entry in recorded]
    sums = BatchSums.of([entry.as_booked() for entry in recorded])
    append_batch(batch.transaction, 0, sums, (min(moments), max(moments)), {})
    if moved or not has_room(connection, tenant_id, sums):
        fold(connection, batch.labels, tenant_id)
    if moved:
        update_carried_charges(connection, tenant_id, moved, batch.received_at_ns, batch.labels)


def _insert(batch: _Batch, entries: Mapping[SpanKey, Entry]) -> dict[SpanKey, Entry]:
    """Insert new calls and return them; set `booked` on the others to what the books have of their span."""
    connection, tenant_id, transaction_id = batch.connection, batch.tenant_id, batch.transaction_id
    if has_one_writer(connection):
        # No unique key arbitrates, and none has to.
        known = known_facts(connection, tenant_id, list(entries))
        for key, (_, facts) in known.items():
            entries[key].booked = facts
        entries = {key: entry for key, entry in entries.items() if key not in known}
        if not entries:
            return {}
    ordered = _in_one_order(connection, entries)
    rows = list(
        zip(*call_columns([one.as_booked() for _, one in ordered], [one.call_key for _, one in ordered]), strict=True)
    )
    columns = (*BATCH_COLUMNS, *CALL_COLUMNS)
    inserted = insert_records(connection, columns, rows, batch.columns)
    # Only now: the insert has waited for a transaction that was retiring one of these spans.
    retired = delete_retired(connection, transaction_id)
    if inserted == len(rows) and not retired:
        return dict(ordered)
    stored = known_facts(connection, tenant_id, list(entries))
    # Rows that were present at the insert, and are missing now, were retired in between.
    retired |= retired_facts(connection, tenant_id, entries.keys() - stored.keys() - retired.keys())
    new = {}
    for key, entry in ordered:
        if key in retired:
            entry.booked = retired[key]
            continue
        made_by, facts = stored[key]
        if made_by == transaction_id:
            new[key] = entry
        else:
            entry.booked = facts
    return new


def _in_one_order(connection: Connection, entries: Mapping[SpanKey, Entry]) -> list[tuple[SpanKey, Entry]]:
    """Return the entries in the order of `ORDER_COLUMNS` if there are several writers."""
    if has_one_writer(connection):
        return list(entries.items())
    return sorted(entries.items(), key=lambda item: (item[1].call.usage.started_at_ns, item[0]))


def _keep_conflicts(
    connection: Connection, tenant_id: int, conflicts: Sequence[PricedUsage], received_at_ns: int
) -> None:
    """Keep spans with a known span's ids and other content, once per content."""
    rows = []
    for call in conflicts:
        facts = json.dumps(dict(zip(FACT_COLUMNS, facts_of(call), strict=True)))
        digest = blake2b(facts.encode(), digest_size=16).digest()
        rows.append((tenant_id, call.usage.trace_id, call.usage.span_id, digest, received_at_ns, facts))
    bulk_insert.insert_ignoring_conflicts(
        connection, "usage_conflicts", _CONFLICT_COLUMNS, rows, on=("tenant_id", "trace_id", "span_id", "digest")
    )


def _give_back(batch: _Batch, displaced: Sequence[StoredCall], reason: str = COVERED_REASON) -> None:
    """Reverse the charges of records whose calls other spans pay for now."""
    connection, tenant_id = batch.connection, batch.tenant_id
    pending = list(displaced)
    while pending:
        covering = [cover(stored, reason) for stored in pending]
        done = correct(connection, tenant_id, Cause.TWIN, covering, batch.received_at_ns, batch.labels)
        settled = {correction.stored.record_id for correction in done}
        # Another transaction corrected the rest at the same time: read again. The records are locked by now.
        left = [stored.record_id for stored in pending if stored.record_id not in settled]
        table = usage_records.c
        query = query_of_ids(tenant_id, left).where(table.verdict == Verdict.CHARGED)
        pending = list(stored_calls(connection, query)) if left else []
