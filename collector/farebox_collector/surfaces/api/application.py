"""Build the HTTP API: one FastAPI application from this package's routers, documented at `/docs`."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi_swagger import patch_fastapi
from pydantic import BaseModel
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from farebox_collector.model.credentials import Scope
from farebox_collector.surfaces.api import (
    agent_plans,
    alerts,
    approvals,
    audit_log,
    budgets,
    costs,
    holds,
    keys,
    ledger,
    links,
    movements,
    overview,
    packs,
    people,
    policies,
    prices,
    problems,
    replays,
    reports,
    rules,
    stakes,
    stripe_webhook,
    topups,
    usage,
    wallets,
    webhooks,
)
from farebox_collector.surfaces.api.callers import (
    ONE_WALLET,
    Authentication,
    Needs,
    needs,
    scope_names,
    wallet_parameter,
)
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.api.headers import SafeHeaders
from farebox_collector.surfaces.api.paths import EncodedSlashes

KNOWN_BY_OTHER_MEANS: frozenset[str] = frozenset({stripe_webhook.PATH})
"""Paths under /v1/ that need no API key: a signature or token in the request proves the sender."""

_READER = needs(Scope.READ, Scope.ADMIN)
_REPORTS = needs(Scope.READ, Scope.ADMIN, slow=True)
_REPLAYS = needs(Scope.ADMIN, Scope.ADMIN, slow=True)
_PRICER = needs(Scope.READ, Scope.PRICING)
_WALLETS = needs(Scope.READ, Scope.WALLETS)
# A link lets its holder read. Only callers who may read can create one.
_LINKS = needs(Scope.ADMIN, frozenset({Scope.READ, Scope.WALLETS}), or_write=Scope.ADMIN)
_ALERTS = needs(Scope.READ, Scope.ALERTS, slow=True)
_ASKER = needs(Scope.READ, Scope.READ, slow=True)
# A key that reports usage already charges wallets; the application needs no second key for holds.
_HOLDS = needs(Scope.READ, Scope.WALLETS, or_write=Scope.INGEST)
_ADMIN = needs(Scope.ADMIN, Scope.ADMIN)

_PARTS: tuple[tuple[Callable[[Context], APIRouter], Needs], ...] = (
    (links.router, _LINKS),
    (links.minted_router, _ADMIN),
    (holds.router, _HOLDS),
    (overview.router, _WALLETS),
    (movements.router, _WALLETS),
    (topups.router, _WALLETS),
    (wallets.router, _WALLETS),
    (ledger.router, _WALLETS),
    (usage.router, _READER),
    (prices.router, _PRICER),
    (rules.simulation_router, _ASKER),
    (rules.router, _PRICER),
    (costs.router, _READER),
    (stakes.router, _READER),
    (budgets.router, _PRICER),
    (policies.router, _PRICER),
    (agent_plans.router, _PRICER),
    (alerts.router, _READER),
    (alerts.webhook_router, _ALERTS),
    (reports.router, _REPORTS),
    (replays.router, _REPLAYS),
    (packs.router, _PRICER),
    (topups.tenant_router, _READER),
    (webhooks.endpoints_router, _ADMIN),
    (webhooks.messages_router, _ADMIN),
    (webhooks.thresholds_router, _READER),
    (approvals.router, _ASKER),
    (approvals.policy_router, _ADMIN),
    (audit_log.router, _ADMIN),
    (people.me_router, _ASKER),
    (people.router, _ADMIN),
    (people.sessions_router, _ADMIN),
    (keys.router, _ADMIN),
    (keys.tenants_router, _ADMIN),
)
"""Every router and the scopes that its callers need. The first route that matches a path is used."""


SCOPES = "x-scopes"
"""The OpenAPI extension that lists the scopes an endpoint needs: any one entry is enough, with all its scopes."""


class Readiness(BaseModel):
    """Whether this collector accepts spans."""

    ready: bool


def application(context: Context, pages: Sequence[BaseRoute] = ()) -> ASGIApp:
    """Return the ASGI application of the API port; `pages` are the console's routes."""
    app = _routes(context)
    app.router.routes.extend(pages)
    authentication = Authentication(
        app,
        context.keyring,
        context.meters,
        "api",
        open_paths=KNOWN_BY_OTHER_MEANS,
        refusals=context.refusals,
        logins=context.logins,
        rates=context.rates,
    )
    return SafeHeaders(EncodedSlashes(authentication))


def documentation() -> dict[str, Any]:
    """Return the OpenAPI document without opening the books or a port."""
    nowhere: Any = None
    return _routes(nowhere).openapi()


def _extra(route: APIRoute, needed: Needs) -> dict[str, Any]:
    """Return the OpenAPI extensions of a route."""
    extra: dict[str, Any] = {
        SCOPES: sorted({scope_names(together) for method in route.methods or () for together in needed.of(method)})
    }
    own = wallet_parameter(route)
    if own is not None:
        extra[ONE_WALLET] = {"in": own.place, "name": own.name}
    return extra


def _routes(context: Context) -> FastAPI:
    app = FastAPI(
        title="Farebox",
        version=version("farebox-collector"),
        # Serve the page's scripts from this port; FastAPI's defaults load them from a CDN.
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        description="Wallets, usage, receipts, ledger, prices. Amounts are decimal strings, their unit in the name.",
    )
    problems.install(app)
    approvals.install(app, context)
    patch_fastapi(app, redirect_from_root_to_docs=True)
    for part, needed in _PARTS:
        routes = part(context)
        for route in routes.routes:
            if isinstance(route, APIRoute):
                route.openapi_extra = _extra(route, needed)
        app.include_router(routes, dependencies=[Depends(needed.check)])
    app.include_router(stripe_webhook.router(context))

    @app.get("/readyz", tags=["health"], responses=problems.RESPONSES)
    def readyz() -> Readiness:
        """200 once all four ports listen; 503 before that and while shutting down."""
        if not context.ready():
            raise problems.ApiError(503, "not ready: starting or shutting down")
        return Readiness(ready=True)

    return app
