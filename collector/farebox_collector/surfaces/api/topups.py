"""Top-ups: checkouts, their results, and automatic top-ups."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.access.erased import NameErased
from farebox_collector.ledger.credits.movements import IdempotencyConflict
from farebox_collector.ledger.payments.auto_topups import (
    AutoTerms,
    BadAutoTopup,
    auto_topup,
    spent_this_month,
)
from farebox_collector.ledger.payments.packs import packs_in_force
from farebox_collector.ledger.payments.payment_fees import fee_of
from farebox_collector.ledger.payments.topups import (
    TopupState,
    all_topups,
    payment_method,
    topups_of,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.payments.desk import CheckoutWanted, NoStripe, NoSuchPack
from farebox_collector.payments.stripe_client import GatewayRefused, GatewayUnavailable
from farebox_collector.pricing.currencies import NoExchangeRate
from farebox_collector.surfaces.api.amounts import PackPrice, price_minor, show_price
from farebox_collector.surfaces.api.callers import OwnWallet
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
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

Answer = TypeVar("Answer")


def _web_address(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or not text.isascii() or not text.isprintable():
        raise ValueError("not an http or https URL")
    return text


WebAddress = Annotated[str, Field(max_length=2_000), AfterValidator(_web_address)]


class CheckoutRequest(BaseModel):
    """A purchase to check out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pack: Name = Field(max_length=256)
    success_url: WebAddress | None = Field(None, description="Where the customer returns after paying.")
    cancel_url: WebAddress | None = Field(None, description="Where the customer returns without paying.")
    save_payment_method: bool = Field(False, description="Let Stripe save the payment method for automatic top-ups.")


class Topup(BaseModel):
    """The purchase of a pack for a wallet, and its payment state."""

    topup_id: str
    wallet: str
    state: TopupState
    reason: str = Field(description="Why the top-up failed.")
    automatic: bool
    credits: Amount
    price: PackPrice
    checkout_url: str | None = Field(description="The payment page; null once closed.")
    created_at: str
    paid_at: str | None
    lot_id: int | None = Field(description="The lot of the credits, once booked.")
    transaction_id: int | None


class BookedTopup(Topup):
    """A top-up with its payment and fee, for the business."""

    payment_intent: str = Field(description="The payment's id at Stripe; empty while there is none.")
    fee_usd: Amount | None = Field(description="Stripe's fee; null until Stripe reports it.")


class AutoTopupRequest(BaseModel):
    """The terms of an automatic top-up."""

    model_config = ConfigDict(extra="forbid", strict=True)

    enabled: bool = True
    pack: Name = Field("", max_length=256)
    below_credits: str | int = Field("0", description="Top up below this balance: decimal, as a string.")
    month_cap: PackPrice | None = Field(None, description="Maximum per UTC month, in the pack's currency.")
    author: Name = STATED_AUTHOR
    reason: Name = Field("", max_length=500)


class AutoTopup(BaseModel):
    """The state of a wallet's automatic top-up."""

    wallet: str
    enabled: bool
    paused: bool = Field(description="Whether it is off because a payment was refunded or disputed.")
    pack: str
    below_credits: Amount
    month_cap: PackPrice
    spent_this_month: PackPrice = Field(description="Cost of automatic top-ups in this UTC month.")
    payment_method_kept: bool
    since: str
    author: str = Field(description="`farebox` after a failed or returned payment.")
    reason: str


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/wallets for top-ups."""
    routes = APIRouter(prefix="/v1/wallets", tags=["top-ups"], responses=RESPONSES)

    @routes.post("/{wallet:name}/checkout", status_code=201)
    def make_checkout(
        wallet: str,
        request: CheckoutRequest,
        response: Response,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    ) -> Topup:
        """Create a Stripe checkout page for a pack, once per Idempotency-Key."""
        success_url = request.success_url or context.topup_return_url
        cancel_url = request.cancel_url or success_url
        if not success_url:
            raise ApiError(422, "success_url: state the page to return to, or set FAREBOX_TOPUP_RETURN_URL")
        wanted = CheckoutWanted(wallet_name(wallet), request.pack, success_url, cancel_url, request.save_payment_method)
        made = _ask_desk(lambda: context.payments.checkout(context.tenant_id, wanted, idempotency_key))
        if made.repeated:
            response.headers["Idempotent-Replayed"] = "true"
        return show_topup(made.topup)

    @routes.get("/{wallet:name}/topup", status_code=303, response_class=RedirectResponse)
    def follow_topup_link(
        wallet: OwnWallet, pack: Annotated[Name, Query(max_length=256, description="The pack to buy.")]
    ) -> RedirectResponse:
        """Redirect the wallet's customer to a Stripe checkout page for a pack."""
        if not context.topup_return_url:
            raise ApiError(409, "set FAREBOX_TOPUP_RETURN_URL, the page that customers return to")
        here = context.topup_return_url
        wanted = CheckoutWanted(wallet_name(wallet), pack, here, here)
        made = _ask_desk(lambda: context.payments.open_checkout(context.tenant_id, wanted))
        return RedirectResponse(made.topup.checkout_url, 303)

    @routes.get("/{wallet:name}/topups")
    def list_topups(wallet: OwnWallet, cursor: Cursor = None, limit: Limit = 100) -> Page[Topup]:
        """List a wallet's top-ups, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = topups_of(connection, context.tenant_id, wallet_name(wallet), before, limit + 1)
        return page(rows, limit, show_topup, lambda row: (row.id,))

    @routes.put("/{wallet:name}/auto-topup")
    def put_auto_topup(wallet: str, request: AutoTopupRequest) -> AutoTopup:
        """Switch a wallet's automatic top-up on or off; earlier terms are kept.

        `{"enabled": true}` alone switches it on again after a failure or a pause, on its previous terms.
        """
        name = wallet_name(wallet)
        terms = _auto_terms(context, name, request)
        try:
            _ask_desk(
                lambda: context.payments.set_auto_topup(context.tenant_id, terms, acting().author, request.reason)
            )
        except BadAutoTopup as error:
            raise ApiError(422, str(error)) from None
        return _auto_topup(context, name)

    @routes.get("/{wallet:name}/auto-topup")
    def get_auto_topup(wallet: OwnWallet) -> AutoTopup:
        """Return whether a wallet's automatic top-up is on, and the reason if not."""
        return _auto_topup(context, wallet_name(wallet))

    return routes


def tenant_router(context: Context) -> APIRouter:
    """The endpoint /v1/topups."""
    routes = APIRouter(prefix="/v1/topups", tags=["top-ups"], responses=RESPONSES)

    @routes.get("")
    def list_all_topups(
        state: TopupState | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[BookedTopup]:
        """List all wallets' top-ups, newest first, with payment and fee."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = all_topups(connection, context.tenant_id, state or "", before, limit + 1)
            fees = fee_of(connection, context.tenant_id, [row.id for row in rows])
        return page(rows, limit, lambda row: _booked(row, fees.get(row.id)), lambda row: (row.id,))

    return routes


def topup_link(context: Context, connection: Connection, wallet: str) -> str | None:
    """Return the path of a wallet's top-up link for the cheapest pack; None if no pack can be bought."""
    if not (context.payments.serves(context.tenant_id) and context.topup_return_url):
        return None
    cheapest = next(iter(packs_in_force(connection, context.tenant_id)), None)
    if cheapest is None:
        return None
    return f"/v1/wallets/{quote(wallet, safe='')}/topup?pack={quote(cheapest.name, safe='')}"


def _booked(row: Any, fee_nanousd: int | None) -> BookedTopup:
    fee = None if fee_nanousd is None else format_nano(fee_nanousd)
    return BookedTopup(**show_topup(row).model_dump(), payment_intent=row.payment_intent, fee_usd=fee)


def show_topup(row: Any) -> Topup:
    """Convert a top-up to its API model."""
    return Topup(
        topup_id=row.key,
        wallet=row.wallet,
        state=row.state,
        reason=row.reason,
        automatic=bool(row.automatic),
        credits=format_nano(row.amount_nano),
        price=show_price(row.amount_minor, row.currency),
        checkout_url=row.checkout_url if row.state == "open" and row.checkout_url else None,
        created_at=format_ns(row.created_at_ns),
        paid_at=None if row.paid_at_ns is None else format_ns(row.paid_at_ns),
        lot_id=row.lot_id,
        transaction_id=row.transaction_id,
    )


def _ask_desk(ask: Callable[[], Answer]) -> Answer:
    """Call the payment desk and convert its errors to ApiError."""
    try:
        return ask()
    except NoSuchPack:
        raise ApiError(404, "there is no such pack") from None
    except NameErased as error:
        raise ApiError(404, str(error)) from None
    except IdempotencyConflict:
        raise ApiError(409, "this Idempotency-Key was already used for another top-up") from None
    except (NoStripe, NoExchangeRate) as error:
        raise ApiError(409, str(error)) from None
    except AmountError as error:
        raise ApiError(422, str(error)) from None
    except GatewayRefused as error:
        raise ApiError(422, f"Stripe refused: {error}") from None
    except GatewayUnavailable as error:
        raise ApiError(503, f"{error}; try again with the same Idempotency-Key") from None


def _auto_terms(context: Context, wallet: str, request: AutoTopupRequest) -> AutoTerms:
    with context.database.reading() as connection:
        known = auto_topup(connection, context.tenant_id, wallet)
    if not request.enabled:
        if known is None:
            raise ApiError(404, "this wallet has no automatic top-up; set a pack and month_cap first")
        return AutoTerms(wallet, False, known.pack, known.below_nano, known.currency, known.month_cap_minor)
    if not request.pack and request.month_cap is None and known is not None:
        # Switch on again on the previous terms.
        return AutoTerms(wallet, True, known.pack, known.below_nano, known.currency, known.month_cap_minor)
    if request.month_cap is None:
        raise ApiError(422, "month_cap: state the maximum cost of a UTC month")
    try:
        below = parse_nano(str(request.below_credits))
    except AmountError as error:
        raise ApiError(422, f"below_credits: {error}") from None
    cap = price_minor(request.month_cap, "month_cap")
    return AutoTerms(wallet, True, request.pack, below, request.month_cap.currency, cap)


def _auto_topup(context: Context, wallet: str) -> AutoTopup:
    with context.database.reading() as connection:
        row = auto_topup(connection, context.tenant_id, wallet)
        if row is None:
            raise ApiError(404, "this wallet has no automatic top-up; set a pack and month_cap first")
        spent = spent_this_month(connection, context.tenant_id, wallet, row.currency, context.clock())
        method = payment_method(connection, context.tenant_id, wallet)
    return AutoTopup(
        wallet=wallet,
        enabled=bool(row.enabled),
        paused=bool(row.paused),
        pack=row.pack,
        below_credits=format_nano(row.below_nano),
        month_cap=show_price(row.month_cap_minor, row.currency),
        spent_this_month=show_price(spent, row.currency),
        payment_method_kept=bool(method.payment_method),
        since=format_ns(row.recorded_at_ns),
        author=row.author,
        reason=row.reason,
    )
