"""Corrections: a new outcome for a usage record in the books, with postings for the difference only.

A record holds the result of its newest correction; the corrections keep the earlier values, each with its cause and its
ledger transaction. Posted transactions are never changed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from farebox_collector.ledger.credits.hold_release import locked_wallets, settle_holds
from farebox_collector.ledger.journal.journal import (
    COGS_ACCOUNT,
    EARNED_ACCOUNT,
    balance,
    begin,
)
from farebox_collector.ledger.journal.legs import Charge, legs_of
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.corrections import audits, corrections
from farebox_collector.ledger.usage.action_pricing import (
    ActionKey,
    FirstCall,
    Move,
    SettleActions,
    action_of,
    charges_of_actions,
    preview_actions,
    settle_actions,
)
from farebox_collector.ledger.usage.claims import Claim, claim, release
from farebox_collector.ledger.usage.correction_totals import count_corrections
from farebox_collector.ledger.usage.entries import COVERED_REASON, Entry
from farebox_collector.ledger.usage.folding import fold
from farebox_collector.ledger.usage.running_totals import TotalLabels, add_to_totals
from farebox_collector.ledger.usage.stored_usage import StoredCall, query_of_ids, stored_calls
from farebox_collector.model.money import MAX_SUM_NANO, AmountError
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.unusual import stored_unusual, unusual_facts
from farebox_collector.model.verdicts import Verdict

CORRECTION = "correction"
"""The kind of the ledger transactions that corrections post."""


class Cause(StrEnum):
    """Why a record was corrected."""

    REPLAY = "replay"
    """An operator replayed history with current prices."""
    LATE_PRICE = "late_price"
    """A price or rule was added that the call had been waiting for."""
    TWIN = "twin"
    """Another span of the same call knew more, or had already paid."""
    AGENT = "agent"
    """The calls of an agent arrived, or did not."""
    ACTION = "action"
    """A call of the same action arrived later but started earlier, so that its rule sets the floor of the action."""


class Correction(NamedTuple):
    """A record and its new values."""

    stored: StoredCall
    after: Entry


class CorrectionsFrozen(Exception):
    """The audit found mismatches: corrections stop until a full audit is clean."""

    def __init__(self) -> None:
        super().__init__("the last audit found mismatches: no corrections until a full audit is clean")


def are_frozen(connection: Connection) -> bool:
    """Return whether an audit found a mismatch since the last clean full audit."""
    clean = select(func.coalesce(func.max(audits.c.id), 0)).where(audits.c.scope == "full", audits.c.mismatches == 0)
    found = select(audits.c.id).where(audits.c.mismatches > 0, audits.c.id > clean.scalar_subquery()).limit(1)
    return connection.execute(found).first() is not None


def correct(
    connection: Connection,
    tenant_id: int,
    cause: Cause,
    wanted: Iterable[Correction],
    at_ns: int,
    labels: TotalLabels,
) -> list[Correction]:
    """Correct records of one tenant in one ledger transaction; return the corrections made.

    Skips a correction that would change nothing, and a record that another transaction corrected in the meantime.
    Raises CorrectionsFrozen, and AmountError if the tenant's sums would exceed the range of the books.
    """
    pending = _unchanged_since(connection, _changing(wanted))
    if not pending:
        return []
    if are_frozen(connection):
        raise CorrectionsFrozen
    # A charge is posted before it is given back. The records are locked: another replica's may have come just now.
    fold(connection, labels, tenant_id)
    pending = _with_actions(connection, tenant_id, pending, settle_actions)
    _book(connection, tenant_id, cause, pending, at_ns, labels)
    return pending


def update_carried_charges(
    connection: Connection, tenant_id: int, keys: Sequence[ActionKey], at_ns: int, labels: TotalLabels
) -> None:
    """Update what the recorded calls of actions carry after their floor has changed."""
    charges = charges_of_actions(connection, tenant_id, keys)
    if charges:
        pending = _carrying(connection, tenant_id, charges, held=True)
        _book(connection, tenant_id, Cause.ACTION, pending, at_ns, labels)


def _book(
    connection: Connection,
    tenant_id: int,
    cause: Cause,
    pending: Sequence[Correction],
    at_ns: int,
    labels: TotalLabels,
) -> None:
    """Post corrections of locked records, and store them."""
    charges = [charge for correction in pending for charge in _difference(correction)]
    legs = legs_of(charges)
    transaction_id = None
    if legs:
        _require_room(connection, tenant_id, charges)
        moments = [correction.stored.call.priced_at_ns for correction in pending]
        transaction = begin(connection, tenant_id, CORRECTION, at_ns, cause, (min(moments), max(moments)))
        transaction.post(legs, spending=True)
        transaction_id = transaction.id
    _settle_holds(connection, tenant_id, pending, at_ns)
    _write(connection, tenant_id, cause, pending, transaction_id, at_ns)
    taken_back = [c.stored.call for c in pending]
    booked = [_call_after(c) for c in pending]
    add_to_totals(connection, tenant_id, taken_back, labels, reversed=True)
    add_to_totals(connection, tenant_id, booked, labels, reversed=False)
    changes = list(map(_change, taken_back, booked))
    count_corrections(connection, tenant_id, cause, changes)


def preview_corrections(connection: Connection, tenant_id: int, wanted: Iterable[Correction]) -> list[Correction]:
    """Return the corrections that `correct` would make without concurrent corrections. Writes nothing."""
    return _with_actions(connection, tenant_id, _changing(wanted), preview_actions)


def _changing(wanted: Iterable[Correction]) -> list[Correction]:
    """Return the corrections that change their record."""
    at_their_share = [_at_its_share(correction) for correction in wanted]
    return [one for one in at_their_share if _outcome(one.after) != outcome_of(one.stored.call)]


def _at_its_share(correction: Correction) -> Correction:
    """Keep the charge of a call whose share of its action is unchanged."""
    stored, after = correction
    if (
        after.charged
        and stored.action_share_nanocredits is not None
        and _share(after) == stored.action_share_nanocredits
    ):
        after.call = after.call._replace(charge_nanocredits=stored.call.charge_nanocredits)
    return correction


def _share(after: Entry) -> int | None:
    """Return what a call adds to its action's shares; None if it is charged by itself."""
    if not after.charged or after.arrived.action_floor_nanocredits is None:
        return None
    return after.arrived.charge_nanocredits


def _with_actions(
    connection: Connection, tenant_id: int, pending: list[Correction], settle: SettleActions
) -> list[Correction]:
    """Return the corrections and their effects on actions: other calls of an action may have to carry its floor."""
    moves = [
        Move(
            c.stored.record_id,
            action_of(c.stored.call),
            c.stored.action_share_nanocredits if c.stored.call.verdict is Verdict.CHARGED else None,
            _share(c.after),
            c.after.arrived.action_floor_nanocredits or 0,
            FirstCall.of(c.stored.call),
        )
        for c in pending
    ]
    charges = settle(connection, tenant_id, moves)
    for correction in pending:
        if correction.stored.record_id in charges:
            charge = charges.pop(correction.stored.record_id)
            correction.after.call = correction.after.call._replace(charge_nanocredits=charge)
    if charges:
        pending += _carrying(connection, tenant_id, charges, held=settle is settle_actions)
    return pending


def _carrying(connection: Connection, tenant_id: int, charges: Mapping[int, int], *, held: bool) -> list[Correction]:
    """Correct records that only carry another part of their action's charge, by their id; lock them if `held`."""
    query = query_of_ids(tenant_id, charges)
    if held:
        query = query.with_for_update()
    found = []
    for stored in stored_calls(connection, query):
        # Its share is unchanged; only what it carries of the action changes.
        arrived = stored.call._replace(charge_nanocredits=stored.action_share_nanocredits, action_floor_nanocredits=0)
        entry = Entry(arrived)
        entry.call = stored.call._replace(charge_nanocredits=charges[stored.record_id])
        entry.call_key = stored.call_key
        found.append(Correction(stored, entry))
    return found


def cover(stored: StoredCall, reason: str = COVERED_REASON) -> Correction:
    """Make a record uncharged because another span represents its call."""
    entry = Entry(stored.call)
    entry.cover(reason)
    return Correction(stored, entry)


def outcome_of(call: PricedUsage) -> tuple[Any, ...]:
    """Return the values that a correction may change and that a user can see."""
    if call.verdict is not Verdict.CHARGED:
        return (call.verdict, call.reason)
    named = call.provider, call.model, call.particulars
    return (call.verdict, call.cost_nanousd, call.charge_nanocredits, *named)


def _outcome(after: Entry) -> tuple[Any, ...]:
    return outcome_of(after.call._replace(verdict=after.verdict, reason=after.reason))


def _call_after(correction: Correction) -> PricedUsage:
    """Return the call as the books have it after a correction; an uncharged call keeps its names."""
    call, before = correction.after.as_booked(), correction.stored.call
    return call if correction.after.charged else call._replace(provider=before.provider, model=before.model)


def _difference(correction: Correction) -> list[Charge]:
    """Return the old charge, reversed, and the new one."""
    charges = []
    if correction.stored.call.verdict is Verdict.CHARGED:
        charges.append(charge_of(correction.stored.call).reversed())
    if correction.after.charged:
        charges.append(charge_of(correction.after.call))
    return charges


def _settle_holds(connection: Connection, tenant_id: int, pending: Sequence[Correction], at_ns: int) -> None:
    """Adjust the holds of actions to the corrected charges."""
    changes: Counter[tuple[str, str]] = Counter()
    for correction in pending:
        usage = correction.stored.call.usage
        if usage.action_id:
            changes[usage.wallet, usage.action_id] += _change(correction.stored.call, _call_after(correction))[1]
    moved = {key: charge for key, charge in changes.items() if charge}
    if moved:
        # Some have no leg of their own, if the action's calls offset each other.
        locked_wallets(connection, tenant_id, {wallet for wallet, _ in moved})
        settle_holds(connection, tenant_id, moved, at_ns)


def _change(before: PricedUsage, after: PricedUsage) -> tuple[int, int]:
    """Return how a correction changes the cost and the charge of a record."""
    return (
        (after.cost_nanousd or 0) - (before.cost_nanousd or 0),
        (after.charge_nanocredits or 0) - (before.charge_nanocredits or 0),
    )


def charge_of(call: PricedUsage) -> Charge:
    """Return what a charged call takes from its wallet and costs us."""
    return Charge(
        call.usage.wallet,
        call.usage.event,
        call.rule_version_id,
        call.charge_nanocredits or 0,
        call.provider,
        call.model,
        call.cost_nanousd or 0,
    )


def _require_room(connection: Connection, tenant_id: int, charges: Sequence[Charge]) -> None:
    spent = balance(connection, tenant_id, COGS_ACCOUNT) + sum(charge.cost_nanousd for charge in charges)
    charged = balance(connection, tenant_id, EARNED_ACCOUNT) + sum(charge.charge_nanocredits for charge in charges)
    if max(spent, charged) > MAX_SUM_NANO:
        raise AmountError("too large: the sum of all charges would be out of range")


def _unchanged_since(connection: Connection, wanted: Sequence[Correction]) -> list[Correction]:
    """Lock the records until the end of the transaction; skip those that were corrected in the meantime."""
    by_id = {correction.stored.record_id: correction for correction in wanted}
    table = usage_records.c
    held = connection.execute(
        select(table.id, table.corrections).where(table.id.in_(sorted(by_id))).order_by(table.id).with_for_update()
    )
    return [by_id[record_id] for record_id, number in held if by_id[record_id].stored.corrections == number]


def _write(
    connection: Connection,
    tenant_id: int,
    cause: Cause,
    pending: Sequence[Correction],
    transaction_id: int | None,
    at_ns: int,
) -> None:
    """Store the corrections and the new values of the records."""
    kept, changed = [], []
    for correction in pending:
        before, after = correction.stored.call, _call_after(correction)
        number = correction.stored.corrections + 1
        sides = {
            f"{name}_{side}": getattr(call, name)
            for side, call in (("before", before), ("after", after))
            for name in _OUTCOME_COLUMNS
        }
        kept.append(
            {
                "tenant_id": tenant_id,
                "usage_record_id": correction.stored.record_id,
                "number": number,
                "transaction_id": transaction_id,
                "recorded_at_ns": at_ns,
                "cause": cause,
                **sides,
            }
        )
        changed.append(
            {
                "record": correction.stored.record_id,
                "new_corrections": number,
                "new_call_key": correction.after.call_key,
                "new_action_share_nanocredits": _share(correction.after),
                "new_assumptions": ",".join(after.assumptions),
                "new_unusual": stored_unusual(unusual_facts(after.usage), after.particulars),
                **{f"new_{name}": getattr(after, name) for name in _OUTCOME_COLUMNS},
            }
        )
    connection.execute(_UPDATE, changed)
    connection.execute(insert(corrections), kept)
    _move_claims(connection, tenant_id, pending)


def _move_claims(connection: Connection, tenant_id: int, pending: Sequence[Correction]) -> None:
    """Release claims before other records take them."""
    let_go: list[Claim] = []
    taken: list[Claim] = []
    for stored, after in pending:
        usage = stored.call.usage
        for key, claims in ((stored.call_key, let_go), (after.call_key, taken)):
            if key is not None and stored.call_key != after.call_key:
                claims.append(Claim(stored.record_id, key, usage.started_at_ns, usage.latency_ns))
    release(connection, tenant_id, let_go)
    claim(connection, tenant_id, taken)


_OUTCOME_COLUMNS = (
    "verdict",
    "reason",
    "provider",
    "model",
    "cost_nanousd",
    "charge_nanocredits",
    "price_version_ids",
    "rule_version_id",
)
_CHANGED_COLUMNS = (*_OUTCOME_COLUMNS, "corrections", "call_key", "assumptions", "unusual", "action_share_nanocredits")
_UPDATE = (
    update(usage_records)
    .where(usage_records.c.id == bindparam("record"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED_COLUMNS})
)
