"""The HTTP API: one FastAPI application out of the parts beside it, its documentation at `/docs`."""

from importlib.metadata import version

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import RedirectResponse

from farebox_collector.surfaces import ledger, prices, problems, usage, wallets
from farebox_collector.surfaces.context import Context

# A page on the web can make a browser call a port of this machine under a name of its own (DNS rebinding).
_HOSTS = ["127.0.0.1", "localhost", "[::1]"]


class Readiness(BaseModel):
    """Whether this collector takes spans."""

    ready: bool


def application(context: Context) -> FastAPI:
    """The ASGI application of the API port."""
    app = FastAPI(
        title="Farebox",
        version=version("farebox-collector"),
        description="Wallets, usage, receipts, ledger, prices. Amounts are decimal strings, their unit in the name.",
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    problems.install(app)
    for part in (wallets, usage, ledger, prices):
        app.include_router(part.router(context))

    @app.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    def readyz() -> Readiness:
        """200 once all four ports listen; 503 before that and while shutting down."""
        if not context.ready():
            raise problems.ApiError(503, "not ready: starting or shutting down")
        return Readiness(ready=True)

    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
