"""Stripe's webhook: needs no key, since every event is signed."""

import logging
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from farebox_collector.ledger.payments.provider_events import REPEATED, EventConflict, Refused
from farebox_collector.payments.desk import NoStripe
from farebox_collector.payments.events import NotStripe, Unreadable
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

PATH = "/v1/webhooks/stripe"

_logger = logging.getLogger(__name__)


class Received(BaseModel):
    """The result of an event."""

    outcome: str = Field(description="A short text; `repeated` for an event booked before.")


def router(context: Context) -> APIRouter:
    """The endpoint that Stripe calls."""
    routes = APIRouter(tags=["top-ups"], responses=RESPONSES)

    @routes.post(PATH, openapi_extra=_BODY)
    async def receive_event(
        request: Request, stripe_signature: Annotated[str | None, Header(max_length=4_000)] = None
    ) -> Received:
        """Book a Stripe event once. After an error response, Stripe retries for three days."""
        body = await request.body()
        return Received(outcome=await run_in_threadpool(_receive, context, body, stripe_signature))

    return routes


def _receive(context: Context, body: bytes, signature: str | None) -> str:
    try:
        outcome = context.payments.receive(body, signature)
    except NoStripe as error:
        raise ApiError(404, str(error)) from None
    except (NotStripe, Unreadable) as error:
        context.meters.payment_event("forged")
        raise ApiError(400, str(error)) from None
    except EventConflict:
        context.meters.payment_event("refused")
        raise ApiError(409, "an event with this id and different content was booked before") from None
    except Refused as error:
        # The signature is Stripe's, so an operator must look into this.
        _logger.error("refused an event from Stripe", extra={"reason": str(error)})
        context.meters.payment_event("refused")
        raise ApiError(422, str(error)) from None
    context.meters.payment_event("repeated" if outcome == REPEATED else "booked")
    return outcome


_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
