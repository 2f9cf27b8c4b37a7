"""Signed links: a link lets its holder read one wallet until it expires or is revoked."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from farebox_collector.ledger.access import links
from farebox_collector.ledger.access.erased import NameErased
from farebox_collector.ledger.access.links import NoSuchLink
from farebox_collector.model.moments import format_ns
from farebox_collector.settings import MAX_LINK_DAYS
from farebox_collector.surfaces.api.callers import LINK_PARAMETER, caller
from farebox_collector.surfaces.api.context import Context, wallet_name
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

_DAY_NS = 86_400 * 10**9

KeyId = Annotated[
    str,
    Query(
        pattern=r"^([0-9a-f]{16}|person:[0-9]{1,9})$", description="The key id or `person:<number>` that created them."
    ),
]


class WalletLink(BaseModel):
    """A signed link for reading one wallet."""

    link_id: int
    token: str
    path: str = Field(description="The wallet's overview, on this host.")
    expires_at: str = Field(description="No later than the expiry of the key that created it.")


class MintedLink(BaseModel):
    """An issued link, without its token."""

    link_id: int
    wallet: str
    minted_by: str = Field(description="The id of the key that created it; empty if no key existed then.")
    created_at: str
    expires_at: str
    revoked_at: str | None


def router(context: Context) -> APIRouter:
    """The endpoint that creates links."""
    routes = APIRouter(prefix="/v1", tags=["keys"], responses=RESPONSES)

    @routes.post("/wallets/{wallet:name}/links", status_code=201)
    def create_link(
        wallet: str, days: Annotated[int, Query(ge=1, le=MAX_LINK_DAYS, description="How long the link works.")] = 7
    ) -> WalletLink:
        """Create a link that lets its holder read this wallet only, for some days."""
        name = wallet_name(wallet)
        if days > context.link_max_days:
            raise ApiError(422, f"days: at most {context.link_max_days} (FAREBOX_LINK_MAX_DAYS)")
        now_ns, who = context.clock(), caller()
        minted_by = f"person:{who.person}" if who.session_id else who.key_id
        until_ns = now_ns + days * _DAY_NS
        try:
            made = context.database.transact(
                lambda connection: links.mint(connection, context.tenant_id, name, minted_by, until_ns, now_ns)
            )
        except NameErased as error:
            raise ApiError(404, str(error)) from None
        path = f"/v1/wallets/{quote(name, safe='')}/overview?{LINK_PARAMETER}={made.token}"
        return WalletLink(link_id=made.link_id, token=made.token, path=path, expires_at=format_ns(made.expires_at_ns))

    return routes


def minted_router(context: Context) -> APIRouter:
    """The endpoints under /v1/links, for admins."""
    routes = APIRouter(prefix="/v1/links", tags=["keys"], responses=RESPONSES)

    @routes.get("")
    def list_links(minted_by: KeyId = "", cursor: Cursor = None, limit: Limit = 100) -> Page[MintedLink]:
        """List issued links, newest first; expired links for 30 days only."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = links.links_of(connection, context.tenant_id, minted_by, before, limit + 1)
        return page(rows, limit, _show, lambda row: (row.id,))

    @routes.delete("", status_code=204)
    def revoke_links(minted_by: KeyId = "") -> None:
        """Revoke all links issued so far, or only those that one key created."""
        now_ns = context.clock()
        if minted_by:
            context.database.transact(
                lambda connection: links.revoke_minted_by(connection, context.tenant_id, minted_by, now_ns)
            )
        else:
            context.database.transact(lambda connection: links.revoke_links(connection, context.tenant_id, now_ns))

    @routes.delete("/{link_id}", status_code=204)
    def revoke_link(link_id: int) -> None:
        """Revoke a link; every collector refuses it within a second."""
        try:
            if abs(link_id) >= 2**63:
                raise NoSuchLink(str(link_id))
            context.database.transact(
                lambda connection: links.revoke_link(connection, context.tenant_id, link_id, context.clock())
            )
        except NoSuchLink:
            raise ApiError(404, "there is no such link") from None

    return routes


def _show(row: Any) -> MintedLink:
    return MintedLink(
        link_id=row.id,
        wallet=row.wallet,
        minted_by=row.minted_by,
        created_at=format_ns(row.created_at_ns),
        expires_at=format_ns(row.expires_at_ns),
        revoked_at=None if row.revoked_at_ns is None else format_ns(row.revoked_at_ns),
    )
