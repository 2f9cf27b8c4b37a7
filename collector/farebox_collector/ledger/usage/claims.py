"""Claims: which record was charged for a call, so that no other span of the same call is charged too.

A call is identified by the key of its response id (`response_ids.call_key`). Most ids are random, and an index over all
of them would be written at random places, slower with every record. So claims are stored by time slots of 69 seconds: a
record claims its call in every slot that it overlaps. Two spans that overlap in time share a slot, and the primary key
accepts one of them. Spans that do not overlap are two calls of a server that repeats its ids.

Permanently unique ids are claimed independently of time: in one slot for all if the key is ordered in time; in slots of
ten hours, with a look back, if it is random.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, select, text, update

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.key_lookup import Lookup
from farebox_collector.ledger.tables.books import call_claims, usage_records
from farebox_collector.ledger.usage.response_ids import FOREVER_BYTES, OVERLAP_BYTES, WINDOW_BYTES

SLOT_BITS = 36
"""A slot is 2**36 ns."""
MAX_SLOTS = 64
"""Most slots that a record claims: a span that starts more than 73 minutes into another is not its twin."""

FOREVER_SLOT = -1
"""The slot of permanently unique ids that are ordered in time."""
WINDOW_BITS, BACK_NS = 45, 2**43
"""Permanently unique random ids are claimed in slots of 2**45 ns, and in the slot of 2**43 ns before: two spans
that start within that time of each other share a slot."""

_FRACTION = 2**SLOT_BITS - 1
FIRST_SLOT = (
    f"(CASE length(r.call_key) WHEN {FOREVER_BYTES} THEN {FOREVER_SLOT}"
    f" WHEN {WINDOW_BYTES} THEN r.started_at_ns >> {WINDOW_BITS} ELSE r.started_at_ns >> {SLOT_BITS} END)"
)
_FIRST = FIRST_SLOT
_BEFORE = f"((r.started_at_ns - {BACK_NS}) >> {WINDOW_BITS})"
# Avoids the sum of start and latency, which may be out of range for senders of invalid values.
_CARRY = f"(((r.started_at_ns & {_FRACTION}) + (r.latency_ns & {_FRACTION})) >> {SLOT_BITS})"
_FURTHER = f"((r.latency_ns >> {SLOT_BITS}) + {_CARRY})"
_STEPS = f"WITH RECURSIVE steps (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM steps WHERE n < {MAX_SLOTS - 1})"
_COLUMNS = ("tenant_id", "slot", "call_key", "usage_record_id")
_CLAIM_FIRST = text(
    f"INSERT INTO call_claims ({', '.join(_COLUMNS)}) SELECT r.tenant_id, {_FIRST}, r.call_key, r.id"
    " FROM usage_records r WHERE r.transaction_id = :made AND r.id > :after AND r.call_key IS NOT NULL"
    f" ORDER BY {_FIRST}, r.call_key ON CONFLICT DO NOTHING"
)
_CLAIM_FURTHER = text(
    f"INSERT INTO call_claims ({', '.join(_COLUMNS)}) {_STEPS}"
    f" SELECT r.tenant_id, {_FIRST} + n, r.call_key, r.id FROM usage_records r CROSS JOIN steps"
    f" WHERE n <= {_FURTHER} AND r.transaction_id = :made AND r.id > :after AND length(r.call_key) = {OVERLAP_BYTES}"
    # Most calls end in the slot in which they start: SQLite, which reads the tables in this order, skips the steps.
    f" AND {_FURTHER} > 0 ORDER BY 2, 3 ON CONFLICT DO NOTHING"
)
_CLAIM_BEFORE = text(
    f"INSERT INTO call_claims ({', '.join(_COLUMNS)}) SELECT r.tenant_id, {_BEFORE}, r.call_key, r.id"
    f" FROM usage_records r WHERE r.transaction_id = :made AND r.id > :after AND length(r.call_key) = {WINDOW_BYTES}"
    f" AND {_BEFORE} <> r.started_at_ns >> {WINDOW_BITS} ORDER BY {_BEFORE}, r.call_key ON CONFLICT DO NOTHING"
)
_CLAIMING = select(
    *(usage_records.c[name] for name in ("id", "tenant_id", "trace_id", "span_id")),
    *(usage_records.c[name] for name in ("call_key", "started_at_ns", "latency_ns")),
).where(
    usage_records.c.transaction_id == bindparam("made"),
    usage_records.c.id > bindparam("after"),
    usage_records.c.call_key.is_not(None),
)
_HELD = Lookup(
    call_claims.name,
    {"slot": "bigint", "call_key": "bytea"},
    "tenant_id",
    ("usage_record_id", "started_at_ns", "latency_ns"),
)
_ONE = and_(
    call_claims.c.tenant_id == bindparam("tenant"),
    call_claims.c.slot == bindparam("of_slot"),
    call_claims.c.call_key == bindparam("key"),
    call_claims.c.usage_record_id == bindparam("record"),
)
_RELEASE = delete(call_claims).where(_ONE)
_KEEP_TIMES = update(call_claims).where(_ONE).values(started_at_ns=bindparam("start"), latency_ns=bindparam("latency"))


class Claim(NamedTuple):
    """A record that claims a call, or is about to."""

    record_id: int
    call_key: bytes
    started_at_ns: int
    latency_ns: int


class Held(NamedTuple):
    """A claim as the books have it."""

    record_id: int
    call_key: bytes
    started_at_ns: int | None
    latency_ns: int | None
    """The time of the call if the record is retired; until then the record has it."""


def slots(call_key: bytes, started_at_ns: int, latency_ns: int) -> range:
    """Return the slots in which a span claims its call: those that it overlaps, unless the key is valid for longer."""
    if len(call_key) == FOREVER_BYTES:
        return range(FOREVER_SLOT, FOREVER_SLOT + 1)
    if len(call_key) == WINDOW_BYTES:
        return range((started_at_ns - BACK_NS) >> WINDOW_BITS, (started_at_ns >> WINDOW_BITS) + 1)
    first = started_at_ns >> SLOT_BITS
    return range(first, min((started_at_ns + latency_ns) >> SLOT_BITS, first + MAX_SLOTS - 1) + 1)


def claimed(calls: Iterable[tuple[bytes | None, tuple[int, int]]]) -> list[tuple[int, bytes]]:
    """Return the (slot, key) pairs that calls claim: their keys, each with start and latency."""
    found = []
    for key, (start, latency) in calls:
        if key is None:
            continue
        first = start >> SLOT_BITS
        # The most common case first: this runs for every call.
        if len(key) == OVERLAP_BYTES and (start + latency) >> SLOT_BITS == first:
            found.append((first, key))
        else:
            found += [(slot, key) for slot in slots(key, start, latency)]
    return found


def claim_late(connection: Connection, transaction_id: int, after_id: int) -> None:
    """Claim the calls of a transaction's records after a record. No other has claimed them: `appending` saw to that."""
    for claims in (_CLAIM_FIRST, _CLAIM_FURTHER, _CLAIM_BEFORE):
        connection.execute(claims, {"made": transaction_id, "after": after_id})


def any_claimed(connection: Connection, tenant_id: int, pairs: Sequence[tuple[int, bytes]]) -> bool:
    """Return whether a record has one of these claims."""
    return _HELD.any(connection, tenant_id, pairs)


def holders(connection: Connection, tenant_id: int, pairs: Sequence[tuple[int, bytes]]) -> dict[int, int] | None:
    """Return the record that has each of these claims, by the index of the claim; None if one of them is retired."""
    found = {}
    for place, record_id, *times in _HELD.rows(connection, tenant_id, pairs):
        if times != [None, None]:
            return None
        found[place] = record_id
    return found


def claim_recorded(
    connection: Connection, transaction_id: int, records: int, claims: int, after_id: int = 0
) -> list[tuple[bytes, bytes]]:
    """Claim the calls of a transaction's records after a record that have a call key and no claim yet.

    `records` is their number, `claims` the number of slots that they overlap in total. Returns trace and span ids of
    those whose call another record has claimed: their rows are deleted again, for the caller to settle.
    """
    if not records:
        return []
    made = {"made": transaction_id, "after": after_id}
    claimed = connection.execute(_CLAIM_FIRST, made).rowcount
    if claims > records:
        for further in (_CLAIM_FURTHER, _CLAIM_BEFORE):
            claimed += connection.execute(further, made).rowcount
    if claimed == claims:
        return []
    claiming = connection.execute(_CLAIMING, made).all()
    tenant_id = claiming[0].tenant_id
    wanted = [Claim(row.id, bytes(row.call_key), row.started_at_ns, row.latency_ns) for row in claiming]
    conflicting = _claimed_elsewhere(connection, tenant_id, wanted)
    if conflicting:
        release(connection, tenant_id, [one for one in wanted if one.record_id in conflicting])
        connection.execute(delete(usage_records).where(usage_records.c.id.in_(sorted(conflicting))))
    return [(bytes(row.trace_id), bytes(row.span_id)) for row in claiming if row.id in conflicting]


def claim(connection: Connection, tenant_id: int, claims: Iterable[Claim]) -> None:
    """Claim calls for records in the books. Raises IntegrityError if another record has claimed one."""
    claim_slots(
        connection,
        tenant_id,
        (
            (slot, one.call_key, one.record_id)
            for one in claims
            for slot in slots(one.call_key, one.started_at_ns, one.latency_ns)
        ),
    )


def claim_slots(connection: Connection, tenant_id: int, claims: Iterable[tuple[int, bytes, int]]) -> None:
    """Claim slots and keys for records, each given by its id. Raises IntegrityError if another one has a claim.

    They are inserted in order: two writers with the same calls wait for each other, and cannot deadlock.
    """
    bulk_insert.insert(connection, call_claims.name, _COLUMNS, sorted(claims), same=(tenant_id,))


def release(connection: Connection, tenant_id: int, claims: Iterable[Claim]) -> None:
    """Release the calls that records have claimed."""
    rows = [
        {"tenant": tenant_id, "of_slot": slot, "key": one.call_key, "record": one.record_id}
        for one in claims
        for slot in slots(one.call_key, one.started_at_ns, one.latency_ns)
    ]
    if rows:
        connection.execute(_RELEASE, rows)


def held(connection: Connection, tenant_id: int, calls: Iterable[tuple[bytes, int, int]]) -> set[Held]:
    """Return the claims on any of these calls (key, start, latency) in a slot that they overlap."""
    keys = sorted({(slot, key) for key, start, latency in calls for slot in slots(key, start, latency)})
    found = _HELD.rows(connection, tenant_id, keys)
    return {Held(record_id, keys[place][1], *times) for place, record_id, *times in found}


def keep_times(connection: Connection, tenant_id: int, claims: Iterable[Claim]) -> None:
    """Store the times of calls in the claims of records that are being retired; no other row keeps them."""
    rows = [
        {"tenant": tenant_id, "of_slot": slot, "key": one.call_key, "record": one.record_id}
        | {"start": one.started_at_ns, "latency": one.latency_ns}
        for one in sorted(claims, key=lambda one: (one.started_at_ns, one.call_key))
        for slot in slots(one.call_key, one.started_at_ns, one.latency_ns)
    ]
    if rows:
        connection.execute(_KEEP_TIMES, rows)


def _claimed_elsewhere(connection: Connection, tenant_id: int, wanted: Iterable[Claim]) -> set[int]:
    """Return the records whose call another record has claimed, in any slot that they overlap."""
    keys = [
        (slot, one.call_key, one.record_id)
        for one in wanted
        for slot in slots(one.call_key, one.started_at_ns, one.latency_ns)
    ]
    found = _HELD.rows(connection, tenant_id, [(slot, key) for slot, key, _ in keys])
    return {keys[place][2] for place, holder, *_ in found if holder != keys[place][2]}
