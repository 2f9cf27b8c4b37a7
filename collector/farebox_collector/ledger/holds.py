"""Holds: credits of a wallet set aside for an action before it spends any.

What a wallet can still set aside is its balance less what is held. Every change of a hold happens under the lock of
the wallet's account, so that holds never exceed the balance, on any number of replicas.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, bindparam, or_, select, update

from farebox_collector.ledger import bulk
from farebox_collector.ledger.credit_tables import holds
from farebox_collector.ledger.journal import WALLET
from farebox_collector.ledger.tables import accounts
from farebox_collector.money import Commodity

MOST_EXPIRED_AT_ONCE = 1_000

_COLUMNS = (
    "tenant_id",
    "wallet",
    "idempotency_key",
    "request",
    "event",
    "action_id",
    "amount_nano",
    "open_nano",
    "state",
    "created_at_ns",
    "expires_at_ns",
)
_ADD_HELD = (
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


class HoldRequest(NamedTuple):
    """What is asked to be set aside."""

    wallet: str
    amount_nanocredits: int
    idempotency_key: str
    event: str
    action_id: str
    """May be empty; then no charge settles the hold."""
    expires_in_s: int

    def text(self) -> str:
        """The request as it is compared with one under the same key."""
        return json.dumps(self._replace(idempotency_key=""))


class Held(NamedTuple):
    """Credits that are set aside."""

    hold_id: int
    available_nanocredits: int
    """What of the wallet is left to be set aside."""
    expires_at_ns: int
    repeated: bool
    """True when the same request was answered before, and nothing changed."""


class Insufficient(NamedTuple):
    """The wallet has less than was asked for."""

    available_nanocredits: int
    known: bool
    """False for a wallet that was never paid into nor charged."""


class AlreadyHeld(NamedTuple):
    """The action has a hold already."""

    hold_id: int


class KeyReused(NamedTuple):
    """The idempotency key was used before, for another request."""


HoldAnswer = Held | Insufficient | AlreadyHeld | KeyReused


class _Wallet:
    """The account of a wallet while it is locked."""

    def __init__(self, account_id: int, available: int) -> None:
        self.account_id = account_id
        self.available = available
        self.more_held = 0
        self.swept = False

    def take(self, amount: int) -> None:
        self.available -= amount
        self.more_held += amount


class _Known(NamedTuple):
    """A hold that a request may meet: one in the books, or one of this group that is on its way there."""

    request: str
    expires_at_ns: int
    hold_id: int
    place: int
    """Where the answer to a request of this group stands, whose id is not known yet; -1 for one in the books."""


def take_holds(connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest], at_ns: int) -> list[HoldAnswer]:
    """Set credits aside for one tenant, first come, first served. An answer for each request, in order."""
    wallets = _locked(connection, tenant_id, {request.wallet for request in wanted})
    keys, actions = _earlier(connection, tenant_id, wanted)
    answers: list[HoldAnswer] = []
    rows: list[tuple[Any, ...]] = []
    later: list[tuple[int, int]] = []
    for place, request in enumerate(wanted):
        wallet = wallets.get(request.wallet)
        action = (request.wallet, request.action_id)
        known = keys.get(request.idempotency_key) or (actions.get(action) if request.action_id else None)
        if known is not None:
            answers.append(_met(request, known, wallet, known is keys.get(request.idempotency_key)))
            if known.place >= 0:
                later.append((place, known.place))
        elif wallet is None or not _affords(connection, tenant_id, request, wallet, at_ns):
            answers.append(Insufficient(wallet.available if wallet else 0, wallet is not None))
        else:
            wallet.take(request.amount_nanocredits)
            made = _Known(request.text(), at_ns + request.expires_in_s * 10**9, 0, place)
            keys[request.idempotency_key] = actions[action] = made
            answers.append(Held(0, wallet.available, made.expires_at_ns, False))
            rows.append(_row(tenant_id, request, at_ns, made.expires_at_ns))
    ids = _write(connection, wallets, rows)
    for place, answer in enumerate(answers):
        if isinstance(answer, Held) and not answer.repeated:
            answers[place] = answer._replace(hold_id=ids[wanted[place].idempotency_key])
    for place, of in later:
        answer, first = answers[place], answers[of]
        assert isinstance(first, Held)
        if isinstance(answer, Held | AlreadyHeld):
            answers[place] = answer._replace(hold_id=first.hold_id)
    return answers


def void_hold(connection: Connection, tenant_id: int, hold_id: int, at_ns: int) -> Row[Any] | None:
    """Give back what is open of a hold; one that has ended stays as it ended. Returns it; None if there is none."""
    found = connection.execute(_of_tenant(tenant_id).where(holds.c.id == hold_id)).first()
    if found is None or found.state != HoldState.OPEN:
        return found
    _end(connection, tenant_id, [found], HoldState.VOIDED, at_ns)
    return connection.execute(_of_tenant(tenant_id).where(holds.c.id == hold_id)).one()


def hold(connection: Connection, tenant_id: int, hold_id: int) -> Row[Any] | None:
    """One hold; None if there is none."""
    return connection.execute(_of_tenant(tenant_id).where(holds.c.id == hold_id)).first()


def holds_of(
    connection: Connection, tenant_id: int, wallet: str, state: str, before_id: int | None, limit: int
) -> Sequence[Row[Any]]:
    """Holds, newest first; an empty wallet or state does not filter."""
    query = _of_tenant(tenant_id).order_by(holds.c.id.desc()).limit(limit)
    if wallet:
        query = query.where(holds.c.wallet == wallet)
    if state:
        query = query.where(holds.c.state == state)
    if before_id is not None:
        query = query.where(holds.c.id < before_id)
    return connection.execute(query).all()


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
        _of_tenant(tenant_id).where(
            table.state == HoldState.OPEN,
            table.wallet.in_(sorted({wallet for wallet, _ in charges})),
            table.action_id.in_(sorted({action_id for _, action_id in charges})),
        )
    ).all()
    amounts = ((row, min(row.open_nano, charges.get((row.wallet, row.action_id), 0))) for row in found)
    released = [(row, less) for row, less in amounts if less > 0]
    ending = [(row, less, HoldState.SETTLED if less == row.open_nano else HoldState.OPEN) for row, less in released]
    _release(connection, ending, _locked(connection, tenant_id, {row.wallet for row, _ in released}), at_ns)


def _met(request: HoldRequest, known: _Known, wallet: _Wallet | None, by_key: bool) -> HoldAnswer:
    """The answer to a request whose key or action has a hold already."""
    if not by_key:
        return AlreadyHeld(known.hold_id)
    if known.request != request.text():
        return KeyReused()
    return Held(known.hold_id, wallet.available if wallet else 0, known.expires_at_ns, True)


def _affords(connection: Connection, tenant_id: int, request: HoldRequest, wallet: _Wallet, at_ns: int) -> bool:
    """Whether the wallet has enough, once what is held in vain was let go."""
    if wallet.available < request.amount_nanocredits and not wallet.swept:
        wallet.swept = True
        table = holds.c
        due = connection.execute(
            _of_tenant(tenant_id)
            .where(table.state == HoldState.OPEN, table.wallet == request.wallet, table.expires_at_ns <= at_ns)
            .limit(MOST_EXPIRED_AT_ONCE)
        ).all()
        ending = [(row, row.open_nano, HoldState.EXPIRED) for row in due]
        _release(connection, ending, {request.wallet: wallet}, at_ns)
        wallet.available += sum(row.open_nano for row in due)
    return wallet.available >= request.amount_nanocredits


def _end(connection: Connection, tenant_id: int, ending: Sequence[Row[Any]], state: HoldState, at_ns: int) -> None:
    """Give back what is open of holds that are still open once their wallets are locked."""
    wallets = _locked(connection, tenant_id, {row.wallet for row in ending})
    chosen = _of_tenant(tenant_id).where(holds.c.id.in_([row.id for row in ending]), holds.c.state == HoldState.OPEN)
    rows = connection.execute(chosen.order_by(holds.c.id)).all()
    _release(connection, [(row, row.open_nano, state) for row in rows], wallets, at_ns)


def _release(
    connection: Connection,
    releases: Iterable[tuple[Row[Any], int, HoldState]],
    wallets: Mapping[str, _Wallet],
    at_ns: int,
) -> None:
    """Take amounts out of holds, and let their wallets have them again."""
    taken, less_held = [], defaultdict[str, int](int)
    for row, less, state in releases:
        ended = None if state is HoldState.OPEN else at_ns
        taken.append({"hold": row.id, "less": less, "new_state": state, "ended": ended})
        less_held[row.wallet] += less
    if taken:
        connection.execute(_TAKE_OUT, taken)
        changes = [{"account": wallets[name].account_id, "more": -less} for name, less in sorted(less_held.items())]
        connection.execute(_ADD_HELD, changes)


def _locked(connection: Connection, tenant_id: int, names: set[str]) -> dict[str, _Wallet]:
    """The wallets of these names, locked until the end of the transaction, in the order in which all writers do."""
    if not names:
        return {}
    columns = accounts.c
    found = connection.execute(
        select(columns.id, columns.name, columns.balance_nano, columns.held_nano)
        .where(
            columns.tenant_id == tenant_id,
            columns.kind == WALLET,
            columns.commodity == Commodity.CREDIT,
            columns.name.in_(sorted(names)),
        )
        .order_by(columns.name)
        .with_for_update()
    )
    return {row.name: _Wallet(row.id, row.balance_nano - row.held_nano) for row in found}


def _earlier(
    connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest]
) -> tuple[dict[str, _Known], dict[tuple[str, str], _Known]]:
    """The holds in the books that these requests meet: by idempotency key, and by wallet and action."""
    table = holds.c
    actions = {request.action_id for request in wanted if request.action_id}
    same_action = and_(table.wallet.in_({r.wallet for r in wanted}), table.action_id.in_(sorted(actions)))
    same_key = table.idempotency_key.in_([request.idempotency_key for request in wanted])
    rows = connection.execute(_of_tenant(tenant_id).where(or_(same_key, same_action) if actions else same_key))
    keys, by_action = {}, {}
    for row in rows:
        known = _Known(row.request, row.expires_at_ns, row.id, -1)
        keys[row.idempotency_key] = known
        by_action[row.wallet, row.action_id] = known
    return keys, by_action


def _row(tenant_id: int, request: HoldRequest, at_ns: int, expires_at_ns: int) -> tuple[Any, ...]:
    return (
        tenant_id,
        request.wallet,
        request.idempotency_key,
        request.text(),
        request.event,
        request.action_id or None,
        request.amount_nanocredits,
        request.amount_nanocredits,
        HoldState.OPEN,
        at_ns,
        expires_at_ns,
    )


def _write(connection: Connection, wallets: Mapping[str, _Wallet], rows: Sequence[tuple[Any, ...]]) -> dict[str, int]:
    """Put new holds into the books; their ids by idempotency key."""
    if not rows:
        return {}
    inserted = bulk.upsert_returning(connection, "holds", _COLUMNS, " RETURNING id, idempotency_key", rows)
    changes = [
        {"account": wallet.account_id, "more": wallet.more_held}
        for _, wallet in sorted(wallets.items())
        if wallet.more_held
    ]
    connection.execute(_ADD_HELD, changes)
    return {key: hold_id for hold_id, key in inserted}


def _of_tenant(tenant_id: int) -> Select[Any]:
    return select(holds).where(holds.c.tenant_id == tenant_id)
