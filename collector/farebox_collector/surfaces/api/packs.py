"""Packs: credits sold at a price."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.payments.packs import (
    MAX_EXPIRY_DAYS,
    BadPack,
    PackTerms,
    pack_in_force,
    pack_versions,
    packs_in_force,
    set_pack,
    withdraw_pack,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.pricing.currencies import NoExchangeRate
from farebox_collector.surfaces.api.amounts import (
    PackPrice,
    positive_nanocredits,
    price_minor,
    show_price,
)
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Amount,
    Context,
    Name,
    require_named,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError


class PackWanted(BaseModel):
    """The terms of a pack from now on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    credits: str | int = Field(description="Positive decimal, as a string, with at most nine decimals.")
    price: PackPrice
    expires_days: int = Field(0, ge=0, le=MAX_EXPIRY_DAYS, description="Days until the credits expire; 0 is never.")
    author: Name = STATED_AUTHOR
    reason: Name = Field("", max_length=500, description="Why; kept with the version.")


class Pack(BaseModel):
    """A pack of credits with a price."""

    pack: str
    version: int
    credits: Amount
    price: PackPrice
    expires_days: int
    since: str
    author: str
    reason: str


class Packs(BaseModel):
    """All packs, on one page."""

    items: list[Pack]
    next_cursor: None = None


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/packs."""
    routes = APIRouter(prefix="/v1/packs", tags=["top-ups"], responses=RESPONSES)

    @routes.get("")
    def list_packs() -> Packs:
        """List packs on sale, cheapest first."""
        with context.database.reading() as connection:
            return Packs(items=[show_pack(row) for row in packs_in_force(connection, context.tenant_id)])

    @routes.get("/{pack}/history")
    def pack_history(pack: str) -> Packs:
        """List every version of a pack, oldest first; a version without credits ended its sale."""
        with context.database.reading() as connection:
            return Packs(items=[show_pack(row) for row in pack_versions(connection, context.tenant_id, _name(pack))])

    @routes.put("/{pack}")
    def put_pack(pack: str, wanted: PackWanted) -> Pack:
        """Sell a pack on these terms from now on; earlier versions are kept."""
        name, at_ns = _name(pack), context.clock()
        terms = _terms(name, wanted)
        try:
            context.database.transact(
                lambda connection: set_pack(connection, context.tenant_id, terms, acting().author, wanted.reason, at_ns)
            )
        except (BadPack, NoExchangeRate) as error:
            raise ApiError(422, str(error)) from None
        with context.database.reading() as connection:
            return show_pack(pack_in_force(connection, context.tenant_id, name))

    @routes.delete("/{pack}", status_code=204)
    def delete_pack(pack: str) -> None:
        """Stop selling a pack; its versions are kept."""
        name = _name(pack)
        if not context.database.transact(
            lambda connection: withdraw_pack(connection, context.tenant_id, name, "api", "", context.clock())
        ):
            raise ApiError(404, "there is no such pack")

    return routes


def show_pack(row: Any) -> Pack:
    """Convert a version of a pack to its API model."""
    return Pack(
        pack=row.name,
        version=row.id,
        credits=format_nano(row.credits_nano),
        price=show_price(row.amount_minor, row.currency),
        expires_days=row.expires_days,
        since=format_ns(row.recorded_at_ns),
        author=row.author,
        reason=row.reason,
    )


def _terms(name: str, wanted: PackWanted) -> PackTerms:
    amount = price_minor(wanted.price, "price")
    credits = positive_nanocredits(str(wanted.credits), "a pack")
    return PackTerms(name, credits, wanted.price.currency, amount, wanted.expires_days)


def _name(name: str) -> str:
    require_named(name, "a pack's name")
    return name
