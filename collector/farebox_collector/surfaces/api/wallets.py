"""Wallets: balance, spending and deposits."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.approvals.changes import movement_proposal
from farebox_collector.ledger.approvals.proposals import require_approval
from farebox_collector.ledger.credits.deposits import Deposited, IdempotencyConflict, deposit
from farebox_collector.ledger.credits.movements import Kind, Movement, NoSuchWallet
from farebox_collector.ledger.reports import statements
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.surfaces.api.approvals import WAITS
from farebox_collector.surfaces.api.callers import OwnWallet
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
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


class Wallet(BaseModel):
    """The prepaid credits of a customer, user or team."""

    wallet: str
    balance_credits: Amount = Field(description="The balance; negative if usage exceeds deposits.")
    spent_credits: Amount = Field(description="Usage charges, net of corrections.")
    last_activity: str | None = Field(description="Time of the last charge or deposit.")
    created_at: str


class DepositRequest(BaseModel):
    """Credits to add to a wallet."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount_credits: str | int = Field(description="Positive decimal, as a string, with at most nine decimals.")
    memo: Name = Field("", max_length=500, description="A note, shown in the ledger.")


class Deposit(BaseModel):
    """A deposit in the books."""

    transaction_id: int
    wallet: str
    amount_credits: Amount
    balance_credits: Amount


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/wallets."""
    routes = APIRouter(prefix="/v1/wallets", tags=["wallets"], responses=RESPONSES)

    @routes.get("")
    def list_wallets(cursor: Cursor = None, limit: Limit = 100) -> Page[Wallet]:
        """List wallets by name."""
        (after,) = decode_cursor(cursor, str) or ("",)
        with context.database.reading() as connection:
            rows = statements.wallets(connection, context.tenant_id, after, limit + 1)
        return page(rows, limit, _show, lambda row: (row.name,))

    @routes.post("/{wallet:name}/deposits", status_code=201, responses=WAITS)
    def make_deposit(
        wallet: str,
        request: DepositRequest,
        response: Response,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    ) -> Deposit:
        """Add credits to a wallet, once per Idempotency-Key; creates the wallet if missing."""
        name = wallet_name(wallet)
        amount = _positive(str(request.amount_credits))

        def put(connection: Connection) -> Deposited:
            made = deposit(connection, context.tenant_id, name, amount, idempotency_key, context.clock(), request.memo)
            if not made.repeated:
                movement = Movement(Kind.DEPOSIT, name, amount, memo=request.memo)
                proposal = movement_proposal(movement, amount, idempotency_key)
                require_approval(connection, context.tenant_id, proposal)
            return made

        try:
            made = context.database.transact(put)
        except IdempotencyConflict:
            raise ApiError(409, "this Idempotency-Key was already used for another deposit") from None
        except NoSuchWallet as error:
            raise ApiError(404, str(error)) from None
        except AmountError as error:
            raise ApiError(422, f"amount_credits: {error}") from None
        if made.repeated:
            response.headers["Idempotent-Replayed"] = "true"
        return Deposit(
            transaction_id=made.transaction_id,
            wallet=name,
            amount_credits=format_nano(amount),
            balance_credits=format_nano(made.balance_nanocredits),
        )

    @routes.get("/{wallet:name}")
    def get_wallet(wallet: OwnWallet) -> Wallet:
        """One wallet."""
        with context.database.reading() as connection:
            row = statements.wallet(connection, context.tenant_id, wallet_name(wallet))
        if row is None:
            raise ApiError(404, "there is no such wallet: it was neither paid into nor charged yet")
        return _show(row)

    return routes


def _positive(text: str) -> int:
    try:
        amount = parse_nano(text)
    except AmountError as error:
        raise ApiError(422, f"amount_credits: {error}") from None
    if amount <= 0:
        raise ApiError(422, "amount_credits: a deposit must be positive")
    return amount


def _show(row: Any) -> Wallet:
    return Wallet(
        wallet=row.name,
        balance_credits=format_nano(row.balance_nano),
        spent_credits=format_nano(row.spent_nano),
        last_activity=None if row.last_activity_ns is None else format_ns(row.last_activity_ns),
        created_at=format_ns(row.created_at_ns),
    )
