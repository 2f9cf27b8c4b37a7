"""Movements of credits into and out of wallets, other than usage, and the resulting lots."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema
from sqlalchemy import Connection

from farebox_collector.ledger.approvals.changes import movement_proposal
from farebox_collector.ledger.approvals.proposals import require_approval
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import (
    REQUESTABLE,
    IdempotencyConflict,
    InvalidField,
    Kind,
    Moved,
    Movement,
    NoSuchLot,
    NoSuchWallet,
    NotEnough,
    metadata_text,
    move,
    require_valid,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.surfaces.api.approvals import WAITS
from farebox_collector.surfaces.api.callers import OwnWallet
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
    moment_ns,
    wallet_name,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

MovementType = Annotated[Kind, WithJsonSchema({"type": "string", "enum": [str(kind) for kind in REQUESTABLE]})]

_FIELDS = {
    "kind": "type",
    "amount_nanocredits": "amount_credits",
    "price_nanousd": "price_usd",
    "expires_at_ns": "expires_at",
}
"""Fields of a movement that the API calls otherwise."""


class MovementWanted(BaseModel):
    """Credits to move."""

    model_config = ConfigDict(extra="forbid")

    type: MovementType
    amount_credits: str = Field(
        "",
        description="Decimal; may be negative for an adjustment, empty for a refund of the whole remainder.",
    )
    price_usd: str = Field(
        "",
        description="The price paid for a deposit; empty for the list price of its credits.",
    )
    lot_id: int = Field(0, ge=0, lt=2**63, description="The lot that a refund takes from.")
    to_wallet: str = Field("", description="The receiving wallet of a transfer.")
    priority: int = Field(100, ge=0, le=1_000, description="Lots with a lower number are drawn first.")
    expires_at: AwareDatetime | None = Field(None, description="When incoming credits expire.")
    memo: Name = Field("", max_length=500, description="A note, shown in the ledger.")
    metadata: dict[str, Any] = Field({}, description="For reconciliation; at most 4,000 characters of JSON.")


class MovementMade(BaseModel):
    """A movement in the books."""

    transaction_id: int
    type: MovementType
    wallet: str
    amount_credits: Amount = Field(description="Positive into the wallet, negative out of it.")
    balance_credits: Amount
    lot_id: int | None = Field(description="The lot added to the wallet.")


class LotShown(BaseModel):
    """A lot: credits of one origin, with their use so far."""

    lot_id: int
    origin: str
    amount_credits: Amount
    remaining_credits: Amount
    price_usd: Amount = Field(description="The price paid for the whole lot.")
    recognised_usd: Amount = Field(
        description="The part of the price recognised as revenue, from used or expired credits."
    )
    returned_usd: Amount = Field(description="The part of the price refunded or removed with unused credits.")
    priority: int
    promotional: bool
    expires_at: str | None
    created_at: str


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/wallets for movements and lots."""
    routes = APIRouter(prefix="/v1/wallets", tags=["wallets"], responses=RESPONSES)

    @routes.post("/{wallet:name}/movements", status_code=201, responses=WAITS)
    def make_movement(
        wallet: str,
        wanted: MovementWanted,
        response: Response,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    ) -> MovementMade:
        """Grant, refund, adjust, withdraw, transfer or deposit credits, once per Idempotency-Key."""
        movement = _movement(wallet_name(wallet), wanted, context.clock())
        made = _move(context, movement, idempotency_key)
        if made.repeated:
            response.headers["Idempotent-Replayed"] = "true"
        return MovementMade(
            transaction_id=made.transaction_id,
            type=wanted.type,
            wallet=movement.wallet,
            amount_credits=format_nano(made.amount_nanocredits),
            balance_credits=format_nano(made.balance_nanocredits),
            lot_id=made.lot_id,
        )

    @routes.get("/{wallet:name}/lots")
    def list_lots(wallet: OwnWallet, cursor: Cursor = None, limit: Limit = 100) -> Page[LotShown]:
        """List a wallet's lots, oldest first, up to date."""
        name = wallet_name(wallet)
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            known = lots_of(connection, context.tenant_id, name, 0, 1)
        if known:
            context.database.transact(lambda connection: draw_up(connection, context.tenant_id, name, context.clock()))
        with context.database.reading() as connection:
            rows = lots_of(connection, context.tenant_id, name, after, limit + 1)
        return page(rows, limit, show_lot, lambda row: (row.id,))

    return routes


def _move(context: Context, movement: Movement, key: str) -> Moved:
    def put(connection: Connection) -> Moved:
        made = move(connection, context.tenant_id, movement, key, context.clock(), strict=context.strict)
        if not made.repeated:
            require_approval(connection, context.tenant_id, movement_proposal(movement, made.amount_nanocredits, key))
        return made

    try:
        return context.database.transact(put)
    except IdempotencyConflict:
        raise ApiError(409, "this Idempotency-Key was already used for another movement") from None
    except NotEnough as error:
        raise ApiError(409, str(error)) from None
    except (NoSuchLot, NoSuchWallet) as error:
        raise ApiError(404, str(error)) from None
    except AmountError as error:
        raise ApiError(422, f"amount_credits: {error}") from None


def _movement(wallet: str, wanted: MovementWanted, now_ns: int) -> Movement:
    """Build the requested movement. Raises ApiError 422 for fields that its kind does not allow, or lacks."""
    try:
        price, metadata = parse_nano(wanted.price_usd or "0"), metadata_text(wanted.metadata)
    except AmountError as error:
        raise ApiError(422, f"price_usd: {error}") from None
    except ValueError as error:
        raise ApiError(422, f"metadata: {error}") from None
    movement = Movement(
        wanted.type,
        wallet,
        _amount(wanted.type, wanted.amount_credits),
        price,
        wanted.lot_id,
        wallet_name(wanted.to_wallet) if wanted.to_wallet else "",
        wanted.priority,
        None if wanted.expires_at is None else moment_ns(wanted.expires_at),
        wanted.memo,
        metadata,
        at_list=wanted.type is Kind.DEPOSIT and not wanted.price_usd,
    )
    try:
        require_valid(movement, now_ns)
    except InvalidField as error:
        raise ApiError(422, f"{_FIELDS.get(error.field, error.field)}: {error.rule}") from None
    return movement


def _amount(kind: Kind, text: str) -> int:
    if kind is Kind.REFUND and not text:
        return 0
    try:
        amount = parse_nano(text)
    except AmountError as error:
        raise ApiError(422, f"amount_credits: {error}") from None
    if not amount:
        raise ApiError(422, "amount_credits: must not be 0; leave it empty to refund all that is left of a lot")
    return amount


def show_lot(row: Any) -> LotShown:
    """Convert a row of `lots` to its API model."""
    return LotShown(
        lot_id=row.id,
        origin=row.origin,
        amount_credits=format_nano(row.amount_nano),
        remaining_credits=format_nano(row.remaining_nano),
        price_usd=format_nano(row.price_nanousd),
        recognised_usd=format_nano(row.recognised_nanousd),
        returned_usd=format_nano(row.returned_nanousd),
        priority=row.priority,
        promotional=bool(row.promotional),
        expires_at=None if row.expires_at_ns is None else format_ns(row.expires_at_ns),
        created_at=format_ns(row.created_at_ns),
    )
