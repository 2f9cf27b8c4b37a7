"""Movements: every change of a wallet's credits except usage. Each happens once for its idempotency key, and stores the
memo and metadata of the request.
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
"""Payments for credits, less refunds."""

_KEY_COLUMNS = ("tenant_id", "key", "request", "transaction_id")


class Kind(StrEnum):
    """Kind of a movement."""

    DEPOSIT = "deposit"
    """Credits paid outside Farebox; use grant for free credits."""
    TOPUP = "topup"
    """Credits of a pack whose payment the provider confirmed; see `topups`."""
    GRANT = "grant"
    """Free credits."""
    PROMOTION = "promotion"
    """Free credits that are drawn before paid ones."""
    ALLOWANCE = "allowance"
    """Credits that come with a plan."""
    ADJUSTMENT = "adjustment"
    """Manual correction: positive into the wallet, negative out of it."""
    REFUND = "refund"
    """Unused credits of one lot, returned with their part of the price."""
    WITHDRAWAL = "withdrawal"
    """Unused credits of any lots, returned in the order of drawing."""
    TRANSFER = "transfer"
    """Unused credits moved to another wallet, with their price, priority and expiry."""


INCOMING = frozenset({Kind.DEPOSIT, Kind.TOPUP, Kind.GRANT, Kind.PROMOTION, Kind.ALLOWANCE})
"""Kinds that put credits into the wallet."""
PAID_IN = (Kind.DEPOSIT, Kind.TOPUP)
"""Kinds of incoming movements that a customer pays."""
GIVEN_BACK = (Kind.REFUND, Kind.WITHDRAWAL)
"""Kinds that return unused credits and their price to the customer."""
OUTGOING = frozenset({*GIVEN_BACK, Kind.TRANSFER})
"""Kinds that take unused credits out of lots."""
REQUESTABLE = tuple(kind for kind in Kind if kind is not Kind.TOPUP)
"""Kinds that a caller may request; top-ups come from payments only."""


class InvalidField(ValueError):
    """A field of a movement breaks a rule of its kind; `rule` completes a sentence that begins with the field."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}")
        self.field, self.rule = field, rule


class Movement(NamedTuple):
    """A movement to make; fields that its kind does not use keep their default."""

    kind: Kind
    wallet: str
    amount_nanocredits: int
    """Positive; an adjustment may be negative. A refund of 0 takes all that is left of the lot."""
    price_nanousd: int = 0
    """Price of a deposit."""
    lot_id: int = 0
    """The lot that a refund takes credits from."""
    to_wallet: str = ""
    """Target of a transfer."""
    priority: int = 100
    expires_at_ns: int | None = None
    memo: str = ""
    metadata: str = ""
    """JSON for reconciliation; may be empty."""
    at_list: bool = False
    """Whether a deposit states no price: its price is then the list price of its credits."""
    pack: str = ""
    """The pack of a top-up."""

    def request(self) -> str:
        """Return the text to compare with an earlier request under the same key."""
        if self._replace(at_list=False) == Movement(Kind.DEPOSIT, self.wallet, self.amount_nanocredits, memo=self.memo):
            # The form from before other kinds existed; stored requests have it.
            words = {"deposit": self.wallet, "amount_nanocredits": self.amount_nanocredits, "memo": self.memo}
            return json.dumps(words)
        return json.dumps({name: value for name, value in self._asdict().items() if name not in ("at_list", "pack")})


def require_valid(movement: Movement, now_ns: int) -> None:
    """Raise InvalidField for the first field that the movement's kind does not allow, or lacks."""
    kind, expires_at_ns = movement.kind, movement.expires_at_ns
    if kind not in REQUESTABLE:
        raise InvalidField("kind", f"must be one of {', '.join(REQUESTABLE)}")
    require_valid_amount(movement)
    if movement.price_nanousd < 0 or (movement.price_nanousd and kind is not Kind.DEPOSIT):
        raise InvalidField("price_nanousd", "is allowed only for deposits and must not be negative")
    if (kind is Kind.TRANSFER) != bool(movement.to_wallet) or movement.to_wallet == movement.wallet:
        raise InvalidField(
            "to_wallet", "is allowed only for transfers, which need it, and must name a different wallet"
        )
    if (kind is Kind.REFUND) != bool(movement.lot_id):
        raise InvalidField("lot_id", "is required for refunds and invalid otherwise")
    if expires_at_ns is not None and expires_at_ns <= now_ns:
        raise InvalidField("expires_at_ns", "must be in the future")


def require_valid_amount(movement: Movement) -> None:
    """Raise InvalidField for an amount that the movement's kind does not allow."""
    amount, kind = movement.amount_nanocredits, movement.kind
    if amount < 0 and kind is not Kind.ADJUSTMENT:
        raise InvalidField("amount_nanocredits", "must be positive; only adjustments can be negative")
    if not amount and kind is not Kind.REFUND:
        raise InvalidField("amount_nanocredits", "must not be 0; only refunds can leave it out, for all of the lot")


class Moved(NamedTuple):
    """A movement in the books."""

    transaction_id: int
    balance_nanocredits: int
    """Balance of the wallet after the movement."""
    amount_nanocredits: int
    """Positive into the wallet, negative out of it."""
    lot_id: int | None
    """The new lot, if the movement made one."""
    repeated: bool
    """True if the same movement was made before under this key; nothing changed."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before for a different request."""


class NotEnough(Exception):
    """The wallet or lot has too few credits; the message names which."""


class NoSuchLot(Exception):
    """The wallet has no such lot."""


class NoSuchWallet(Exception):
    """The wallet was neither funded nor charged yet, or its name was erased."""


def move(
    connection: Connection,
    tenant_id: int,
    movement: Movement,
    idempotency_key: str,
    at_ns: int,
    *,
    strict: bool = False,
) -> Moved:
    """Move credits, once for each key. If `strict`, only incoming movements create wallets.

    Raises InvalidField, IdempotencyConflict, NotEnough, NoSuchLot, NoSuchWallet (for an erased name too), and
    AmountError where the tenant's sums would exceed their range. The key is claimed before anything is posted: of two
    concurrent requests the second waits, then finds the key taken.
    """
    amount = movement.amount_nanocredits
    require_valid_amount(movement)
    if max(abs(amount), movement.price_nanousd) > MAX_MOVEMENT_NANO:
        raise AmountError("too large: a movement has at most 4,611,686,018 credits, for at most as many dollars")
    if balance(connection, tenant_id, RECEIPTS_ACCOUNT) + movement.price_nanousd > MAX_SUM_NANO:
        raise AmountError("too large: total receipts of the tenant would be out of range")
    if balance(connection, tenant_id, ISSUED_ACCOUNT) - amount < -MAX_SUM_NANO:
        raise AmountError("too large: total credits of the tenant would be out of range")
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
        raise AmountError("too large: the list price of these credits is out of range; state price_usd")
    return price


def carry_out(transaction: LedgerTransaction, movement: Movement) -> Moved:
    """Make a movement in a transaction that has begun. The caller ensures that it happens once.

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
        raise NoSuchWallet(f"no such wallet: {name} was neither paid into nor charged yet")


def _legs(movement: Movement, transaction_id: int, wallets: dict[str, WalletLots]) -> tuple[int, int | None, list[Leg]]:
    """Change the lots; returns the nanocredits moved, the id of a new lot, and the legs to post."""
    wallet, amount = wallets[movement.wallet], movement.amount_nanocredits
    if movement.kind in INCOMING or (movement.kind is Kind.ADJUSTMENT and amount > 0):
        lot = NewLot(
            movement.kind,
            amount,
            movement.price_nanousd,
            movement.priority,
            movement.kind is Kind.PROMOTION,
            movement.expires_at_ns,
            movement.pack,
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
            terms = (row.priority, bool(row.promotional), row.expires_at_ns, row.pack)
            added = NewLot(Kind.TRANSFER, credits, price, *terms)
            other.add(added, transaction_id)
        return -out, None, [Leg(wallet_account(movement.wallet), -out), Leg(wallet_account(movement.to_wallet), out)]
    returned = sum(price for _, _, price in parts)
    legs = [Leg(wallet_account(movement.wallet), -out), Leg(ISSUED_ACCOUNT, out)]
    return -out, None, [*legs, Leg(DEFERRED_ACCOUNT, returned), Leg(RECEIPTS_ACCOUNT, -returned)]


def _taken(movement: Movement, wallet: WalletLots) -> list[tuple[Lot, int, int]]:
    """Take unused credits out of the wallet's lots, never credits on hold. Raises NotEnough and NoSuchLot."""
    amount = movement.amount_nanocredits
    if movement.kind is Kind.REFUND:
        left = wallet.left_of(movement.lot_id)
        if left is None:
            raise NoSuchLot(f"wallet {movement.wallet} has no lot {movement.lot_id}")
        amount = amount or left
        if not amount or amount > left:
            raise NotEnough("the lot has less than that left; used credits cannot be refunded")
    if amount > wallet.available():
        raise NotEnough("the wallet has less than that available; credits on hold cannot be taken")
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
    """Return metadata as stored. Raises ValueError for more than 4,000 characters."""
    text = json.dumps(metadata, sort_keys=True) if metadata else ""
    if len(text) > 4_000:
        raise ValueError("must have at most 4,000 characters of JSON")
    return text
