"""The ledger over HTTP: every movement of a wallet, with links to the call behind it."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import BaseModel, Field

from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.reports import statements
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.callers import OWN_WALLET
from farebox_collector.surfaces.api.context import Amount, Context, Name
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES

LedgerType = Kind | Literal["charge", "correction", "refund_failed", "dispute", "dispute_won", "expiry"]


class Links(BaseModel):
    """Related resources."""

    wallet: str
    receipt: str | None = Field(description="The receipt of the call, for a charge.")


class LedgerRow(BaseModel):
    """One movement of one wallet."""

    type: LedgerType
    recorded_at: str
    wallet: str
    amount_credits: Amount = Field(description="Positive into the wallet, negative out of it.")
    transaction_id: int
    event: str
    trace_id: str | None
    span_id: str | None
    memo: str
    links: Links


def router(context: Context) -> APIRouter:
    """The endpoint /v1/ledger."""
    routes = APIRouter(prefix="/v1/ledger", tags=["ledger"], responses=RESPONSES)

    @routes.get("")
    def list_ledger(
        wallet: Annotated[Name, OWN_WALLET] = "",
        type: LedgerType | None = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[LedgerRow]:
        """List deposits, charges and other movements, last booked first."""
        position = decode_cursor(cursor, int, str, int)
        with context.database.reading() as connection:
            rows = statements.ledger(connection, context.tenant_id, wallet, type or "", position, limit + 1)
        return page(rows, limit, _show, lambda row: (row.transaction_id, row.type, row.id))

    return routes


def _show(row: Any) -> LedgerRow:
    trace_id = row.trace_id.hex() if row.trace_id else None
    span_id = row.span_id.hex() if row.span_id else None
    return LedgerRow(
        type=row.type,
        recorded_at=format_ns(row.recorded_at_ns),
        wallet=row.wallet,
        amount_credits=format_nano(row.amount_nano),
        transaction_id=row.transaction_id,
        event=row.event,
        trace_id=trace_id,
        span_id=span_id,
        memo=row.memo,
        links=Links(
            wallet=f"/v1/wallets/{quote(row.wallet, safe='')}",
            receipt=f"/v1/usage/{trace_id}/{span_id}/receipt" if trace_id else None,
        ),
    )
