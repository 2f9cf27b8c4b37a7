"""Errors of the HTTP API as RFC 9457 problem details (`application/problem+json`)."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from farebox_collector.ledger.usage.tombstones import DetailRetired

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field("about:blank", description="A URI of the problem type; about:blank: see the status.")
    title: str = Field(description="The problem type, the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with the request and how to fix it.")
    errors: list[dict[str, Any]] = Field(default=[], description="Each invalid field, for status 422.")


class ApiError(HTTPException):
    """An error that the caller can fix; `facts` become members of its problem document."""

    def __init__(
        self,
        status_code: int,
        detail: str,
        facts: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, detail, headers)
        self.facts = facts or {}


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "model": Problem,
        "description": "A problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""Error responses of every endpoint."""


def problem(
    status: int, detail: str, errors: list[dict[str, Any]] | None = None, facts: dict[str, str] | None = None
) -> JSONResponse:
    """Return a problem document as a response; `facts` are additional members."""
    document = Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or []
    )
    content = document.model_dump(exclude_defaults=True) | (facts or {})
    return JSONResponse(content, status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem document, also in its OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI always documents a model under its own media type.
                operation["responses"].get("default", {}).get("content", {}).pop("application/json", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        facts = error.facts if isinstance(error, ApiError) else {}
        answer = problem(error.status_code, str(error.detail), facts=facts)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(DetailRetired)
    async def _retired(_request: Request, error: DetailRetired) -> JSONResponse:
        return problem(410, str(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [{"field": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        return problem(422, "the request has invalid fields; see errors", errors)

    @app.exception_handler(ClientDisconnect)
    async def _disconnected(_request: Request, _error: ClientDisconnect) -> Response:
        # The client is disconnected. Without this handler the log would have a traceback.
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # The error's text may contain data; it stays in the log.
        return problem(500, "internal error; see the collector's log")
