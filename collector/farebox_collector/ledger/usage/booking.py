"""Record a batch of priced calls: the dedupe mark and the money in one transaction.

The database decides what is new: rows go in with ON CONFLICT DO NOTHING under the unique key (tenant, trace, span),
then claim their calls (`call_claims`) in the same way, and only those that did both are posted as charged. So it makes
no difference how often, where and in which company a span arrives.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.credits.hold_release import settle_holds
from farebox_collector.ledger.journal.journal import (
    COGS_ACCOUNT,
    EARNED_ACCOUNT,
    LedgerTransaction,
    balance,
    begin,
)
from farebox_collector.ledger.journal.legs import Charged, legs_of
from farebox_collector.ledger.journal.usage_rollups import WalletSums
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.action_pricing import charge_actions_once
from farebox_collector.ledger.usage.batch import Calls, Prepared
from farebox_collector.ledger.usage.batch_sums import CallSums, sums_of
from farebox_collector.ledger.usage.claims import claim_recorded, reached
from farebox_collector.ledger.usage.corrections import (
    Cause,
    are_frozen,
    carry_anew,
    correct,
    cover,
)
from farebox_collector.ledger.usage.deduplication import (
    charge_each_response_once,
    charge_related_spans_once,
    cover_the_unsettled,
    settle_kept_out,
)
from farebox_collector.ledger.usage.entries import (
    BATCH_COLUMNS,
    CALL_COLUMNS,
    COVERED_REASON,
    FACT_COLUMNS,
    Entry,
    SpanKey,
    call_columns,
    facts_of,
)
from farebox_collector.ledger.usage.running_totals import TotalLabels, count_new_calls
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.ledger.usage.stored_usage import (
    StoredCall,
    known_facts,
    stored_calls,
    usage_query,
)
from farebox_collector.ledger.usage.summed_calls import (
    SUMMED_UP,
    beside_a_wrapper,
    cover_wrappers,
    take_out,
)
from farebox_collector.ledger.usage.tombstones import retired_facts, take_out_retired
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.unusual import facts_in
from farebox_collector.model.verdicts import Verdict

_SPAN = ("tenant_id", "trace_id", "span_id")
_CONFLICT_COLUMNS = ("tenant_id", "trace_id", "span_id", "digest", "received_at_ns", "facts")
_PLACE_COLUMNS = ("started_at_ns", "trace_id", "span_id")
"""The order in which writers insert, so that two that bring the same spans wait for each other, but never crosswise."""
_ACTION_COLUMNS = ("wallet", "action_id", "charge_nanocredits")

ActionCharge = tuple[str, str, int]
"""Wallet, action id, nanocredits."""


def record_usage(
    connection: Connection,
    tenant_id: int,
    calls: Sequence[PricedUsage],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls, and count them. Returns a verdict for each, in order."""
    verdicts = record_calls(connection, tenant_id, Calls.of(calls), received_at_ns, labels)
    count_spans(connection, tenant_id, len(calls), Counter(verdicts))
    return verdicts


def record_calls(
    connection: Connection,
    tenant_id: int,
    calls: Calls,
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls; who calls this counts them. Returns a verdict for each, in order."""
    batch = _Batch(begin(connection, tenant_id, "usage", received_at_ns, calls_ns=calls.priced_ns), labels)
    verdicts = _book_prepared(batch, calls.prepared) if calls.prepared is not None else None
    return _look_at_each(batch, calls) if verdicts is None else verdicts


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
        """Whose calls they are."""
        return self.transaction.tenant_id

    @property
    def transaction_id(self) -> int:
        """What the records are marked with."""
        return self.transaction.id

    @property
    def received_at_ns(self) -> int:
        """When the calls arrived."""
        return self.transaction.at_ns

    @property
    def columns(self) -> tuple[int, int, int]:
        """The values of `BATCH_COLUMNS`."""
        return self.tenant_id, self.transaction_id, self.received_at_ns


def _book_prepared(batch: _Batch, prepared: Prepared) -> list[Verdict] | None:
    """Book calls as they are prepared, but for those that the books have already. Returns a verdict for each, in order.

    None if anything else has to be known of one of them: then nothing is posted, and some of the rows are there, which
    `_look_at_each` finds as if it had inserted them.
    """
    connection = batch.connection
    if not _has_room(batch, prepared.sums):
        return None
    names, same, rows = prepared.rows()
    if not has_one_writer(connection):
        places = prepared.columns_of(*_PLACE_COLUMNS)
        rows = [row for _, row in sorted(zip(places, rows, strict=True))]
    columns = (*BATCH_COLUMNS, *names)
    inserted = bulk_insert.insert_ignoring_conflicts(
        connection, usage_records.name, columns, rows, (*batch.columns, *same), on=_SPAN
    )
    if take_out_retired(connection, batch.transaction_id):
        return None
    if inserted and beside_a_wrapper(connection, batch.transaction_id):
        take_out(connection, batch.transaction_id)
        return None
    if inserted == prepared.size:
        return [Verdict.CHARGED] * inserted if _claim_and_post(batch, prepared) else None
    known = _known(batch, prepared)
    if known is None:
        return None
    if not inserted:
        batch.transaction.abandon()
    elif not _claim_and_post(batch, prepared.without(known)):
        return None
    return [Verdict.DUPLICATE if place in known else Verdict.CHARGED for place in range(prepared.size)]


def _claim_and_post(batch: _Batch, prepared: Prepared) -> bool:
    """Post calls that were just inserted; false, and nothing is posted, if anybody else has claimed one."""
    if claim_recorded(batch.connection, batch.transaction_id, prepared.size, prepared.claims):
        return False
    wallets = frozenset(prepared.column("wallet"))
    _post(batch, prepared.sums, wallets, lambda: prepared.columns_of(*_ACTION_COLUMNS))
    return True


def _known(batch: _Batch, prepared: Prepared) -> frozenset[int] | None:
    """The places of those of some calls, all of which were to be inserted, that the books had already.

    None if one of them has other facts there, or is gone since.
    """
    keys = list(prepared.columns_of("trace_id", "span_id"))
    stored = known_facts(batch.connection, batch.tenant_id, keys)
    known = set()
    for place, (key, facts) in enumerate(zip(keys, prepared.columns_of(*FACT_COLUMNS), strict=True)):
        made_by, booked = stored.get(key, (None, None))
        if made_by != batch.transaction_id:
            if booked != (*facts[:-1], facts_in(facts[-1])):
                return None
            known.add(place)
    return frozenset(known)


def _look_at_each(batch: _Batch, calls: Sequence[PricedUsage]) -> list[Verdict]:
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
    cover_the_unsettled(connection, tenant_id, entries.values())
    _leave_out_what_does_not_fit(batch, entries.values())
    _book(batch, entries)
    verdicts = [_verdict(call, entries[call.usage.trace_id, call.usage.span_id]) for call in calls]
    conflicts = [call for call, verdict in zip(calls, verdicts, strict=True) if verdict is Verdict.CONFLICT]
    _keep_conflicts(connection, tenant_id, conflicts, batch.received_at_ns)
    return verdicts


def _has_room(batch: _Batch, sums: CallSums) -> bool:
    """Whether the tenant's sums stay within what a column holds."""
    spent, charged = _spent_and_charged(batch)
    for figures in sums.groups.values():
        cost, charge = figures.money
        spent, charged = spent + cost, charged + charge
    return max(spent, charged) <= MAX_SUM_NANO


def _spent_and_charged(batch: _Batch) -> tuple[int, int]:
    return (
        balance(batch.connection, batch.tenant_id, COGS_ACCOUNT),
        balance(batch.connection, batch.tenant_id, EARNED_ACCOUNT),
    )


def _leave_out_what_does_not_fit(batch: _Batch, entries: Iterable[Entry]) -> None:
    """Calls that would take the tenant's sums past what a column holds stay unpriced; the others go on."""
    spent, charged = _spent_and_charged(batch)
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
    """The most that a call can come to once its action is looked at."""
    return max(call.charge_nanocredits or 0, call.action_floor_nanocredits or 0)


def _verdict(call: PricedUsage, entry: Entry) -> Verdict:
    """The verdict of one call, by what the books now say of its span."""
    if call is entry.arrived and entry.booked is None:
        return entry.verdict
    booked = facts_of(entry.call) if entry.booked is None else entry.booked
    return Verdict.DUPLICATE if booked == facts_of(call) else Verdict.CONFLICT


def _book(batch: _Batch, entries: dict[SpanKey, Entry]) -> None:
    """Insert what is new and post it; note on the others what the books have of their span."""
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
        claims = reached(claiming)
        # Of these another span has claimed the call: they go in without it, or take it over.
        others = claim_recorded(connection, transaction_id, len(claiming), claims)
        kept_out = {key: new.pop(key) for key in others}
        recorded += new.values()
        displaced = settle_kept_out(connection, tenant_id, kept_out.values()) if kept_out else []
        _give_back(batch, displaced)
        pending = kept_out
    if not recorded:
        batch.transaction.abandon()
        return
    moved = charge_actions_once(connection, tenant_id, recorded, lambda: not are_frozen(connection))
    wallets = frozenset([entry.call.usage.wallet for entry in recorded])
    sums = sums_of([entry.as_booked() for entry in recorded])
    _post(batch, sums, wallets, lambda: _charges_of_actions(recorded))
    if moved:
        carry_anew(connection, tenant_id, moved, batch.received_at_ns, batch.labels)


def _post(
    batch: _Batch, sums: CallSums, wallets: frozenset[str], of_actions: Callable[[], Iterable[ActionCharge]]
) -> None:
    """Post what was recorded, and count it. `of_actions` says what each call was charged, if somebody has to know."""
    connection, tenant_id, at_ns = batch.connection, batch.tenant_id, batch.received_at_ns
    legs = legs_of(_charges(sums.wallets))
    with_holds = batch.transaction.post(legs, active=wallets, spending=True)
    if with_holds:
        charges: Counter[tuple[str, str]] = Counter()
        for wallet, action_id, charge in of_actions():
            if action_id and wallet in with_holds:
                charges[wallet, action_id] += charge
        settle_holds(connection, tenant_id, charges, at_ns)
    count_new_calls(connection, tenant_id, sums, batch.labels)


def _insert(batch: _Batch, entries: Mapping[SpanKey, Entry]) -> dict[SpanKey, Entry]:
    """Insert what is new and return it; the others learn what the books have of their span."""
    connection, tenant_id, transaction_id = batch.connection, batch.tenant_id, batch.transaction_id
    ordered = _in_one_order(connection, entries)
    rows = list(
        zip(*call_columns([one.as_booked() for _, one in ordered], [one.call_key for _, one in ordered]), strict=True)
    )
    columns = (*BATCH_COLUMNS, *CALL_COLUMNS)
    inserted = bulk_insert.insert_ignoring_conflicts(
        connection, usage_records.name, columns, rows, batch.columns, on=_SPAN
    )
    # Only now: the insert has waited for whoever was retiring one of these spans.
    retired = take_out_retired(connection, transaction_id)
    if inserted == len(rows) and not retired:
        return dict(ordered)
    stored = known_facts(connection, tenant_id, list(entries))
    # What was there when this was inserted, and is not any more, was retired in between.
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
    """The entries as `_PLACE_COLUMNS` orders them, where several write."""
    if has_one_writer(connection):
        return list(entries.items())
    return sorted(entries.items(), key=lambda item: (item[1].call.usage.started_at_ns, item[0]))


def _charges(sums: WalletSums) -> Iterator[Charged]:
    """What the calls of each sum take and cost together."""
    for (_, wallet, event, provider, model, rule_id), (calls, _, _, _, cost, charge) in sums.items():
        yield wallet, event, rule_id, charge, provider, model, cost, calls


def _charges_of_actions(recorded: Iterable[Entry]) -> Iterator[ActionCharge]:
    """What each call was charged."""
    for entry in recorded:
        if entry.charged:
            yield entry.call.usage.wallet, entry.call.usage.action_id, entry.call.charge_nanocredits or 0


def _keep_conflicts(
    connection: Connection, tenant_id: int, conflicts: Sequence[PricedUsage], received_at_ns: int
) -> None:
    """Keep what arrived under a known span's ids with other content, once for each content."""
    rows = []
    for call in conflicts:
        facts = json.dumps(dict(zip(FACT_COLUMNS, facts_of(call), strict=True)))
        digest = blake2b(facts.encode(), digest_size=16).digest()
        rows.append((tenant_id, call.usage.trace_id, call.usage.span_id, digest, received_at_ns, facts))
    bulk_insert.insert_ignoring_conflicts(
        connection, "usage_conflicts", _CONFLICT_COLUMNS, rows, on=("tenant_id", "trace_id", "span_id", "digest")
    )


def _give_back(batch: _Batch, displaced: Sequence[StoredCall], reason: str = COVERED_REASON) -> None:
    """Let records go uncharged whose calls other spans pay for now."""
    connection, tenant_id = batch.connection, batch.tenant_id
    pending = list(displaced)
    while pending:
        covering = [cover(stored, reason) for stored in pending]
        done = correct(connection, tenant_id, Cause.TWIN, covering, batch.received_at_ns, batch.labels)
        settled = {correction.stored.record_id for correction in done}
        # Somebody else corrected the rest at the same moment: look again. They are held by now.
        left = [stored.record_id for stored in pending if stored.record_id not in settled]
        table = usage_records.c
        query = usage_query(tenant_id).where(table.id.in_(left), table.verdict == Verdict.CHARGED)
        pending = list(stored_calls(connection, query)) if left else []
