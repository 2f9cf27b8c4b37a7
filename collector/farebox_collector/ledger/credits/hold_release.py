"""End holds: settled by the net charge of their action, voided, or expired. The open amount is released.

Until a hold is voided or expires, its `open_nano` is its amount less the net charge: charges of the action since the
hold, less corrections. A hold whose action was charged the full amount is settled; a correction can open it again.
At `expires_at_ns` a hold has ended, even before the sweep closes it.

Every change of a hold happens under the lock of its wallet's account.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, bindparam, exists, select, update

from farebox_collector.ledger.credits.spending import (
    IS_OPEN,
    Subject,
    add_held,
    subjects_of,
)
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.ledger.tables.limits import spending_policies
from farebox_collector.model.money import Commodity

MOST_EXPIRED_AT_ONCE = 1_000

ADD_HELD = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(held_nano=accounts.c.held_nano + bindparam("more"))
)
_CHANGE = (
    update(holds)
    .where(holds.c.id == bindparam("hold"))
    .values(
        open_nano=bindparam("new_open"),
        settled_nano=bindparam("new_settled"),
        state=bindparam("new_state"),
        ended_at_ns=bindparam("ended"),
    )
)


class HoldState(StrEnum):
    """State of a hold."""

    OPEN = "open"
    SETTLED = "settled"
    """The action was charged the full amount."""
    VOIDED = "voided"
    EXPIRED = "expired"


class HoldStanding(NamedTuple):
    """State of a hold at a moment."""

    state: HoldState
    open_nano: int
    ended_at_ns: int | None


def standing_of(row: Row[Any], at_ns: int) -> HoldStanding:
    """Return the state of a hold at a moment; it expires on time, even before the sweep closes it."""
    state = HoldState(row.state)
    if state is HoldState.OPEN and row.expires_at_ns <= at_ns:
        return HoldStanding(HoldState.EXPIRED, 0, row.expires_at_ns)
    return HoldStanding(state, row.open_nano if state is HoldState.OPEN else 0, row.ended_at_ns)


class LockedWallet(NamedTuple):
    """The account of a wallet, locked until the end of the transaction."""

    account_id: int
    balance_nano: int
    held_nano: int
    limited: bool
    """Whether its tenant has any spending policy."""


class HoldChange(NamedTuple):
    """The new figures of a hold."""

    row: Row[Any]
    state: HoldState
    open_nano: int
    settled_nano: int
    ended_at_ns: int | None


def void_hold(connection: Connection, tenant_id: int, hold_id: int, at_ns: int) -> Row[Any] | None:
    """Void an open hold; an ended hold keeps its state. Returns the hold; None if there is none."""
    found = connection.execute(holds_of_tenant(tenant_id).where(holds.c.id == hold_id)).first()
    if found is None or found.state != HoldState.OPEN:
        return found
    _end(connection, tenant_id, [found], HoldState.VOIDED, at_ns)
    return connection.execute(holds_of_tenant(tenant_id).where(holds.c.id == hold_id)).one()


def expire_holds(connection: Connection, at_ns: int) -> int:
    """Release expired holds of all tenants; returns how many, at most `MOST_EXPIRED_AT_ONCE`."""
    due = connection.execute(
        select(holds).where(IS_OPEN, holds.c.expires_at_ns <= at_ns).order_by(holds.c.id).limit(MOST_EXPIRED_AT_ONCE)
    ).all()
    for tenant_id in sorted({row.tenant_id for row in due}):
        _end(connection, tenant_id, [row for row in due if row.tenant_id == tenant_id], HoldState.EXPIRED, at_ns)
    return len(due)


def end_expired(
    connection: Connection, tenant_id: int, wallets: Mapping[str, LockedWallet], at_ns: int
) -> tuple[dict[str, LockedWallet], dict[Subject, int]]:
    """Release the expired holds of locked wallets.

    Returns the wallets afterwards, and the amounts released by user, department and project. The caller subtracts these
    from `spenders`, in one step with the other rows that it locks there.
    """
    released: defaultdict[Subject, int] = defaultdict(int)
    left = dict(wallets)
    due = holds_of_tenant(tenant_id).where(IS_OPEN, holds.c.wallet.in_(sorted(wallets)), holds.c.expires_at_ns <= at_ns)
    while rows := connection.execute(due.limit(MOST_EXPIRED_AT_ONCE)).all():
        for row in rows:
            left[row.wallet] = left[row.wallet]._replace(held_nano=left[row.wallet].held_nano - row.open_nano)
        changes = [_ended(row, HoldState.EXPIRED, at_ns) for row in rows]
        for subject, less in _write(connection, changes, wallets).items():
            released[subject] += less
    return left, dict(released)


def settle_holds(
    connection: Connection,
    tenant_id: int,
    charges: Mapping[tuple[str, str], int],
    at_ns: int,
) -> None:
    """Reduce holds by the charges of their actions; a negative charge was given back.

    `charges` is (wallet, action id) → nanocredits. The caller holds the locks of the wallets' accounts, as it does
    after changing their balances.
    """
    if not charges:
        return
    table = holds.c
    found = connection.execute(
        holds_of_tenant(tenant_id).where(
            table.state.in_((HoldState.OPEN, HoldState.SETTLED)),
            table.expires_at_ns > at_ns,
            table.wallet.in_(sorted({wallet for wallet, _ in charges})),
            table.action_id.in_(sorted({action_id for _, action_id in charges})),
        )
    ).all()
    moved = [(row, charge) for row in found if (charge := charges.get((row.wallet, row.action_id), 0))]
    _release(connection, tenant_id, [_settled(row, charge, at_ns) for row, charge in moved])


def _settled(row: Row[Any], charge: int, at_ns: int) -> HoldChange:
    """Return the hold after a further charge of its action."""
    net = row.settled_nano + charge
    left = min(max(row.amount_nano - net, 0), row.amount_nano)
    if left:
        return HoldChange(row, HoldState.OPEN, left, net, None)
    ended = at_ns if row.ended_at_ns is None else row.ended_at_ns
    return HoldChange(row, HoldState.SETTLED, 0, net, ended)


def _ended(row: Row[Any], state: HoldState, at_ns: int) -> HoldChange:
    """Return the hold ended now, or at its expiry if that is earlier."""
    if row.expires_at_ns <= at_ns:
        return HoldChange(row, HoldState.EXPIRED, 0, row.settled_nano, row.expires_at_ns)
    return HoldChange(row, state, 0, row.settled_nano, at_ns)


def _end(connection: Connection, tenant_id: int, ending: Sequence[Row[Any]], state: HoldState, at_ns: int) -> None:
    """Lock the wallets, then end the holds that are still open."""
    locked_wallets(connection, tenant_id, {row.wallet for row in ending})
    chosen = holds_of_tenant(tenant_id).where(holds.c.id.in_([row.id for row in ending]), IS_OPEN)
    rows = connection.execute(chosen.order_by(holds.c.id)).all()
    _release(connection, tenant_id, [_ended(row, state, at_ns) for row in rows])


def _release(connection: Connection, tenant_id: int, changes: Sequence[HoldChange]) -> None:
    """Write changed holds; adjust the held sums of their wallets, users, departments and projects."""
    if not changes:
        return
    wallets = locked_wallets(connection, tenant_id, {change.row.wallet for change in changes})
    released_of = _write(connection, changes, wallets)
    add_held(connection, tenant_id, {subject: -less for subject, less in released_of.items() if less})


def _write(
    connection: Connection, changes: Iterable[HoldChange], wallets: Mapping[str, LockedWallet]
) -> dict[Subject, int]:
    """Write changed holds of locked wallets; returns the amounts released by user, department and project."""
    rows, released_by_wallet, released_of = [], defaultdict[str, int](int), defaultdict[Subject, int](int)
    for row, state, open_nano, settled_nano, ended_at_ns in changes:
        rows.append(
            {
                "hold": row.id,
                "new_open": open_nano,
                "new_settled": settled_nano,
                "new_state": state,
                "ended": ended_at_ns,
            }
        )
        released_by_wallet[row.wallet] += row.open_nano - open_nano
        for subject in subjects_of(row.wallet, row.user_id, row.dept, row.project):
            released_of[subject] += row.open_nano - open_nano
    connection.execute(_CHANGE, rows)
    held = [
        {"account": wallets[name].account_id, "more": -less}
        for name, less in sorted(released_by_wallet.items())
        if less
    ]
    if held:
        connection.execute(ADD_HELD, held)
    return dict(released_of)


def locked_wallets(connection: Connection, tenant_id: int, names: set[str]) -> dict[str, LockedWallet]:
    """Lock the wallets of these names until the end of the transaction, in the order that all writers keep."""
    if not names:
        return {}
    columns = accounts.c
    limited = exists().where(spending_policies.c.tenant_id == tenant_id)
    found = connection.execute(
        select(columns.name, columns.id, columns.balance_nano, columns.held_nano, limited)
        .where(
            columns.tenant_id == tenant_id,
            columns.kind == WALLET,
            columns.commodity == Commodity.CREDIT,
            columns.name.in_(sorted(names)),
        )
        .order_by(columns.name)
        .with_for_update(of=accounts)
    )
    return {row[0]: LockedWallet(row[1], row[2], row[3], bool(row[4])) for row in found}


def holds_of_tenant(tenant_id: int) -> Select[Any]:
    """Return a query of a tenant's holds; add conditions to it."""
    return select(holds).where(holds.c.tenant_id == tenant_id)
