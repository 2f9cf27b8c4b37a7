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

    type: str = Field("about:blank", description="A URI for the kind of problem; about:blank means the status says it.")
    title: str = Field(description="The kind of problem, the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request, and what to do.")
    errors: list[dict[str, Any]] = Field(default=[], description="Each field that is wrong, for status 422.")


class ApiError(HTTPException):
    """An error that the caller can do something about; `facts` are members of its problem document."""

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
"""What every endpoint may answer instead of what was asked for."""


def problem(
    status: int, detail: str, errors: list[dict[str, Any]] | None = None, facts: dict[str, str] | None = None
) -> JSONResponse:
    """A problem document as a response; `facts` are members of its own."""
    document = Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or []
    )
    content = document.model_dump(exclude_defaults=True) | (facts or {})
    return JSONResponse(content, status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem document, and have its OpenAPI document say just that."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI writes a model down under its own media type, whatever else there is.
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
        return problem(422, "the request has fields that cannot be used", errors)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
        # No one is there to read this; without it the log would have a traceback.
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def _unforeseen(_request: Request, _error: Exception) -> JSONResponse:
        # The text stays in the log: it may hold data.
        return problem(500, "something went wrong here; the log has the details")
