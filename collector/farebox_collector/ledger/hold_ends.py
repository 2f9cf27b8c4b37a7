"""How holds end: settled by the charges of their action, voided, or expired. What was set aside is given back.

Every change of a hold happens under the lock of its wallet's account.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, bindparam, exists, select, update

from farebox_collector.ledger.credit_tables import holds
from farebox_collector.ledger.journal import WALLET
from farebox_collector.ledger.limit_tables import spending_policies
from farebox_collector.ledger.spending import Subject, add_held, subjects_of
from farebox_collector.ledger.tables import accounts
from farebox_collector.money import Commodity

MOST_EXPIRED_AT_ONCE = 1_000

ADD_HELD = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(held_nano=accounts.c.held_nano + bindparam("more"))
)
_TAKE_OUT = (
    update(holds)
    .where(holds.c.id == bindparam("hold"))
    .values(
        open_nano=holds.c.open_nano - bindparam("less"), state=bindparam("new_state"), ended_at_ns=bindparam("ended")
    )
)


class HoldState(StrEnum):
    """What has become of a hold."""

    OPEN = "open"
    SETTLED = "settled"
    """The action's charges came to all of it."""
    VOIDED = "voided"
    EXPIRED = "expired"


class LockedWallet(NamedTuple):
    """The account of a wallet that is locked until the end of the transaction."""

    account_id: int
    balance_nano: int
    held_nano: int
    limited: bool
    """Whether its tenant has any spending policy."""


def void_hold(connection: Connection, tenant_id: int, hold_id: int, at_ns: int) -> Row[Any] | None:
    """Give back what is open of a hold; one that has ended stays as it ended. Returns it; None if there is none."""
    found = connection.execute(holds_of_tenant(tenant_id).where(holds.c.id == hold_id)).first()
    if found is None or found.state != HoldState.OPEN:
        return found
    _end(connection, tenant_id, [found], HoldState.VOIDED, at_ns)
    return connection.execute(holds_of_tenant(tenant_id).where(holds.c.id == hold_id)).one()


def expire_holds(connection: Connection, at_ns: int) -> int:
    """Let go of holds whose time is up, of all tenants; returns how many, at most `MOST_EXPIRED_AT_ONCE`."""
    due = connection.execute(
        select(holds)
        .where(holds.c.state == HoldState.OPEN, holds.c.expires_at_ns <= at_ns)
        .order_by(holds.c.id)
        .limit(MOST_EXPIRED_AT_ONCE)
    ).all()
    for tenant_id in sorted({row.tenant_id for row in due}):
        _end(connection, tenant_id, [row for row in due if row.tenant_id == tenant_id], HoldState.EXPIRED, at_ns)
    return len(due)


def settle_holds(
    connection: Connection,
    tenant_id: int,
    charges: Mapping[tuple[str, str], int],
    at_ns: int,
) -> None:
    """Release what actions were charged from their holds; `charges` is (wallet, action id) → nanocredits.

    To be called where the wallets' accounts are locked, as they are once their balances were moved.
    """
    if not charges:
        return
    table = holds.c
    found = connection.execute(
        holds_of_tenant(tenant_id).where(
            table.state == HoldState.OPEN,
            table.wallet.in_(sorted({wallet for wallet, _ in charges})),
            table.action_id.in_(sorted({action_id for _, action_id in charges})),
        )
    ).all()
    amounts = ((row, min(row.open_nano, charges.get((row.wallet, row.action_id), 0))) for row in found)
    released = [(row, less) for row, less in amounts if less > 0]
    ending = [(row, less, HoldState.SETTLED if less == row.open_nano else HoldState.OPEN) for row, less in released]
    release(
        connection, tenant_id, ending, locked_wallets(connection, tenant_id, {row.wallet for row, _ in released}), at_ns
    )


def _end(connection: Connection, tenant_id: int, ending: Sequence[Row[Any]], state: HoldState, at_ns: int) -> None:
    """Give back what is open of holds that are still open once their wallets are locked."""
    wallets = locked_wallets(connection, tenant_id, {row.wallet for row in ending})
    chosen = holds_of_tenant(tenant_id).where(
        holds.c.id.in_([row.id for row in ending]), holds.c.state == HoldState.OPEN
    )
    rows = connection.execute(chosen.order_by(holds.c.id)).all()
    release(connection, tenant_id, [(row, row.open_nano, state) for row in rows], wallets, at_ns)


def release(
    connection: Connection,
    tenant_id: int,
    releases: Iterable[tuple[Row[Any], int, HoldState]],
    wallets: Mapping[str, LockedWallet],
    at_ns: int,
) -> dict[Subject, int]:
    """Take amounts out of holds of locked wallets, which have them again; returns what others have again with them."""
    taken, less_held, less_of = [], defaultdict[str, int](int), defaultdict[Subject, int](int)
    for row, less, state in releases:
        ended = None if state is HoldState.OPEN else at_ns
        taken.append({"hold": row.id, "less": less, "new_state": state, "ended": ended})
        less_held[row.wallet] += less
        for subject in subjects_of(row.wallet, row.user_id, row.dept, row.project):
            less_of[subject] += less
    if taken:
        connection.execute(_TAKE_OUT, taken)
        changes = [{"account": wallets[name].account_id, "more": -less} for name, less in sorted(less_held.items())]
        connection.execute(ADD_HELD, changes)
        add_held(connection, tenant_id, {subject: -less for subject, less in less_of.items()})
    return less_of


def locked_wallets(connection: Connection, tenant_id: int, names: set[str]) -> dict[str, LockedWallet]:
    """The wallets of these names, locked until the end of the transaction, in the order in which all writers do."""
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
    """All columns of a tenant's holds; add what narrows it."""
    return select(holds).where(holds.c.tenant_id == tenant_id)
