"""API keys of the caller's tenant, and tenants for operators."""

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access import keys, tenants
from farebox_collector.ledger.access.keys import Issued, NoActiveKey
from farebox_collector.model.credentials import Scope
from farebox_collector.model.moments import format_ns
from farebox_collector.model.names import MAX_NAME
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.api.callers import caller
from farebox_collector.surfaces.api.context import (
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

_NO_SUCH_KEY = "there is no working key with this id"
_HOUR_NS = 3600 * 10**9


class Key(BaseModel):
    """An API key, without its secret."""

    key_id: str
    name: str
    scopes: list[Scope]
    wallet: str = Field(description="The only wallet that the key may read; empty for all.")
    person: int = Field(description="The number of the person who owns the key; 0 for none.")
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None = Field(description="Accurate to about a minute.")


class KeyRequest(BaseModel):
    """A key to create."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(min_length=1, max_length=MAX_NAME, description="The key's purpose.")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    wallet: Name = Field("", max_length=MAX_NAME, description="Restrict the key to this wallet; the scope is `read`.")
    expires_at: AwareDatetime | None = None
    tenant: Name = Field(
        "", max_length=MAX_NAME, description="Another tenant; for admins of the tenant `default` only."
    )


class NewKey(BaseModel):
    """A new key."""

    key: str = Field(description="Shown only in this response.")
    key_id: str


class RotateRequest(BaseModel):
    """How to replace a key."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: int = Field(24, ge=0, le=24 * 90, description="How long the old key keeps working.")


class Tenant(BaseModel):
    """A business with its own books in this installation."""

    tenant: str
    usd_per_credit: str = Field(description="The price of one credit.")
    created_at: str


class TenantRequest(BaseModel):
    """A tenant to create."""

    model_config = ConfigDict(extra="forbid")

    tenant: Name = Field(min_length=1, max_length=MAX_NAME)
    usd_per_credit: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] = "1"


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/keys, for admins of a tenant."""
    routes = APIRouter(prefix="/v1/keys", tags=["keys"], responses=RESPONSES)

    @routes.get("")
    def list_keys(cursor: Cursor = None, limit: Limit = 100) -> Page[Key]:
        """List the tenant's keys in the order of creation."""
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = keys.keys_of(connection, context.tenant_id, after, limit + 1)
        return page(rows, limit, show_key, lambda row: (row.id,))

    @routes.post("", status_code=201)
    def create_key(request: KeyRequest) -> NewKey:
        """Create a key. Its text is only in this response."""
        expires_at_ns = None if request.expires_at is None else moment_ns(request.expires_at)
        wallet = wallet_name(request.wallet) if request.wallet else ""

        def create(connection: Connection) -> Issued:
            tenant_id = _tenant(connection, request.tenant)
            now_ns = context.clock()
            if Scope.ADMIN not in request.scopes and not keys.any_key(connection):
                raise ApiError(409, "the first key must have the scope admin: creating further keys needs it")
            try:
                return keys.create_key(
                    connection,
                    tenant_id,
                    request.name,
                    request.scopes,
                    now_ns,
                    wallet=wallet,
                    expires_at_ns=expires_at_ns,
                )
            except ValueError as error:
                raise ApiError(422, str(error)) from None

        made = context.database.transact(create)
        context.keyring.note_first_key()
        return _new(made)

    @routes.post("/{key_id}/rotate", status_code=201)
    def rotate_key(key_id: str, request: RotateRequest) -> NewKey:
        """Create a key with the same scopes. Both work until the old key's overlap ends."""
        overlap_ns = request.overlap_hours * _HOUR_NS
        try:
            return _new(
                context.database.transact(
                    lambda connection: keys.rotate_key(
                        connection, context.tenant_id, key_id, context.clock(), overlap_ns
                    )
                )
            )
        except NoActiveKey:
            raise ApiError(404, _NO_SUCH_KEY) from None

    @routes.delete("/{key_id}", status_code=204)
    def revoke_key(key_id: str) -> None:
        """Revoke a key; every collector refuses it within a second."""
        try:
            context.database.transact(
                lambda connection: keys.revoke_key(connection, context.tenant_id, key_id, context.clock())
            )
        except NoActiveKey:
            raise ApiError(404, "there is no such key") from None

    return routes


def tenants_router(context: Context) -> APIRouter:
    """The endpoint /v1/tenants, for admins of the operating tenant `default`."""
    routes = APIRouter(prefix="/v1/tenants", tags=["keys"], responses=RESPONSES)

    @routes.get("")
    def list_tenants(cursor: Cursor = None, limit: Limit = 100) -> Page[Tenant]:
        """List tenants in the order of creation."""
        _require_operator()
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = tenants.tenants_after(connection, after, limit + 1)
        return page(rows, limit, show_tenant, lambda row: (row.id,))

    @routes.post("", status_code=201)
    def create_tenant(request: TenantRequest) -> Tenant:
        """Create a tenant whose wallets pay the cost of calls; create its first key with `POST /v1/keys`."""
        _require_operator()
        now_ns = context.clock()
        usd_per_credit = Decimal(request.usd_per_credit)
        if not usd_per_credit:
            raise ApiError(422, "usd_per_credit: must be positive")
        try:
            context.database.transact(
                lambda connection: tenants.create_tenant(connection, request.tenant, usd_per_credit, now_ns)
            )
        except tenants.TenantExists:
            raise ApiError(409, "a tenant of this name already exists") from None
        return Tenant(tenant=request.tenant, usd_per_credit=format(usd_per_credit, "f"), created_at=format_ns(now_ns))

    return routes


def show_key(row: Any) -> Key:
    """Convert a row of `api_keys` to its API model."""
    return Key(
        key_id=row.key_id,
        name=row.name,
        scopes=row.scopes.split(),
        wallet=row.wallet,
        person=row.person,
        created_at=format_ns(row.created_at_ns),
        expires_at=_moment(row.expires_at_ns),
        revoked_at=_moment(row.revoked_at_ns),
        last_used_at=_moment(row.last_used_at_ns),
    )


def show_tenant(row: Any) -> Tenant:
    """Convert a row of `tenants` to its API model."""
    return Tenant(tenant=row.name, usd_per_credit=row.usd_per_credit, created_at=format_ns(row.created_at_ns))


def _moment(at_ns: int | None) -> str | None:
    return None if at_ns is None else format_ns(at_ns)


def _new(issued: Issued) -> NewKey:
    return NewKey(key=issued.token, key_id=issued.key_id)


def _require_operator() -> None:
    if caller().tenant_id != DEFAULT_TENANT_ID:
        raise ApiError(403, "only admins of the tenant `default` may manage tenants")


def _tenant(connection: Connection, name: str) -> int:
    if not name:
        return caller().tenant_id
    _require_operator()
    tenant_id = tenants.tenant_of(connection, name)
    if tenant_id is None:
        raise ApiError(404, "there is no such tenant")
    return tenant_id
