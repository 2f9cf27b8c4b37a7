"""Actions with a price of their own: a flat charge or a minimum is paid once an action, however many calls it makes.

An action is charged max(floor, sum of its calls' shares). Each call carries what it added to that, in the order of
recording: the first call of a flat action carries all of it, the others nothing. The action's row in `charged_actions`
keeps the sums, and its lock keeps two replicas that bring calls of one action from both charging the floor.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update

from farebox_collector.ledger import bulk
from farebox_collector.ledger.credit_tables import charged_actions
from farebox_collector.ledger.entries import Entry
from farebox_collector.ledger.tables import usage_records
from farebox_collector.records import PricedUsage
from farebox_collector.verdicts import Verdict

_KEY = ("tenant_id", "wallet", "event", "action_id")
_SUMS = ("calls", "share_nanocredits")
_COLUMNS = (*_KEY, *_SUMS, "floor_nanocredits")
_TAIL = (
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {bulk.additions('charged_actions', _SUMS)}"
    " RETURNING wallet, event, action_id, calls, share_nanocredits, floor_nanocredits"
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


class Change(NamedTuple):
    """What a call adds to the sums of its action, or with negative figures takes back."""

    key: ActionKey
    calls: int
    share_nanocredits: int
    floor_nanocredits: int


def action_of(call: PricedUsage) -> ActionKey:
    """The action that a call belongs to. A wallet pays for its own calls: two wallets never share a floor."""
    return call.usage.wallet, call.usage.event, call.usage.action_id


def move_actions(
    connection: Connection, tenant_id: int, changes: Iterable[Change]
) -> dict[ActionKey, tuple[ActionSums, ActionSums]]:
    """Move the sums of actions, which stay locked until the end of the transaction; returns them before and after.

    The floor of an action is that of its first call; a rule that is set meanwhile is for the actions that follow.
    """
    moved: defaultdict[ActionKey, list[int]] = defaultdict(lambda: [0, 0, 0])
    for change in changes:
        row = moved[change.key]
        row[0] += change.calls
        row[1] += change.share_nanocredits
        row[2] = row[2] or change.floor_nanocredits
    rows = [(tenant_id, *key, *figures) for key, figures in sorted(moved.items())]
    returned = bulk.upsert_returning(connection, "charged_actions", _COLUMNS, _TAIL, rows)
    sums = {}
    for wallet, event, action_id, calls, share, floor in returned:
        after = ActionSums(calls, share, floor)
        added = moved[wallet, event, action_id]
        sums[wallet, event, action_id] = ActionSums(calls - added[0], share - added[1], floor), after
    return sums


def charge_actions_once(connection: Connection, tenant_id: int, recorded: Sequence[Entry]) -> None:
    """Let newly recorded calls carry what they add to the charge of their action; `recorded` is in their order."""
    of_actions = [entry for entry in recorded if entry.charged and entry.call.action_floor_nanocredits is not None]
    if not of_actions:
        return
    changes = [
        Change(action_of(entry.call), 1, entry.call.charge_nanocredits or 0, entry.call.action_floor_nanocredits or 0)
        for entry in of_actions
    ]
    sums = {key: before for key, (before, _) in move_actions(connection, tenant_id, changes).items()}
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


SettleActions = Callable[[Connection, int, Iterable[Move]], dict[int, int]]
"""Says what records are charged after some moves, by their id: all that take part in a corrected action and would not
be charged what they are."""


def settle_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that moves the sums of corrected records' actions, which stay locked."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    floors = {key: after.floor_nanocredits for key, (_, after) in move_actions(connection, tenant_id, changes).items()}
    return _charges(connection, tenant_id, by_id, floors)


def foresee_actions(connection: Connection, tenant_id: int, moves: Iterable[Move]) -> dict[int, int]:
    """A SettleActions that writes nothing."""
    by_id, changes = _parts(moves)
    if not changes:
        return {}
    floors: dict[ActionKey, int] = {}
    for change in changes:
        floors[change.key] = floors.get(change.key, 0) or change.floor_nanocredits
    actions = charged_actions.c
    known = connection.execute(
        select(actions.wallet, actions.event, actions.action_id, actions.floor_nanocredits).where(
            actions.tenant_id == tenant_id,
            actions.wallet.in_(sorted({key[0] for key in floors})),
            actions.action_id.in_(sorted({key[2] for key in floors})),
        )
    )
    floors |= {key: floor for *names, floor in known if (key := (names[0], names[1], names[2])) in floors}
    return _charges(connection, tenant_id, by_id, floors)


def _parts(moves: Iterable[Move]) -> tuple[dict[int, Move], list[Change]]:
    """The moves that have to do with actions, and what they change."""
    by_id = {move.record_id: move for move in moves if (move.share_before, move.share_after) != (None, None)}
    changes = []
    for move in by_id.values():
        if move.share_before is not None:
            changes.append(Change(move.key, -1, -move.share_before, move.floor_nanocredits))
        if move.share_after is not None:
            changes.append(Change(move.key, 1, move.share_after, move.floor_nanocredits))
    return by_id, changes


def _charges(
    connection: Connection, tenant_id: int, by_id: Mapping[int, Move], floors: Mapping[ActionKey, int]
) -> dict[int, int]:
    """What the calls of actions carry, by their record's id, as far as it is not what they carry now."""
    table = usage_records.c
    rows = connection.execute(
        select(table.id, table.wallet, table.event, table.action_id, table.action_share_nanocredits)
        .add_columns(table.charge_nanocredits)
        .where(
            table.tenant_id == tenant_id,
            table.action_id.in_(sorted({key[2] for key in floors})),
            table.action_share_nanocredits.is_not(None),
            table.verdict == Verdict.CHARGED,
        )
    )
    parts = {row[0]: ((row[1], row[2], row[3]), row[4], row[5]) for row in rows}
    for move in by_id.values():
        _, _, charged = parts.pop(move.record_id, (move.key, 0, None))
        if move.share_after is not None:
            parts[move.record_id] = move.key, move.share_after, charged
    sums = {key: ActionSums(0, 0, floor) for key, floor in floors.items()}
    charges = {}
    for record_id, (key, share, charged) in sorted(parts.items()):
        if key not in sums:
            continue
        before, sums[key] = sums[key], sums[key].with_call(share)
        charge = sums[key].charge_nanocredits - before.charge_nanocredits
        if charge != charged or record_id in by_id:
            charges[record_id] = charge
    return charges
