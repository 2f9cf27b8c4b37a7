"""Webhooks: endpoints, messages and low-balance thresholds."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.background.webhook_destinations import MAX_URL, BadDestination, read_url
from farebox_collector.background.webhook_sender import shown_secret
from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.journal import low_balances, outbox
from farebox_collector.ledger.journal.outbox import MessageState
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.names import MAX_NAME
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Amount,
    Context,
    Name,
    NameInBooks,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

_HOUR_NS = 3600 * 10**9
_NO_SUCH_ENDPOINT = "there is no such endpoint"


class Endpoint(BaseModel):
    """A webhook endpoint."""

    endpoint_id: str
    url: str
    created_at: str


class Endpoints(BaseModel):
    """All endpoints of a tenant, on one page."""

    items: list[Endpoint]
    next_cursor: None = None


class EndpointRequest(BaseModel):
    """An endpoint to add."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=MAX_URL, description="An https URL on the open internet.")


class Secret(BaseModel):
    """The signing secret of an endpoint."""

    endpoint_id: str
    secret: str = Field(description="In the format of Standard Webhooks libraries. Shown only in this response.")


class RotateSecretRequest(BaseModel):
    """How to replace a secret."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: int = Field(24, ge=0, le=24 * 90, description="How long the previous secret signs as well.")


class WebhookMessage(BaseModel):
    """A message to an endpoint and its delivery state."""

    message_id: str = Field(description="The `webhook-id` header of every attempt.")
    endpoint_id: str
    type: str
    state: MessageState
    attempts: int
    last_status: int | None = Field(description="The endpoint's last response status.")
    last_error: str
    body: str
    created_at: str
    next_attempt_at: str | None
    ended_at: str | None


class Retried(BaseModel):
    """A message queued again."""

    message_id: str
    endpoints: int = Field(description="Number of endpoints that have not received it.")


class ThresholdsRequest(BaseModel):
    """Balances below which a message is sent."""

    model_config = ConfigDict(extra="forbid")

    wallet: NameInBooks = Field(min_length=1, max_length=MAX_NAME, description="`*`: each wallet without its own.")
    below_credits: list[str] = Field(max_length=low_balances.MOST_BOUNDS, description="Decimals; empty ends them.")
    author: Name = STATED_AUTHOR
    reason: Name = Field("", max_length=500, description="Why; kept with the thresholds.")


class Thresholds(BaseModel):
    """The low-balance thresholds of a wallet."""

    wallet: str
    below_credits: list[Amount]
    since: str
    author: str
    reason: str


class AllThresholds(BaseModel):
    """The thresholds in force, by wallet."""

    items: list[Thresholds]
    next_cursor: None = None


def endpoints_router(context: Context) -> APIRouter:
    """The endpoints under /v1/webhook-endpoints."""
    routes = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"], responses=RESPONSES)

    @routes.get("")
    def list_endpoints() -> Endpoints:
        """A webhook endpoint."""
        with context.database.reading() as connection:
            rows = outbox.endpoints_of(connection, context.tenant_id)
        return Endpoints(
            items=[Endpoint(endpoint_id=str(r.id), url=r.url, created_at=format_ns(r.created_at_ns)) for r in rows]
        )

    @routes.post("", status_code=201)
    def add_endpoint(request: EndpointRequest) -> Secret:
        """Send messages to a URL from now on. The signing secret is shown once."""
        try:
            read_url(request.url, context.private_hosts)
            endpoint_id, secret = context.database.transact(
                lambda connection: outbox.add_endpoint(connection, context.tenant_id, request.url, context.clock())
            )
        except BadDestination as error:
            raise ApiError(422, f"url: {error}") from None
        except outbox.TooManyEndpoints as error:
            raise ApiError(409, str(error)) from None
        return Secret(endpoint_id=str(endpoint_id), secret=shown_secret(secret))

    @routes.post("/{endpoint_id}/rotate")
    def rotate(endpoint_id: str, request: RotateSecretRequest) -> Secret:
        """Give an endpoint a new secret, shown once; the previous one also signs until the overlap ends."""

        def work(connection: Connection) -> bytes | None:
            overlap_ns = request.overlap_hours * _HOUR_NS
            return outbox.rotate_secret(connection, context.tenant_id, _id(endpoint_id), context.clock(), overlap_ns)

        secret = context.database.transact(work)
        if secret is None:
            raise ApiError(404, _NO_SUCH_ENDPOINT)
        return Secret(endpoint_id=endpoint_id, secret=shown_secret(secret))

    @routes.post("/{endpoint_id}/ping", status_code=202)
    def ping(endpoint_id: str) -> Literal["queued"]:
        """Send a message of the type `ping` to test the endpoint."""
        if not context.database.transact(
            lambda connection: outbox.ping(connection, context.tenant_id, _id(endpoint_id), context.clock())
        ):
            raise ApiError(404, _NO_SUCH_ENDPOINT)
        return "queued"

    @routes.delete("/{endpoint_id}", status_code=204, response_class=Response)
    def remove(endpoint_id: str) -> None:
        """Stop sending messages to an endpoint."""
        if not context.database.transact(
            lambda connection: outbox.remove_endpoint(connection, context.tenant_id, _id(endpoint_id), context.clock())
        ):
            raise ApiError(404, _NO_SUCH_ENDPOINT)

    return routes


def messages_router(context: Context) -> APIRouter:
    """The endpoints under /v1/webhook-messages."""
    routes = APIRouter(prefix="/v1/webhook-messages", tags=["webhooks"], responses=RESPONSES)

    @routes.get("")
    def list_messages(
        state: MessageState | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[WebhookMessage]:
        """List messages of the last thirty days and all pending ones, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = outbox.messages_of(connection, context.tenant_id, state or "", before, limit + 1)
        return page(rows, limit, _show, lambda row: (row.id,))

    @routes.post("/{message_id}/retry")
    def retry(message_id: Annotated[str, Name]) -> Retried:
        """Send a message now to endpoints that have not received it, even if delivery was given up."""
        count = context.database.transact(
            lambda connection: outbox.retry(connection, context.tenant_id, message_id, context.clock())
        )
        if not count:
            raise ApiError(404, "there is no undelivered message with this id")
        return Retried(message_id=message_id, endpoints=count)

    return routes


def thresholds_router(context: Context) -> APIRouter:
    """The endpoints under /v1/balance-thresholds."""
    routes = APIRouter(prefix="/v1/balance-thresholds", tags=["webhooks"], responses=RESPONSES)

    @routes.get("")
    def list_thresholds() -> AllThresholds:
        """List the low-balance thresholds."""
        with context.database.reading() as connection:
            rows = low_balances.thresholds_in_force(connection, context.tenant_id)
        return AllThresholds(items=[_thresholds(row) for row in rows])

    @routes.post("", status_code=201)
    def set_thresholds(request: ThresholdsRequest) -> Thresholds:
        """Send a message when a wallet's balance falls below one of these."""
        try:
            bounds = [parse_nano(text) for text in request.below_credits]
            context.database.transact(
                lambda connection: low_balances.set_thresholds(
                    connection,
                    context.tenant_id,
                    request.wallet,
                    bounds,
                    acting().author,
                    request.reason,
                    context.clock(),
                )
            )
        except (AmountError, low_balances.BadThreshold) as error:
            raise ApiError(422, f"below_credits: {error}") from None
        with context.database.reading() as connection:
            return _thresholds(low_balances.thresholds_history(connection, context.tenant_id, request.wallet, 1)[0])

    return routes


def _id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(404, _NO_SUCH_ENDPOINT)
    return int(text)


def _show(row: Any) -> WebhookMessage:
    pending = row.state == MessageState.PENDING
    return WebhookMessage(
        message_id=row.message_id,
        endpoint_id=str(row.endpoint_id),
        type=row.type,
        state=row.state,
        attempts=row.attempts,
        last_status=row.last_status,
        last_error=row.last_error,
        body=row.body,
        created_at=format_ns(row.created_at_ns),
        next_attempt_at=format_ns(row.next_attempt_ns) if pending else None,
        ended_at=None if row.ended_at_ns is None else format_ns(row.ended_at_ns),
    )


def _thresholds(row: Any) -> Thresholds:
    return Thresholds(
        wallet=row.wallet,
        below_credits=[format_nano(bound) for bound in low_balances.bounds_of(row)],
        since=format_ns(row.recorded_at_ns),
        author=row.author,
        reason=row.reason,
    )
