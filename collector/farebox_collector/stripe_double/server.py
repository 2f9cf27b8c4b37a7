"""The double's HTTP: Stripe's API under /v1, checkout pages under /pay, controls of the double under /double.

A request is answered after the first delivery of its events, so that its client need not wait for the webhook too.
"""

import html
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from farebox_collector.model.minor_units import format_minor
from farebox_collector.stripe_double.account import (
    GOOD_CARD,
    Account,
    Refusal,
    Thing,
)
from farebox_collector.stripe_double.delivery import Delivery
from farebox_collector.stripe_double.forms import read_form

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Pay {title}</title>
<style>body{{font:16px system-ui;max-width:24rem;margin:4rem auto;color:#1a1f36}}h1{{font-size:2rem;margin:.2rem 0}}
input,button{{font:inherit;width:100%;padding:.7rem;margin:.4rem 0;box-sizing:border-box}}
button{{background:#635bff;color:#fff;border:0;border-radius:6px}}p{{color:#697386}}</style>
<p>Stripe's double: no money moves here.</p><p>{title}</p><h1>{price} {currency}</h1><p role="alert">{error}</p>
<form method="post"><label>Test card <input name="card" value="{card}"></label><button>Pay</button></form>
<p><a href="{cancel}">Back</a></p></html>"""


class Double:
    """Stripe's API over one account in memory."""

    def __init__(self, url: str, api_key: str, webhook_secret: str) -> None:
        self._key = api_key
        self._secret = webhook_secret
        self.account = Account(url, lambda: int(time.time()), livemode="_live_" in api_key[:9])
        self.delivery = Delivery(webhook_secret)
        self._sent = 0
        self._answers: dict[str, tuple[str, int, Thing]] = {}

    def application(self) -> Starlette:
        """The ASGI application."""
        account = self.account
        lists = (("payment_intents", "intents"), ("refunds", "refunds"), ("disputes", "disputes"))
        routes = [
            self._route("/v1/checkout/sessions", lambda form, _: account.create_session(form)),
            self._route("/v1/checkout/sessions/{id}", lambda _, ids: account.get("sessions", ids["id"]), "GET"),
            self._route("/v1/checkout/sessions/{id}/expire", lambda _, ids: account.expire_session(ids["id"])),
            self._route("/v1/payment_intents", lambda form, _: account.create_intent(form)),
            self._route("/v1/payment_intents/{id}", lambda _, ids: account.get("intents", ids["id"]), "GET"),
            self._route("/v1/refunds", lambda form, _: account.create_refund(form)),
            self._route("/v1/webhook_endpoints", lambda form, _: self._endpoint(form)),
            self._route("/double/disputes", lambda form, _: account.open_dispute(form)),
            self._route("/double/disputes/{id}", lambda form, ids: account.close_dispute(ids["id"], form["status"])),
            self._route("/double/refunds/{id}/fail", lambda _, ids: account.fail_refund(ids["id"])),
            self._route("/v1/events", lambda form, _: self._page(self.account.events[::-1], form), "GET"),
            Route("/double/events/{id}/send", self._send_again, methods=["POST"]),
            Route("/", self._back, methods=["GET"]),
            Route("/receipts/{id}", self._receipt, methods=["GET"]),
            Route("/pay/{id}", self._show, methods=["GET"]),
            Route("/pay/{id}", self._pay, methods=["POST"]),
        ]
        for path, kind in lists:
            routes.append(self._route(f"/v1/{path}", self._listing(kind), "GET"))
        return Starlette(routes=routes)

    def _route(self, path: str, answer: Callable[[Thing, Thing], Thing], method: str = "POST") -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._answer(request, answer)

        return Route(path, endpoint, methods=[method])

    async def _answer(self, request: Request, answer: Callable[[Thing, Thing], Thing]) -> Response:
        if request.headers.get("authorization") != f"Bearer {self._key}":
            error = {"type": "invalid_request_error", "message": "Invalid API Key provided: sk_****"}
            return JSONResponse({"error": error}, 401)
        asked = (await request.body()).decode() if request.method == "POST" else request.url.query
        key, content = request.headers.get("idempotency-key"), f"{request.url.path}?{asked}"
        if request.method == "POST" and key in self._answers:
            before, status, body = self._answers[key]
            if before != content:
                message = "Keys for idempotent requests can only be used with the same parameters."
                return JSONResponse({"error": {"type": "idempotency_error", "message": message}}, 400)
            return JSONResponse(body, status, headers={"Idempotent-Replayed": "true"})
        form = read_form(asked)
        try:
            expand = form.get("expand") or []
            status, body = 200, self.account.shown(answer(form, request.path_params), expand)
        except Refusal as refusal:
            status, body = refusal.status, {"error": refusal.error}
        if key and request.method == "POST":
            # Also a refusal: a declined request stays declined under its key.
            self._answers[key] = (content, status, body)
        await self._deliver()
        return JSONResponse(body, status)

    async def _deliver(self) -> None:
        while self._sent < len(self.account.events):
            self._sent += 1
            await self.delivery.send(self.account.events[self._sent - 1])

    def _endpoint(self, form: Thing) -> Thing:
        types = form.get("enabled_events") or ["*"]
        self.delivery.add(form["url"], frozenset(types))
        # Stripe makes a secret for each endpoint; the double's is fixed, so that a collector can be started with it.
        return {"id": "we_double", "object": "webhook_endpoint", "url": form["url"], "secret": self._secret}

    def _listing(self, kind: str) -> Callable[[Thing, Thing], Thing]:
        return lambda form, _: self._page(list(self.account.things[kind].values())[::-1], form)

    def _page(self, things: list[Thing], form: Thing) -> Thing:
        """A page of a list in Stripe's form: newest first, after `starting_after`."""
        made = form.get("created", {})
        chosen = [
            thing
            for thing in things
            if int(made.get("gte", 0)) <= thing["created"] < int(made.get("lt", 2**40))
            and form.get("type") in (None, thing.get("type"))
        ]
        if form.get("starting_after"):
            place = next(n for n, thing in enumerate(chosen) if thing["id"] == form["starting_after"])
            chosen = chosen[place + 1 :]
        limit = int(form.get("limit", 10))
        return {"object": "list", "url": "/v1/list", "has_more": len(chosen) > limit, "data": chosen[:limit]}

    async def _send_again(self, request: Request) -> Response:
        found = [event for event in self.account.events if event["id"] == request.path_params["id"]]
        for event in found:
            await self.delivery.send(event)
        return JSONResponse({"sent": len(found)}, 200 if found else 404)

    async def _back(self, _request: Request) -> Response:
        return HTMLResponse("<!doctype html><title>Paid</title><p>Back from the checkout of Stripe's double.</p>")

    async def _receipt(self, request: Request) -> Response:
        intent = self.account.things["intents"].get(request.path_params["id"])
        if intent is None:
            return HTMLResponse("<!doctype html><p>This payment does not exist.</p>", 404)
        currency = intent["currency"].upper()
        paid = html.escape(f"{intent['description']}: {format_minor(intent['amount_received'], currency)} {currency}")
        return HTMLResponse(f"<!doctype html><title>Receipt</title><h1>Receipt of Stripe's double</h1><p>{paid}</p>")

    async def _show(self, request: Request) -> Response:
        return self._checkout_page(request.path_params["id"])

    async def _pay(self, request: Request) -> Response:
        card = read_form((await request.body()).decode()).get("card", GOOD_CARD).replace(" ", "")
        try:
            session = self.account.pay_session(request.path_params["id"], card)
        except Refusal as refusal:
            await self._deliver()
            return self._checkout_page(request.path_params["id"], str(refusal), 402)
        await self._deliver()
        return RedirectResponse(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]), 303)

    def _checkout_page(self, session_id: str, error: str = "", status: int = 200) -> Response:
        session = self.account.things["sessions"].get(session_id)
        if session is None or session["status"] != "open":
            return HTMLResponse("<!doctype html><p>This checkout is over.</p>", 410 if session else 404)
        currency = session["currency"].upper()
        facts = {
            "title": session["line_title"],
            "price": format_minor(session["amount_total"], currency),
            "currency": currency,
            "card": GOOD_CARD,
            "cancel": session["cancel_url"] or session["success_url"],
            "error": error,
        }
        return HTMLResponse(_PAGE.format(**{name: html.escape(value) for name, value in facts.items()}), status)
