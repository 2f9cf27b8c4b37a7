"""The HTTP API: one FastAPI application out of the parts beside it, its documentation at `/docs`."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_swagger import patch_fastapi
from pydantic import BaseModel

from farebox_collector.surfaces import ledger, prices, problems, usage, wallets
from farebox_collector.surfaces.context import Context


class Readiness(BaseModel):
    """Whether this collector takes spans."""

    ready: bool


def application(context: Context) -> FastAPI:
    """The ASGI application of the API port."""
    app = FastAPI(
        title="Farebox",
        version=version("farebox-collector"),
        # The page's own scripts come from this port: FastAPI's would come from a CDN, with whatever that serves.
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        description="Wallets, usage, receipts, ledger, prices. Amounts are decimal strings, their unit in the name.",
    )
    problems.install(app)
    patch_fastapi(app, redirect_from_root_to_docs=True)
    for part in (wallets, usage, ledger, prices):
        app.include_router(part.router(context))

    @app.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    def readyz() -> Readiness:
        """200 once all four ports listen; 503 before that and while shutting down."""
        if not context.ready():
            raise problems.ApiError(503, "not ready: starting or shutting down")
        return Readiness(ready=True)

    return app
