"""Price actions: a flat charge or a minimum is paid once per action, regardless of its number of calls.

An action is charged max(floor, sum of its calls' shares). The rule of the call that started first sets the floor, even
if that is 0, in any order of arrival: an earlier call that arrives later changes the floor, and corrections
change what the recorded calls carry. Each call carries what it added, in the order of recording: the first call of a
flat action carries the whole charge, the others nothing. The action's row in `charged_actions` keeps the sums, and its
lock prevents two replicas that book calls of one action from both charging the floor.

Calls with an action id take part if any rule of their event ever had a floor. Elsewhere an action is the sum of its
calls, and no row is kept.
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
from farebox_collector.ledger.usage.span_index import of_bound_span
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
_UPDATE = update(usage_records).values(charge_nanocredits=bindparam("charge"))

ActionKey = tuple[str, str, str]
"""Wallet, event and action id."""


class ActionSums(NamedTuple):
    """The sums of an action, regardless of how its charge is distributed over its calls."""

    calls: int
    share_nanocredits: int
    floor_nanocredits: int

    @property
    def charge_nanocredits(self) -> int:
        """Return the total charge of the action."""
        return max(self.floor_nanocredits, self.share_nanocredits) if self.calls else 0

    def with_call(self, share_nanocredits: int) -> "ActionSums":
        """Return the sums with one more call."""
        return self._replace(calls=self.calls + 1, share_nanocredits=self.share_nanocredits + share_nanocredits)


class FirstCall(NamedTuple):
    """The sort key that decides which call of an action is its first: the smallest."""

    priced_at_ns: int
    """The start; the time of receipt if the start is implausible, as for its price."""
    span: str
    """Trace and span id in hexadecimal, which decide between calls with the same start."""

    @classmethod
    def of(cls, call: PricedUsage) -> "FirstCall":
        """Return the sort key of a call."""
        return cls(call.priced_at_ns, (call.usage.trace_id + call.usage.span_id).hex())


_BY_RECORDING = FirstCall(0, "")
"""The first call of an action whose floor another call decided: no call sorts before it."""


class Change(NamedTuple):
    """What a call adds to the sums of its action; negative figures take back."""

    key: ActionKey
    calls: int
    share_nanocredits: int
    floor_nanocredits: int
    call: FirstCall


class Moved(NamedTuple):
    """An action's sums before and after some changes, and the call that decided its floor before."""

    before: ActionSums
    after: ActionSums
    first: FirstCall


def action_of(call: PricedUsage) -> ActionKey:
    """Return the action of a call. A wallet pays only for its own calls: two wallets never share a floor."""
    return call.usage.wallet, call.usage.event, call.usage.action_id


def move_actions(connection: Connection, tenant_id: int, changes: Iterable[Change]) -> dict[ActionKey, Moved]:
    """Change the sums of actions, which stay locked until the end of the transaction.

    The floor of a known action stays as it is: see `set_first`.
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
    """Set other calls as the first calls of locked actions, with the floor of their rule."""
    rows = []
    for key, (call, floor) in sorted(firsts.items()):
        of = {f"of_{name}": value for name, value in zip(_KEY, (tenant_id, *key), strict=True)}
        rows.append(of | {f"new_{name}": value for name, value in zip(_FIRST, (floor, *call), strict=True)})
    if rows:
        connection.execute(_SET_FIRST, rows)


def charge_actions_once(
    connection: Connection, tenant_id: int, recorded: Sequence[Entry], may_correct: Callable[[], bool]
) -> list[ActionKey]:
    """Make newly recorded calls carry what they add to the charge of their action; `recorded` is in their order.

    Returns the actions whose floor has changed: the charges of their earlier calls change too. If corrections are not
    allowed, the floor stays.
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
    """Make calls carry what they add to the charge of the calls before them."""
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
        connection.execute(_UPDATE.where(of_bound_span(connection)), changed)


def action_before(connection: Connection, tenant_id: int, key: ActionKey, record_id: int) -> ActionSums:
    """Return the sums of an action's calls that were recorded before a record, as the books have them now."""
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
    """What a correction does to the action of a record; a share of None means that the record takes no part."""

    record_id: int
    key: ActionKey
    share_before: int | None
    share_after: int | None
    floor_nanocredits: int
    call: FirstCall


SettleActions = Callable[[Connection, int, Iterable[Move]], dict[int, int]]
"""Returns new charges by record id after some moves, for all records of a corrected action whose charge would
change."""


def settle_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that changes the sums of corrected records' actions, which stay locked."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    moved = move_actions(connection, tenant_id, changes)
    known = {key: (one.first, one.after.floor_nanocredits) for key, one in moved.items()}
    parts = _parts_of_actions(connection, tenant_id, known, by_id)
    firsts = _firsts(connection, known, parts)
    set_first(connection, tenant_id, {key: first for key, first in firsts.items() if first != known[key]})
    return _charges(by_id, parts, firsts)


def preview_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that writes nothing."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    known = {change.key: (change.call, change.floor_nanocredits) for change in changes}
    known |= _known(connection, tenant_id, known.keys())
    parts = _parts_of_actions(connection, tenant_id, known, by_id)
    return _charges(by_id, parts, _firsts(connection, known, parts))


def charges_of_actions(connection: Connection, tenant_id: int, keys: Sequence[ActionKey]) -> dict[int, int]:
    """Return the charges that the floors of some actions require, by record id, where they differ from the current."""
    known = _known(connection, tenant_id, keys)
    return _charges({}, _parts_of_actions(connection, tenant_id, known, {}), known)


def _known(connection: Connection, tenant_id: int, keys: Iterable[ActionKey]) -> dict[ActionKey, tuple[FirstCall, int]]:
    """Return the first call and the floor of the actions that are in the books."""
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
    """Return the moves that affect actions, and their changes."""
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
    """The floor of its rule, if the correction states it."""


def _parts_of_actions(
    connection: Connection, tenant_id: int, keys: Iterable[ActionKey], by_id: Mapping[int, Move]
) -> dict[int, _Part]:
    """Return the records that take part in some actions after some moves, by their id."""
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
    """Return the first call and the floor of actions, from the records that take part."""
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
    """Return the floors of rule versions by their id, in nanocredits."""
    rules = charge_rules.c
    query = select(rules.id, rules.kind, rules.flat_credits, rules.minimum_credits).where(rules.id.in_(rule_ids))
    rows = connection.execute(query) if rule_ids else ()
    return {rule_id: int(Decimal(flat if kind == FLAT else minimum) * NANO) for rule_id, kind, flat, minimum in rows}


def _charges(
    by_id: Mapping[int, Move], parts: Mapping[int, _Part], firsts: Mapping[ActionKey, tuple[FirstCall, int]]
) -> dict[int, int]:
    """Return what the calls of actions carry, by record id, where it differs from what they carry now."""
    sums = {key: ActionSums(0, 0, floor) for key, (_, floor) in firsts.items()}
    charges = {}
    for record_id, part in sorted(parts.items()):
        before, sums[part.key] = sums[part.key], sums[part.key].with_call(part.share)
        charge = sums[part.key].charge_nanocredits - before.charge_nanocredits
        if charge != part.charged or record_id in by_id:
            charges[record_id] = charge
    return charges
