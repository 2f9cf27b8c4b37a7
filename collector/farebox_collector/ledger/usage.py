"""Record a batch of priced calls: the dedupe mark and the money in one transaction.

The database decides what is new: rows go in with ON CONFLICT DO NOTHING under two unique keys, (tenant, trace, span)
and (tenant, call), and only rows that went in are posted. So it makes no difference how often, where and in which
company a span arrives.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, delete, select, tuple_

from farebox_collector.ledger import bulk
from farebox_collector.ledger.journal import (
    COGS,
    EARNED,
    PROVIDER,
    Account,
    Leg,
    open_transaction,
    post,
    wallet_account,
)
from farebox_collector.ledger.tables import TOKEN_COLUMNS, transactions, usage_records
from farebox_collector.ledger.totals import TotalLabels, add_to_totals
from farebox_collector.money import Commodity
from farebox_collector.records import UNATTRIBUTED, Buckets, PricedUsage
from farebox_collector.verdicts import Verdict

_MONEY_COLUMNS = (
    "verdict",
    "reason",
    "cost_nanousd",
    "charge_nanocredits",
    "price_version_ids",
    "rule_version_id",
    "call_key",
)
_COLUMNS = (
    "tenant_id",
    "transaction_id",
    "received_at_ns",
    "trace_id",
    "span_id",
    "parent_span_id",
    "started_at_ns",
    "priced_at_ns",
    "latency_ns",
    "time_to_first_chunk_ns",
    "wallet",
    "event",
    "action_id",
    "operation",
    "reported_provider",
    "request_model",
    "response_model",
    "provider",
    "model",
    "response_id",
    "service_tier",
    "error_type",
    *TOKEN_COLUMNS,
    "dept",
    "project",
    "task",
    "route",
    "region",
    "dialect",
    "assumptions",
    *_MONEY_COLUMNS,
)
_FACT_COLUMNS = (
    "started_at_ns",
    "wallet",
    "event",
    "reported_provider",
    "request_model",
    "response_model",
    "response_id",
    "error_type",
    *TOKEN_COLUMNS,
)
"""What makes two arrivals of one span the same: everything that a bill could depend on."""
_CONFLICT_COLUMNS = ("tenant_id", "trace_id", "span_id", "digest", "received_at_ns", "facts")
_NO_BUCKETS = (None,) * len(TOKEN_COLUMNS)
_MIN_TIME_NS, _MAX_TIME_NS = 0, 2**63 - 1
_COVERED_REASON = "another span of the same call was charged"

SpanKey = tuple[bytes, bytes]


class Entry:
    """One span of a batch on its way into the books."""

    __slots__ = ("call", "call_key", "guessed", "reason", "verdict")

    def __init__(self, call: PricedUsage) -> None:
        self.call = call
        self.verdict = call.verdict
        self.reason = call.reason
        self.guessed = call.assumptions
        # Only a charged record holds the key: what has no price yet must not keep its twin from being charged.
        self.call_key = call_key(call.usage.response_id) if call.verdict is Verdict.CHARGED else None

    def cover(self) -> None:
        """Let another span of the same call pay."""
        self.verdict, self.reason, self.call_key = Verdict.COVERED, _COVERED_REASON, None

    def charge_apart(self) -> None:
        """Charge although the response id was seen before: the other call was at another time."""
        self.call_key = None
        self.guessed += ("response_id_reused",)

    @property
    def charged(self) -> bool:
        """Whether this entry moves money."""
        return self.verdict is Verdict.CHARGED


def call_key(response_id: str) -> bytes | None:
    """The digest that two spans of one call share; None for a call without a response id.

    The provider's name is left out on purpose: two instrumentations of one Azure call name it differently, and
    response ids are unique without it. `_same_call` looks at the times as well.
    """
    return blake2b(response_id.encode(), digest_size=16).digest() if response_id else None


def record_usage(
    connection: Connection,
    tenant_id: int,
    calls: Sequence[PricedUsage],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[Verdict]:
    """Record one tenant's calls. Returns a verdict for each, in order."""
    entries: dict[SpanKey, Entry] = {}
    verdicts: list[Verdict | Entry] = []
    conflicts: list[PricedUsage] = []
    for call in calls:
        key = (call.usage.trace_id, call.usage.span_id)
        first = entries.get(key)
        if first is None:
            first = entries[key] = Entry(call)
            verdicts.append(first)
        elif _facts(first.call) == _facts(call):
            verdicts.append(Verdict.DUPLICATE)
        else:
            verdicts.append(Verdict.CONFLICT)
            conflicts.append(call)
    _charge_each_call_once(entries.values())
    conflicts += _book(connection, tenant_id, entries, received_at_ns, labels)
    _keep_conflicts(connection, tenant_id, conflicts, received_at_ns)
    return [item.verdict if isinstance(item, Entry) else item for item in verdicts]


def _charge_each_call_once(entries: Iterable[Entry]) -> None:
    """Among the spans of one call in this batch let one pay, the one that knows most: the wallet, then the cache."""
    by_response: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.call.usage.response_id:
            by_response[entry.call.usage.response_id].append(entry)
    for group in by_response.values():
        if len(group) == 1 or not any(entry.charged for entry in group):
            continue
        payer = max(group, key=_knowledge)
        for entry in group:
            if entry is payer:
                continue
            if _same_call(entry.call, payer.call.usage.started_at_ns, payer.call.usage.latency_ns):
                entry.cover()
            elif entry.charged:
                entry.charge_apart()


def _knowledge(entry: Entry) -> tuple[bool, bool, bool]:
    return (
        entry.charged,
        entry.call.usage.wallet != UNATTRIBUTED,
        "cache_write_lifetime_unknown" not in entry.call.assumptions,
    )


def _same_call(call: PricedUsage, other_start_ns: int, other_latency_ns: int) -> bool:
    """Two spans of one call overlap in time; servers that hand out one id again and again are told apart by that."""
    start = call.usage.started_at_ns
    return start <= other_start_ns + other_latency_ns and other_start_ns <= start + call.usage.latency_ns


def _book(
    connection: Connection,
    tenant_id: int,
    entries: dict[SpanKey, Entry],
    received_at_ns: int,
    labels: TotalLabels,
) -> list[PricedUsage]:
    """Insert what is new and post it; set the verdicts of the rest. Returns the conflicts."""
    transaction_id = open_transaction(connection, tenant_id, "usage", received_at_ns)
    _cover_the_unsettled(connection, tenant_id, entries.values())
    pending = entries
    recorded: list[Entry] = []
    conflicts: list[PricedUsage] = []
    while pending:
        rows = [_row(tenant_id, transaction_id, received_at_ns, entry) for entry in pending.values()]
        inserted = bulk.insert_ignoring_conflicts(connection, "usage_records", _COLUMNS, rows)
        if inserted == len(rows):
            recorded += pending.values()
            break
        stored = _stored(connection, tenant_id, pending)
        kept_out: dict[SpanKey, Entry] = {}
        for key, entry in pending.items():
            if key not in stored:
                kept_out[key] = entry
            elif stored[key][0] == transaction_id:
                recorded.append(entry)
            elif stored[key][1] == _facts(entry.call):
                entry.verdict = Verdict.DUPLICATE
            else:
                entry.verdict = Verdict.CONFLICT
                conflicts.append(entry.call)
        # No such span yet, so it was the call's key that kept these out: they go in without it.
        _resolve_charged_calls(connection, tenant_id, kept_out.values())
        pending = kept_out
    if recorded:
        wallets = frozenset(entry.call.usage.wallet for entry in recorded)
        post(
            connection,
            tenant_id,
            transaction_id,
            received_at_ns,
            _legs(recorded),
            active=wallets,
            spending=True,
        )
        add_to_totals(connection, tenant_id, [(entry.call, entry.verdict) for entry in recorded], labels)
    else:
        # Nothing was new; this id was never seen outside this database transaction.
        connection.execute(delete(transactions).where(transactions.c.id == transaction_id))
    return conflicts


def _cover_the_unsettled(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    """Spans that nobody can price, of calls that another span has paid for, are covered rather than open."""
    waiting = [
        entry
        for entry in entries
        if entry.verdict in (Verdict.UNPRICED, Verdict.UNMETERED) and entry.call.usage.response_id
    ]
    charged = _charged_calls(connection, tenant_id, waiting)
    for entry in waiting:
        other = charged.get(call_key(entry.call.usage.response_id) or b"")
        if other is not None and _same_call(entry.call, *other):
            entry.cover()


def _resolve_charged_calls(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    charged = _charged_calls(connection, tenant_id, entries)
    for entry in entries:
        other = charged.get(entry.call_key or b"")
        if other is not None and _same_call(entry.call, *other):
            entry.cover()
        else:
            entry.charge_apart()


def _charged_calls(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> dict[bytes, tuple[int, int]]:
    """call key → (start, latency) of the record that was charged for it."""
    keys = [key for entry in entries if (key := call_key(entry.call.usage.response_id))]
    if not keys:
        return {}
    table = usage_records.c
    found = connection.execute(
        select(table.call_key, table.started_at_ns, table.latency_ns).where(
            table.tenant_id == tenant_id, table.call_key.in_(keys)
        )
    )
    return {key: (start, latency) for key, start, latency in found}


def _stored(
    connection: Connection, tenant_id: int, keys: Iterable[SpanKey]
) -> dict[SpanKey, tuple[int, tuple[Any, ...]]]:
    """(trace, span) → (transaction, facts) of the records that are in the books."""
    table = usage_records.c
    found = connection.execute(
        select(
            table.trace_id,
            table.span_id,
            table.transaction_id,
            *(usage_records.c[name] for name in _FACT_COLUMNS),
        ).where(table.tenant_id == tenant_id, tuple_(table.trace_id, table.span_id).in_(list(keys)))
    )
    return {(row[0], row[1]): (row[2], tuple(row[3:])) for row in found}


def _keep_conflicts(
    connection: Connection, tenant_id: int, conflicts: Sequence[PricedUsage], received_at_ns: int
) -> None:
    """Keep what arrived under a known span's ids with other content, once for each content."""
    rows = []
    for call in conflicts:
        facts = json.dumps(dict(zip(_FACT_COLUMNS, _facts(call), strict=True)))
        digest = blake2b(facts.encode(), digest_size=16).digest()
        rows.append((tenant_id, call.usage.trace_id, call.usage.span_id, digest, received_at_ns, facts))
    bulk.insert_ignoring_conflicts(connection, "usage_conflicts", _CONFLICT_COLUMNS, rows)


def _legs(entries: Sequence[Entry]) -> list[Leg]:
    """One CREDIT leg a (wallet, event, rule) and one USD leg a (provider, model), with their counterparts."""
    charges: defaultdict[tuple[str, str, int | None], list[int]] = defaultdict(lambda: [0, 0])
    costs: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry in entries:
        if not entry.charged:
            continue
        call = entry.call
        charge = charges[call.usage.wallet, call.usage.event, call.rule_version_id]
        charge[0] += call.charge_nanocredits or 0
        charge[1] += 1
        cost = costs[f"{call.provider}/{call.model}"]
        cost[0] += call.cost_nanousd or 0
        cost[1] += 1
    if not charges:
        return []
    legs = [
        Leg(wallet_account(wallet), -amount, event, rule_id, records)
        for (wallet, event, rule_id), (amount, records) in charges.items()
    ]
    legs.append(Leg(Account(EARNED, "", Commodity.CREDIT), sum(amount for amount, _ in charges.values())))
    legs += [
        Leg(Account(PROVIDER, name, Commodity.USD), -amount, records=records)
        for name, (amount, records) in costs.items()
    ]
    legs.append(Leg(Account(COGS, "", Commodity.USD), sum(amount for amount, _ in costs.values())))
    return legs


def _row(tenant_id: int, transaction_id: int, received_at_ns: int, entry: Entry) -> tuple[Any, ...]:
    """The values of `_COLUMNS` for one entry."""
    call = entry.call
    usage = call.usage
    money: tuple[Any, ...] = (None, None, "", None)
    if entry.charged:
        money = (call.cost_nanousd, call.charge_nanocredits, call.price_version_ids, call.rule_version_id)
    return (
        tenant_id,
        transaction_id,
        received_at_ns,
        usage.trace_id,
        usage.span_id,
        usage.parent_span_id,
        _storable_time(usage.started_at_ns),
        call.priced_at_ns,
        _storable_time(usage.latency_ns),
        usage.time_to_first_chunk_ns,
        usage.wallet,
        usage.event,
        usage.action_id,
        usage.operation,
        usage.provider,
        usage.request_model,
        usage.response_model,
        call.provider,
        call.model,
        usage.response_id,
        usage.service_tier,
        usage.error_type,
        *(usage.buckets or _NO_BUCKETS),
        usage.dept,
        usage.project,
        usage.task,
        usage.route,
        usage.region,
        usage.dialect,
        ",".join(entry.guessed),
        entry.verdict,
        entry.reason,
        *money,
        entry.call_key,
    )


def _facts(call: PricedUsage) -> tuple[Any, ...]:
    """The values of `_FACT_COLUMNS` for one call, as they come back from the database."""
    usage = call.usage
    return (
        _storable_time(usage.started_at_ns),
        usage.wallet,
        usage.event,
        usage.provider,
        usage.request_model,
        usage.response_model,
        usage.response_id,
        usage.error_type,
        *(usage.buckets or _NO_BUCKETS),
    )


def _storable_time(nanoseconds: int) -> int:
    """A reported time as a column can hold it; nonsense is cut to the nearest that fits (and flagged by pricing)."""
    return min(max(nanoseconds, _MIN_TIME_NS), _MAX_TIME_NS)


assert len(TOKEN_COLUMNS) == len(Buckets._fields)
