"""Actions with a price of their own: a flat charge or a minimum is paid once an action, however many calls it makes.

An action is charged max(floor, sum of its calls' shares). Each call carries what it added to that, in the order of
recording: the first call of a flat action carries all of it, the others nothing. The action's row in `charged_actions`
keeps the sums, and its lock keeps two replicas that bring calls of one action from both charging the floor.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, update

from farebox_collector.ledger import bulk
from farebox_collector.ledger.entries import Entry
from farebox_collector.ledger.tables import usage_records
from farebox_collector.records import PricedUsage

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
