"""Movements: everything that puts credits into wallets and takes them out again, but for usage. Each happens once for
its idempotency key, and keeps what the business says about it.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.access.tenants import usd_per_credit_of
from farebox_collector.ledger.credits.credit_totals import add_credits
from farebox_collector.ledger.credits.lot import Lot, NewLot
from farebox_collector.ledger.credits.lots import DEFERRED_ACCOUNT, WalletLots
from farebox_collector.ledger.journal.journal import (
    ISSUED_ACCOUNT,
    WALLET,
    Account,
    LedgerTransaction,
    Leg,
    balance,
    begin,
    wallet_account,
)
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts, postings
from farebox_collector.ledger.tables.credits import idempotency_keys, lots
from farebox_collector.model.money import (
    MAX_MOVEMENT_NANO,
    MAX_NANO,
    MAX_SUM_NANO,
    AmountError,
    Commodity,
    round_half_even,
)

RECEIPTS_ACCOUNT = Account("receipts", "", Commodity.USD)
"""What customers paid for credits, less what they got back."""

_KEY_COLUMNS = ("tenant_id", "key", "request", "transaction_id")


class Kind(StrEnum):
    """What a movement is."""

    DEPOSIT = "deposit"
    """Credits that were paid for by a rail of one's own; given ones are a grant."""
    TOPUP = "topup"
    """Credits of a pack that a payment provider says was paid; see `topups`."""
    GRANT = "grant"
    """Credits that were given."""
    PROMOTION = "promotion"
    """Credits that were given, and are drawn before those that were paid for."""
    ALLOWANCE = "allowance"
    """Credits that come with a plan."""
    ADJUSTMENT = "adjustment"
    """Credits put right by hand: positive into the wallet, negative out of it."""
    REFUND = "refund"
    """Unused credits of one lot that go back, with their part of what was paid."""
    WITHDRAWAL = "withdrawal"
    """Unused credits of any lots that go back, in the order of drawing."""
    TRANSFER = "transfer"
    """Unused credits that go to another wallet, with their origin, price and expiry."""


INCOMING = frozenset({Kind.DEPOSIT, Kind.TOPUP, Kind.GRANT, Kind.PROMOTION, Kind.ALLOWANCE})


class Movement(NamedTuple):
    """What is to be moved; fields that its kind has no use for keep their default."""

    kind: Kind
    wallet: str
    amount_nanocredits: int
    """Positive; of an adjustment also negative. Of a refund 0 is all that is left of the lot."""
    price_nanousd: int = 0
    """What was paid, for a deposit."""
    lot_id: int = 0
    """Whose credits a refund takes."""
    to_wallet: str = ""
    """Where a transfer goes."""
    priority: int = 100
    expires_at_ns: int | None = None
    memo: str = ""
    metadata: str = ""
    """JSON of what the business says about it; empty for nothing."""
    at_list: bool = False
    """Whether a deposit's price is not said: it is worth what its credits sell for at that moment."""

    def request(self) -> str:
        """What is compared with an earlier request under the same key."""
        if self._replace(at_list=False) == Movement(Kind.DEPOSIT, self.wallet, self.amount_nanocredits, memo=self.memo):
            # As it was written before there were other kinds.
            words = {"deposit": self.wallet, "amount_nanocredits": self.amount_nanocredits, "memo": self.memo}
            return json.dumps(words)
        return json.dumps({name: value for name, value in self._asdict().items() if name != "at_list"})


class Moved(NamedTuple):
    """A movement in the books."""

    transaction_id: int
    balance_nanocredits: int
    """What the wallet has now."""
    amount_nanocredits: int
    """What was moved: into the wallet, or as a negative figure out of it."""
    lot_id: int | None
    """The lot that came into the wallet."""
    repeated: bool
    """True when this key had been used for this very movement before, and nothing changed."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before, for another request."""


class NotEnough(Exception):
    """There are not as many credits to take out; the message says where."""


class NoSuchLot(Exception):
    """The wallet has no such lot."""


class NoSuchWallet(Exception):
    """Nobody has paid into the wallet yet, nor charged it."""


def move(
    connection: Connection,
    tenant_id: int,
    movement: Movement,
    idempotency_key: str,
    at_ns: int,
    *,
    strict: bool = False,
) -> Moved:
    """Move credits, once for each key; where `strict`, wallets come into being by being paid into only.

    Raises IdempotencyConflict, NotEnough, NoSuchLot, NoSuchWallet (for an erased name too), and AmountError where the
    tenant's sums would no longer fit the books. The key is claimed before anything is posted, so that of two at once
    one waits and then finds it taken.
    """
    amount = movement.amount_nanocredits
    if (amount < 0 and movement.kind is not Kind.ADJUSTMENT) or (not amount and movement.kind is not Kind.REFUND):
        raise ValueError("the amount of a movement is positive")
    if max(abs(amount), movement.price_nanousd) > MAX_MOVEMENT_NANO:
        raise AmountError("too large: a movement has at most 4,611,686,018 credits, for at most as many dollars")
    if balance(connection, tenant_id, RECEIPTS_ACCOUNT) + movement.price_nanousd > MAX_SUM_NANO:
        raise AmountError("too large: all that was paid together would be out of range")
    if balance(connection, tenant_id, ISSUED_ACCOUNT) - amount < -MAX_SUM_NANO:
        raise AmountError("too large: all deposits together would be out of range")
    transaction = begin(connection, tenant_id, movement.kind, at_ns, movement.memo)
    claim = (tenant_id, idempotency_key, movement.request(), transaction.id)
    if not bulk_insert.insert_ignoring_conflicts(
        connection, "idempotency_keys", _KEY_COLUMNS, [claim], on=("tenant_id", "key")
    ):
        transaction.abandon()
        return _earlier(connection, tenant_id, idempotency_key, movement)
    if is_erased(connection, tenant_id, movement.wallet, movement.to_wallet):
        raise NoSuchWallet(ERASED)
    if strict and movement.kind not in INCOMING:
        _require_wallets(connection, tenant_id, sorted({movement.wallet, movement.to_wallet} - {""}))
    if movement.at_list:
        movement = movement._replace(price_nanousd=_list_price(connection, tenant_id, amount), at_list=False)
    return carry_out(transaction, movement)


def _list_price(connection: Connection, tenant_id: int, amount_nanocredits: int) -> int:
    rate = Fraction(usd_per_credit_of(connection, tenant_id))
    price = round_half_even(amount_nanocredits * rate.numerator, rate.denominator)
    if price > MAX_NANO:
        raise AmountError("too large: what these credits sell for is out of range; say price_usd")
    return price


def carry_out(transaction: LedgerTransaction, movement: Movement) -> Moved:
    """Make a movement in a transaction that was begun; the caller sees to it that it happens once.

    Raises NotEnough and NoSuchLot.
    """
    connection, tenant_id, transaction_id, _, at_ns = transaction
    if movement.metadata:
        transaction.describe(movement.metadata)
    names = sorted({movement.wallet, movement.to_wallet} - {""})
    wallets = {name: WalletLots(connection, tenant_id, name, at_ns) for name in names}
    moved, lot_id, legs = _legs(movement, transaction_id, wallets)
    active = frozenset(names)
    transaction.post([leg for leg in legs if leg.amount_nano], active=active)
    for wallet in wallets.values():
        wallet.close()
    if moved > 0:
        add_credits(connection, tenant_id, movement.kind, moved)
    _note_movement(connection, tenant_id, movement, transaction_id, wallets[movement.wallet].balance - moved, at_ns)
    return Moved(transaction_id, wallets[movement.wallet].balance, moved, lot_id, False)


def _note_movement(
    connection: Connection, tenant_id: int, movement: Movement, transaction_id: int, before_nano: int, at_ns: int
) -> None:
    facts = {name: value for name, value in movement._asdict().items() if value and name not in ("kind", "wallet")}
    note(
        connection,
        tenant_id,
        f"movement.{movement.kind}",
        movement.wallet,
        at_ns,
        before={"balance_nanocredits": before_nano},
        after={**facts, "transaction_id": transaction_id},
    )


def _require_wallets(connection: Connection, tenant_id: int, names: Sequence[str]) -> None:
    account = accounts.c
    chosen = select(account.name).where(
        account.tenant_id == tenant_id, account.kind == WALLET, account.name.in_(sorted(names))
    )
    for name in sorted(set(names) - set(connection.execute(chosen).scalars())):
        raise NoSuchWallet(f"wallet {name} is not known: it was neither paid into nor charged yet")


def _legs(movement: Movement, transaction_id: int, wallets: dict[str, WalletLots]) -> tuple[int, int | None, list[Leg]]:
    """Move the lots: what came into the wallet, its new lot, and the legs."""
    wallet, amount = wallets[movement.wallet], movement.amount_nanocredits
    if movement.kind in INCOMING or (movement.kind is Kind.ADJUSTMENT and amount > 0):
        lot = NewLot(
            movement.kind,
            amount,
            movement.price_nanousd,
            movement.priority,
            movement.kind is Kind.PROMOTION,
            movement.expires_at_ns,
        )
        lot_id = wallet.add(lot, transaction_id)
        paid = movement.price_nanousd
        legs = [Leg(wallet_account(movement.wallet), amount), Leg(ISSUED_ACCOUNT, -amount)]
        return amount, lot_id, [*legs, Leg(RECEIPTS_ACCOUNT, paid), Leg(DEFERRED_ACCOUNT, -paid)]
    if movement.kind is Kind.ADJUSTMENT:
        wallet.use(-amount)
        return amount, None, [Leg(wallet_account(movement.wallet), amount), Leg(ISSUED_ACCOUNT, -amount)]
    parts = _taken(movement, wallet)
    out = sum(credits for _, credits, _ in parts)
    if movement.kind is Kind.TRANSFER:
        other = wallets[movement.to_wallet]
        for source, credits, price in parts:
            row = source.row
            came = NewLot(Kind.TRANSFER, credits, price, row.priority, bool(row.promotional), row.expires_at_ns)
            other.add(came, transaction_id)
        return -out, None, [Leg(wallet_account(movement.wallet), -out), Leg(wallet_account(movement.to_wallet), out)]
    back = sum(price for _, _, price in parts)
    legs = [Leg(wallet_account(movement.wallet), -out), Leg(ISSUED_ACCOUNT, out)]
    return -out, None, [*legs, Leg(DEFERRED_ACCOUNT, back), Leg(RECEIPTS_ACCOUNT, -back)]


def _taken(movement: Movement, wallet: WalletLots) -> list[tuple[Lot, int, int]]:
    """Unused credits out of the wallet's lots, never those on hold. Raises NotEnough and NoSuchLot."""
    amount = movement.amount_nanocredits
    if movement.kind is Kind.REFUND:
        left = wallet.left_of(movement.lot_id)
        if left is None:
            raise NoSuchLot(f"wallet {movement.wallet} has no lot {movement.lot_id}")
        amount = amount or left
        if not amount or amount > left:
            raise NotEnough("the lot has less than that left: what was used cannot be refunded")
    if amount > wallet.available():
        raise NotEnough("the wallet has less than that available")
    try:
        return wallet.take(amount, movement.kind, movement.lot_id or None)
    except ValueError as error:
        raise NotEnough(str(error)) from None


def _earlier(connection: Connection, tenant_id: int, idempotency_key: str, movement: Movement) -> Moved:
    keys = idempotency_keys.c
    earlier = connection.execute(
        select(keys.request, keys.transaction_id).where(keys.tenant_id == tenant_id, keys.key == idempotency_key)
    ).one()
    if earlier.request != movement.request():
        raise IdempotencyConflict(idempotency_key)
    lot_id = connection.execute(
        select(lots.c.id).where(lots.c.transaction_id == earlier.transaction_id, lots.c.wallet == movement.wallet)
    ).scalar()
    left = balance(connection, tenant_id, wallet_account(movement.wallet))
    moved = _moved_by(connection, tenant_id, int(earlier.transaction_id), movement.wallet)
    return Moved(int(earlier.transaction_id), left, moved, lot_id, True)


def _moved_by(connection: Connection, tenant_id: int, transaction_id: int, wallet: str) -> int:
    leg, account = postings.c, accounts.c
    amount = connection.execute(
        select(func.coalesce(func.sum(leg.amount_nano), 0))
        .join(accounts, account.id == leg.account_id)
        .where(
            leg.transaction_id == transaction_id,
            account.tenant_id == tenant_id,
            account.kind == WALLET,
            account.name == wallet,
        )
    ).scalar_one()
    return int(amount)


def metadata_text(metadata: dict[str, Any]) -> str:
    """Metadata as it is kept. Raises ValueError for more than 4,000 characters."""
    text = json.dumps(metadata, sort_keys=True) if metadata else ""
    if len(text) > 4_000:
        raise ValueError("metadata has at most 4,000 characters of JSON")
    return text
