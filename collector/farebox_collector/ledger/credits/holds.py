"""Holds: credits of a wallet reserved for an action before it spends any.

A wallet can reserve its balance less existing holds. Every change of a hold happens under the lock of the wallet's
account, so that holds never exceed the balance, on any number of replicas. Policies set further limits (`limits`) and
decide which wallets may go below zero.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, bindparam, case, or_, update

from farebox_collector.ledger.access.erased import is_erased
from farebox_collector.ledger.credits.hold_release import (
    HoldState,
    LockedWallet,
    end_expired,
    holds_of_tenant,
    locked_wallets,
    standing_of,
)
from farebox_collector.ledger.credits.limit_watch import report_limits
from farebox_collector.ledger.credits.limits import LimitReached, Limits, Wanted
from farebox_collector.ledger.credits.lot_rows import wallets_with_expired_lots
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.spending import IS_OPEN, add_held
from farebox_collector.ledger.journal.journal import note_activity
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import holds

_COLUMNS = (
    "tenant_id",
    "wallet",
    "user_id",
    "dept",
    "project",
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
_TAKE = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(
        held_nano=accounts.c.held_nano + bindparam("more"),
        holds_until_ns=case(
            (accounts.c.holds_until_ns < bindparam("until"), bindparam("until")), else_=accounts.c.holds_until_ns
        ),
    )
)


class HoldRequest(NamedTuple):
    """A request for a hold."""

    wallet: str
    amount_nanocredits: int
    idempotency_key: str
    event: str
    action_id: str
    """May be empty; then no charge settles the hold."""
    expires_in_s: int
    user_id: str = ""
    """The user who spends, if several share the wallet."""
    dept: str = ""
    project: str = ""

    def text(self) -> str:
        """Return the text to compare with an earlier request under the same key."""
        words = list(self._replace(idempotency_key=""))
        # The form from before users, departments and projects; stored requests have it.
        return json.dumps(words if any(words[_NAMED]) else words[: _NAMED.start])

    @property
    def counted(self) -> Wanted:
        """The part of the request that limits check."""
        return Wanted(self.wallet, self.amount_nanocredits, self.user_id, self.dept, self.project)


_NAMED = slice(6, 9)


class Held(NamedTuple):
    """A granted hold."""

    hold_id: int
    available_nanocredits: int
    """Credits of the wallet that further holds can reserve."""
    expires_at_ns: int
    repeated: bool
    """True if the same request was answered before; nothing changed."""
    passed: tuple[LimitReached, ...] = ()
    """Soft limits that the hold exceeds; for a repeated request, as of now."""


class Insufficient(NamedTuple):
    """The wallet has fewer credits available than requested."""

    available_nanocredits: int
    known: bool
    """False for a wallet that was neither funded nor charged yet."""


class AlreadyHeld(NamedTuple):
    """The action already has a hold."""

    hold_id: int


class KeyReused(NamedTuple):
    """The idempotency key was used before for a different request."""


class HoldEnded(NamedTuple):
    """The same request was granted before and its hold has ended; nothing is reserved."""

    hold_id: int
    state: HoldState
    ended_at_ns: int


class WalletErased(NamedTuple):
    """The name of the wallet was erased and must not enter the books again."""


Refusal = Insufficient | LimitReached | AlreadyHeld | KeyReused | HoldEnded | WalletErased
HoldAnswer = Held | Refusal


class _Wallet:
    """A locked wallet."""

    def __init__(self, locked: LockedWallet) -> None:
        self.locked = locked
        self.available = locked.balance_nano - locked.held_nano
        self.more_held = 0
        self.until_ns = 0

    def take(self, amount: int, expires_at_ns: int) -> None:
        self.available -= amount
        self.more_held += amount
        self.until_ns = max(self.until_ns, expires_at_ns)


class _Known(NamedTuple):
    """A hold with the key or action of a request: from the books, or granted earlier in this group."""

    request: str
    expires_at_ns: int
    hold_id: int
    open_nano: int
    """Amount still reserved; unused for a hold of this group."""
    place: int
    """Index of the request in this group, whose hold has no id yet; -1 for a hold from the books."""
    ended: HoldEnded | None = None


def take_holds(
    connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest], at_ns: int, *, strict: bool = False
) -> list[HoldAnswer]:
    """Take holds for one tenant, in the order of requests. Returns an answer for each request, in order.

    Creates a wallet that does not exist if a policy lets it go below zero, unless `strict`.
    """
    wallets, limits = _wallets_and_limits(connection, tenant_id, wanted, at_ns, strict)
    keys, actions = _earlier(connection, tenant_id, wanted, at_ns)
    answers: list[HoldAnswer] = []
    rows: list[tuple[Any, ...]] = []
    later: list[tuple[int, int]] = []
    for place, request in enumerate(wanted):
        wallet = wallets.get(request.wallet)
        action = (request.wallet, request.action_id)
        known = keys.get(request.idempotency_key) or (actions.get(action) if request.action_id else None)
        if known is not None:
            answers.append(_answer_known(request, known, wallet, known is keys.get(request.idempotency_key), limits))
            if known.place >= 0:
                later.append((place, known.place))
            continue
        if wallet is None:
            erased = is_erased(connection, tenant_id, request.wallet)
            answers.append(WalletErased() if erased else Insufficient(0, False))
            continue
        refusal = _refusal(request, wallet, limits)
        if refusal is not None:
            answers.append(refusal)
            continue
        passed_limits = limits.passed(request.counted)
        made = _Known(request.text(), at_ns + request.expires_in_s * 10**9, 0, 0, place)
        wallet.take(request.amount_nanocredits, made.expires_at_ns)
        limits.take(request.counted)
        keys[request.idempotency_key] = actions[action] = made
        answers.append(Held(0, wallet.available, made.expires_at_ns, False, passed_limits))
        rows.append(_row(tenant_id, request, at_ns, made.expires_at_ns))
    ids = _write(connection, tenant_id, wallets, limits, rows)
    passed = [one for answer in answers if isinstance(answer, Held) and not answer.repeated for one in answer.passed]
    report_limits(connection, tenant_id, passed, at_ns)
    for place, answer in enumerate(answers):
        if isinstance(answer, Held) and not answer.repeated:
            answers[place] = answer._replace(hold_id=ids[wanted[place].idempotency_key])
    for place, of in later:
        answer, first = answers[place], answers[of]
        assert isinstance(first, Held)
        if isinstance(answer, Held):
            answers[place] = answer._replace(hold_id=first.hold_id, passed=first.passed)
        elif isinstance(answer, AlreadyHeld):
            answers[place] = answer._replace(hold_id=first.hold_id)
    return answers


def hold(connection: Connection, tenant_id: int, hold_id: int) -> Row[Any] | None:
    """Return a hold; None if there is none."""
    return connection.execute(holds_of_tenant(tenant_id).where(holds.c.id == hold_id)).first()


def holds_of(
    connection: Connection,
    tenant_id: int,
    wallet: str,
    state: str,
    before_id: int | None,
    limit: int,
    at_ns: int | None = None,
) -> Sequence[Row[Any]]:
    """Return holds, newest first; an empty wallet or state does not filter.

    With `at_ns`, a hold past its expiry counts as expired even before the sweep closes it.
    """
    table = holds.c
    query = holds_of_tenant(tenant_id).order_by(table.id.desc()).limit(limit)
    if wallet:
        query = query.where(table.wallet == wallet)
    if state and at_ns is not None and state in (HoldState.OPEN, HoldState.EXPIRED):
        over = and_(IS_OPEN, table.expires_at_ns <= at_ns)
        query = query.where(or_(table.state == state, over) if state == HoldState.EXPIRED else and_(IS_OPEN, ~over))
    elif state:
        query = query.where(table.state == state)
    if before_id is not None:
        query = query.where(table.id < before_id)
    return connection.execute(query).all()


def _answer_known(
    request: HoldRequest, known: _Known, wallet: _Wallet | None, by_key: bool, limits: Limits
) -> HoldAnswer:
    """Return the answer to a request whose key or action already has a hold."""
    if not by_key:
        return AlreadyHeld(known.hold_id)
    if known.request != request.text():
        return KeyReused()
    if known.ended is not None:
        return known.ended
    held = request.counted._replace(amount_nanocredits=known.open_nano)
    passed = limits.passed(held, counted_nano=known.open_nano)
    return Held(known.hold_id, wallet.available if wallet else 0, known.expires_at_ns, True, passed)


def _wallets_and_limits(
    connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest], at_ns: int, strict: bool
) -> tuple[dict[str, _Wallet], Limits]:
    """Lock the wallets and read the limits of the requests."""
    names = {request.wallet for request in wanted}
    locked = locked_wallets(connection, tenant_id, names)
    expired = wallets_with_expired_lots(connection, tenant_id, locked, at_ns)
    if expired:
        # Expired credits are never reserved, even if upkeep is late.
        for name in expired:
            draw_up(connection, tenant_id, name, at_ns)
        locked |= locked_wallets(connection, tenant_id, set(expired))
    locked, released = end_expired(connection, tenant_id, locked, at_ns)
    unknown = names - locked.keys()
    if not unknown and not any(wallet.limited for wallet in locked.values()):
        add_held(connection, tenant_id, {subject: -less for subject, less in released.items()})
        return {name: _Wallet(wallet) for name, wallet in locked.items()}, Limits.none()
    held = {name: wallet.held_nano for name, wallet in locked.items()}
    limits = Limits.of(connection, tenant_id, [request.counted for request in wanted], held, at_ns, released)
    new = frozenset(
        name
        for name in unknown
        if not strict and not limits.stops_at_the_balance(name) and not is_erased(connection, tenant_id, name)
    )
    if new:
        note_activity(connection, tenant_id, new, at_ns)
        locked |= locked_wallets(connection, tenant_id, set(new))
    return {name: _Wallet(wallet) for name, wallet in locked.items()}, limits


def _refusal(request: HoldRequest, wallet: _Wallet, limits: Limits) -> Insufficient | LimitReached | None:
    if wallet.available < request.amount_nanocredits and limits.stops_at_the_balance(request.wallet):
        return Insufficient(wallet.available, True)
    return limits.reached(request.counted)


def _earlier(
    connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest], at_ns: int
) -> tuple[dict[str, _Known], dict[tuple[str, str], _Known]]:
    """Return the stored holds of these requests: by idempotency key, and by wallet and action."""
    table = holds.c
    actions = {request.action_id for request in wanted if request.action_id}
    same_action = and_(table.wallet.in_({r.wallet for r in wanted}), table.action_id.in_(sorted(actions)))
    same_key = table.idempotency_key.in_([request.idempotency_key for request in wanted])
    rows = connection.execute(holds_of_tenant(tenant_id).where(or_(same_key, same_action) if actions else same_key))
    keys, by_action = {}, {}
    for row in rows:
        state, open_nano, ended_at_ns = standing_of(row, at_ns)
        ended = None if state is HoldState.OPEN else HoldEnded(row.id, state, ended_at_ns or at_ns)
        known = _Known(row.request, row.expires_at_ns, row.id, open_nano, -1, ended)
        keys[row.idempotency_key] = known
        by_action[row.wallet, row.action_id] = known
    return keys, by_action


def _row(tenant_id: int, request: HoldRequest, at_ns: int, expires_at_ns: int) -> tuple[Any, ...]:
    return (
        tenant_id,
        request.wallet,
        request.user_id,
        request.dept,
        request.project,
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


def _write(
    connection: Connection,
    tenant_id: int,
    wallets: Mapping[str, _Wallet],
    limits: Limits,
    rows: Sequence[tuple[Any, ...]],
) -> dict[str, int]:
    """Insert new holds; returns their ids by idempotency key."""
    if not rows:
        return {}
    inserted = bulk_insert.upsert_returning(connection, "holds", _COLUMNS, " RETURNING id, idempotency_key", rows)
    changes = [
        {"account": wallet.locked.account_id, "more": wallet.more_held, "until": wallet.until_ns}
        for _, wallet in sorted(wallets.items())
        if wallet.more_held
    ]
    connection.execute(_TAKE, changes)
    limits.write(connection, tenant_id)
    return {key: hold_id for hold_id, key in inserted}
