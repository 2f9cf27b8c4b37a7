"""Actions with a price of their own: a flat charge or a minimum is paid once an action, however many calls it makes.

An action is charged max(floor, sum of its calls' shares). Its floor is that of the rule of the call that started first,
also where that is 0, whatever order the calls come in: an earlier call that comes later moves it, and what the calls
carry by corrections. Each call carries what it added to that, in the order of recording: the first call of a flat
action carries all of it, the others nothing. The action's row in `charged_actions` keeps the sums, and its lock keeps
two replicas that bring calls of one action from both charging the floor.

Calls with an action id take part where any rule of their event ever had a floor; elsewhere an action is the sum of its
calls anyway, and no row is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import charge_rules, usage_records
from farebox_collector.ledger.tables.credits import charged_actions
from farebox_collector.ledger.usage.entries import Entry
from farebox_collector.model.money import NANO
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import FLAT

_KEY = ("tenant_id", "wallet", "event", "action_id")
_SUMS = ("calls", "share_nanocredits")
_FIRST = ("floor_nanocredits", "first_started_ns", "first_span")
_COLUMNS = (*_KEY, *_SUMS, *_FIRST, "last_started_ns")
_TAIL = (
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {bulk_insert.additions('charged_actions', _SUMS)},"
    " last_started_ns = CASE WHEN excluded.last_started_ns > charged_actions.last_started_ns"
    " THEN excluded.last_started_ns ELSE charged_actions.last_started_ns END"
    f" RETURNING wallet, event, action_id, {', '.join((*_SUMS, *_FIRST))}"
)
_SET_FIRST = (
    update(charged_actions)
    .where(*(charged_actions.c[name] == bindparam(f"of_{name}") for name in _KEY))
    .values({name: bindparam(f"new_{name}") for name in _FIRST})
)
_UPDATE = (
    update(usage_records)
    .where(
        usage_records.c.tenant_id == bindparam("tenant"),
        usage_records.c.trace_id == bindparam("trace"),
        usage_records.c.span_id == bindparam("span"),
    )
    .values(charge_nanocredits=bindparam("charge"))
)

ActionKey = tuple[str, str, str]
"""Wallet, event and action id."""


class ActionSums(NamedTuple):
    """What is charged for an action, apart from how it falls on its calls."""

    calls: int
    share_nanocredits: int
    floor_nanocredits: int

    @property
    def charge_nanocredits(self) -> int:
        """What the action is charged in all."""
        return max(self.floor_nanocredits, self.share_nanocredits) if self.calls else 0

    def with_call(self, share_nanocredits: int) -> "ActionSums":
        """The same with one more call."""
        return self._replace(calls=self.calls + 1, share_nanocredits=self.share_nanocredits + share_nanocredits)


class FirstCall(NamedTuple):
    """What decides which call of an action is its first; the least is."""

    priced_at_ns: int
    """When it started; a start that no clock can mean is that of the receipt, as for its price."""
    span: str
    """Trace and span id in hexadecimal, which decide between calls that started at one moment."""

    @classmethod
    def of(cls, call: PricedUsage) -> "FirstCall":
        """A call as it may be the first."""
        return cls(call.priced_at_ns, (call.usage.trace_id + call.usage.span_id).hex())


_BY_RECORDING = FirstCall(0, "")
"""The first call of an action whose floor was decided by another one: nothing comes before it."""


class Change(NamedTuple):
    """What a call adds to the sums of its action, or with negative figures takes back."""

    key: ActionKey
    calls: int
    share_nanocredits: int
    floor_nanocredits: int
    call: FirstCall


class Moved(NamedTuple):
    """An action's sums before and after some changes, and the first call that decided its floor so far."""

    before: ActionSums
    after: ActionSums
    first: FirstCall


def action_of(call: PricedUsage) -> ActionKey:
    """The action that a call belongs to. A wallet pays for its own calls: two wallets never share a floor."""
    return call.usage.wallet, call.usage.event, call.usage.action_id


def move_actions(connection: Connection, tenant_id: int, changes: Iterable[Change]) -> dict[ActionKey, Moved]:
    """Move the sums of actions, which stay locked until the end of the transaction.

    The floor of an action that is known stays what it is: see `set_first`.
    """
    by_key: defaultdict[ActionKey, list[Change]] = defaultdict(list)
    for change in changes:
        by_key[change.key].append(change)
    added, rows = {}, []
    for key, of_key in sorted(by_key.items()):
        added[key] = sum(one.calls for one in of_key), sum(one.share_nanocredits for one in of_key)
        first = min(of_key, key=lambda one: one.call)
        last_ns = max(one.call.priced_at_ns for one in of_key)
        rows.append((tenant_id, *key, *added[key], first.floor_nanocredits, *first.call, last_ns))
    moved = {}
    for wallet, event, action_id, calls, share, floor, *first_call in bulk_insert.upsert_returning(
        connection, "charged_actions", _COLUMNS, _TAIL, rows
    ):
        after = ActionSums(calls, share, floor)
        more_calls, more_share = added[wallet, event, action_id]
        before = ActionSums(calls - more_calls, share - more_share, floor)
        moved[wallet, event, action_id] = Moved(before, after, FirstCall(*first_call))
    return moved


def set_first(connection: Connection, tenant_id: int, firsts: Mapping[ActionKey, tuple[FirstCall, int]]) -> None:
    """Let other calls be the first of locked actions, with the floor of their rule."""
    rows = []
    for key, (call, floor) in sorted(firsts.items()):
        of = {f"of_{name}": value for name, value in zip(_KEY, (tenant_id, *key), strict=True)}
        rows.append(of | {f"new_{name}": value for name, value in zip(_FIRST, (floor, *call), strict=True)})
    if rows:
        connection.execute(_SET_FIRST, rows)


def charge_actions_once(
    connection: Connection, tenant_id: int, recorded: Sequence[Entry], may_correct: Callable[[], bool]
) -> list[ActionKey]:
    """Let newly recorded calls carry what they add to the charge of their action; `recorded` is in their order.

    Returns the actions whose floor has moved: the calls that were recorded before carry something else from now on.
    Where these may not be corrected the floor stays.
    """
    of_actions = [entry for entry in recorded if entry.charged and entry.call.action_floor_nanocredits is not None]
    if not of_actions:
        return []
    changes = [
        Change(
            action_of(entry.call),
            1,
            entry.call.charge_nanocredits or 0,
            entry.call.action_floor_nanocredits or 0,
            FirstCall.of(entry.call),
        )
        for entry in of_actions
    ]
    moved = move_actions(connection, tenant_id, changes)
    earliest: dict[ActionKey, Change] = {}
    for change in changes:
        known = earliest.get(change.key)
        if known is None or change.call < known.call:
            earliest[change.key] = change
    sums, firsts, renewed = {}, {}, []
    for key, (before, _, first) in moved.items():
        call, floor = earliest[key].call, earliest[key].floor_nanocredits
        known_floor = before.floor_nanocredits
        if call != first and (call < first or not before.calls):
            moves = bool(before.calls) and floor != known_floor
            if not moves or may_correct():
                firsts[key], known_floor = (call, floor), floor
                renewed += [key] if moves else []
            else:
                firsts[key] = _BY_RECORDING, known_floor
        sums[key] = before._replace(floor_nanocredits=known_floor)
    set_first(connection, tenant_id, firsts)
    _carry(connection, tenant_id, of_actions, sums)
    return renewed


def _carry(
    connection: Connection, tenant_id: int, of_actions: Sequence[Entry], sums: dict[ActionKey, ActionSums]
) -> None:
    """Let calls carry what they add to what is charged for the calls before them."""
    changed = []
    for entry in of_actions:
        call, key = entry.call, action_of(entry.call)
        share = call.charge_nanocredits or 0
        before, sums[key] = sums[key], sums[key].with_call(share)
        charge = sums[key].charge_nanocredits - before.charge_nanocredits
        if charge != share:
            entry.call = call._replace(charge_nanocredits=charge)
            ids = {"tenant": tenant_id, "trace": call.usage.trace_id, "span": call.usage.span_id}
            changed.append(ids | {"charge": charge})
    if changed:
        connection.execute(_UPDATE, changed)


def action_before(connection: Connection, tenant_id: int, key: ActionKey, record_id: int) -> ActionSums:
    """The sums of an action's calls that were recorded before one of them, as the books have them now."""
    wallet, event, action_id = key
    actions, table = charged_actions.c, usage_records.c
    floor = connection.execute(
        select(actions.floor_nanocredits).where(
            actions.tenant_id == tenant_id,
            actions.wallet == wallet,
            actions.event == event,
            actions.action_id == action_id,
        )
    ).scalar_one()
    calls, share = connection.execute(
        select(func.count(), func.coalesce(func.sum(table.action_share_nanocredits), 0)).where(
            table.tenant_id == tenant_id,
            table.action_id == action_id,
            table.action_share_nanocredits.is_not(None),
            table.wallet == wallet,
            table.event == event,
            table.verdict == Verdict.CHARGED,
            table.id < record_id,
        )
    ).one()
    return ActionSums(calls, int(share), floor)


class Move(NamedTuple):
    """What a correction does to the action of a record; a share of None is that the record has no part in it."""

    record_id: int
    key: ActionKey
    share_before: int | None
    share_after: int | None
    floor_nanocredits: int
    call: FirstCall


SettleActions = Callable[[Connection, int, Iterable[Move]], dict[int, int]]
"""Says what records are charged after some moves, by their id: all that take part in a corrected action and would not
be charged what they are."""


def settle_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that moves the sums of corrected records' actions, which stay locked."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    moved = move_actions(connection, tenant_id, changes)
    known = {key: (one.first, one.after.floor_nanocredits) for key, one in moved.items()}
    parts = _parts_of_actions(connection, tenant_id, known, by_id)
    firsts = _firsts(connection, known, parts)
    set_first(connection, tenant_id, {key: first for key, first in firsts.items() if first != known[key]})
    return _charges(by_id, parts, firsts)


def foresee_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that writes nothing."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    known = {change.key: (change.call, change.floor_nanocredits) for change in changes}
    known |= _known(connection, tenant_id, known.keys())
    parts = _parts_of_actions(connection, tenant_id, known, by_id)
    return _charges(by_id, parts, _firsts(connection, known, parts))


def charges_of_actions(connection: Connection, tenant_id: int, keys: Sequence[ActionKey]) -> dict[int, int]:
    """What records of some actions are charged by their floors, by their id, as far as it is not what they are."""
    known = _known(connection, tenant_id, keys)
    return _charges({}, _parts_of_actions(connection, tenant_id, known, {}), known)


def _known(connection: Connection, tenant_id: int, keys: Iterable[ActionKey]) -> dict[ActionKey, tuple[FirstCall, int]]:
    """The first call and the floor of those of some actions that are in the books."""
    wanted, actions = set(keys), charged_actions.c
    rows = connection.execute(
        select(actions.wallet, actions.event, actions.action_id, *(actions[name] for name in _FIRST)).where(
            actions.tenant_id == tenant_id,
            actions.wallet.in_(sorted({key[0] for key in wanted})),
            actions.action_id.in_(sorted({key[2] for key in wanted})),
        )
    )
    return {
        key: (FirstCall(started_at_ns, span), floor)
        for *names, floor, started_at_ns, span in rows
        if (key := (names[0], names[1], names[2])) in wanted
    }


def _parts(moves: Iterable[Move]) -> tuple[dict[int, Move], list[Change]]:
    """The moves that have to do with actions, and what they change."""
    by_id = {move.record_id: move for move in moves if (move.share_before, move.share_after) != (None, None)}
    changes = []
    for move in by_id.values():
        if move.share_before is not None:
            changes.append(Change(move.key, -1, -move.share_before, move.floor_nanocredits, move.call))
        if move.share_after is not None:
            changes.append(Change(move.key, 1, move.share_after, move.floor_nanocredits, move.call))
    return by_id, changes


class _Part(NamedTuple):
    """A record that takes part in an action."""

    key: ActionKey
    share: int
    charged: int | None
    call: FirstCall
    rule_id: int | None
    floor: int | None = None
    """What its rule asks for, where the correction says it."""


def _parts_of_actions(
    connection: Connection, tenant_id: int, keys: Iterable[ActionKey], by_id: Mapping[int, Move]
) -> dict[int, _Part]:
    """The records that take part in some actions, by their id, once some moves are made."""
    wanted, table = set(keys), usage_records.c
    rows = connection.execute(
        select(table.id, table.wallet, table.event, table.action_id, table.action_share_nanocredits)
        .add_columns(table.charge_nanocredits, table.priced_at_ns, table.trace_id, table.span_id)
        .add_columns(table.rule_version_id)
        .where(
            table.tenant_id == tenant_id,
            table.action_id.in_(sorted({key[2] for key in wanted})),
            table.action_share_nanocredits.is_not(None),
            table.verdict == Verdict.CHARGED,
        )
    )
    parts = {}
    for record_id, wallet, event, action_id, share, charged, priced_at_ns, trace_id, span_id, rule_id in rows:
        key = (wallet, event, action_id)
        if key in wanted:
            call = FirstCall(priced_at_ns, (trace_id + span_id).hex())
            parts[record_id] = _Part(key, share, charged, call, rule_id)
    for move in by_id.values():
        known = parts.pop(move.record_id, None)
        if move.share_after is not None:
            charged = None if known is None else known.charged
            parts[move.record_id] = _Part(move.key, move.share_after, charged, move.call, None, move.floor_nanocredits)
    return parts


def _firsts(
    connection: Connection, known: Mapping[ActionKey, tuple[FirstCall, int]], parts: Mapping[int, _Part]
) -> dict[ActionKey, tuple[FirstCall, int]]:
    """The first call and the floor of actions, by the records that take part in them."""
    earliest: dict[ActionKey, _Part] = {}
    for part in parts.values():
        if part.key not in earliest or part.call < earliest[part.key].call:
            earliest[part.key] = part
    unsaid = {part.rule_id for part in earliest.values() if part.floor is None and part.rule_id is not None}
    floors = floors_of_rules(connection, sorted(unsaid))
    found = dict(known)
    for key, part in earliest.items():
        if part.floor is not None or part.call != known[key][0]:
            found[key] = part.call, floors.get(part.rule_id or 0, 0) if part.floor is None else part.floor
    return found


def floors_of_rules(connection: Connection, rule_ids: Sequence[int]) -> dict[int, int]:
    """What an action is charged at least by some rule versions, by their id, in nanocredits."""
    rules = charge_rules.c
    query = select(rules.id, rules.kind, rules.flat_credits, rules.minimum_credits).where(rules.id.in_(rule_ids))
    rows = connection.execute(query) if rule_ids else ()
    return {rule_id: int(Decimal(flat if kind == FLAT else minimum) * NANO) for rule_id, kind, flat, minimum in rows}


def _charges(
    by_id: Mapping[int, Move], parts: Mapping[int, _Part], firsts: Mapping[ActionKey, tuple[FirstCall, int]]
) -> dict[int, int]:
    """What the calls of actions carry, by their record's id, as far as it is not what they carry now."""
    sums = {key: ActionSums(0, 0, floor) for key, (_, floor) in firsts.items()}
    charges = {}
    for record_id, part in sorted(parts.items()):
        before, sums[part.key] = sums[part.key], sums[part.key].with_call(part.share)
        charge = sums[part.key].charge_nanocredits - before.charge_nanocredits
        if charge != part.charged or record_id in by_id:
            charges[record_id] = charge
    return charges
