"""Who calls the API: every path under /v1/ needs a key (once there are any), and a key with the right scope.

`Doorkeeper` finds out who it is before anything else of a request is read, and bounds the body; the dependency that
`needs` makes, one for each part of the API, says what the caller may do there. A path that nobody thought of is closed.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Annotated, NamedTuple
from urllib.parse import parse_qs

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farebox_collector import credentials
from farebox_collector.credentials import Caller, token_in
from farebox_collector.keyring import Forbidden, KeyRing, Unauthenticated
from farebox_collector.metrics.meters import Meters
from farebox_collector.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.problems import ApiError, problem

MAX_BODY_BYTES = 2**20
"""Largest body of a request to the API."""
LINK_PARAMETER = "token"
"""The query parameter in which a signed link carries itself."""

_logger = logging.getLogger(__name__)

_caller: ContextVar[Caller] = ContextVar("caller")

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
# For the documentation page, which offers to fill them in; `Doorkeeper` has read them by then.
_BEARER = HTTPBearer(auto_error=False, description="An API key, or the token of a signed link.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


def caller() -> Caller:
    """Who sent the request that is being answered. Raises LookupError outside of one."""
    return _caller.get()


class Needs(NamedTuple):
    """What a part of the API asks of its callers."""

    read: credentials.Scope
    """The scope for what changes nothing."""
    write: tuple[credentials.Scope, ...]
    """The scopes for everything else, of which one is enough."""
    check: Callable[..., Awaitable[None]]
    """The dependency that lets a caller pass who has one."""

    def of(self, method: str) -> tuple[credentials.Scope, ...]:
        """The scopes of which a method needs one."""
        return (self.read,) if method in READING else self.write


def needs(
    read: credentials.Scope,
    write: credentials.Scope,
    *,
    or_write: credentials.Scope | None = None,
    of_one_wallet: bool = False,
) -> Needs:
    """Let a caller pass who has the scope: `read` for GET, `write` or `or_write` for all else.

    Callers who may read one wallet only pass where `of_one_wallet`, and where the path or `?wallet=` names theirs.
    """

    async def check(
        request: Request,
        _bearer: Annotated[object, Security(_BEARER)] = None,
        _header: Annotated[object, Security(_HEADER)] = None,
    ) -> None:
        who = caller()
        wanted = needed.of(request.method)
        if not any(who.may(scope) for scope in wanted):
            raise ApiError(403, f"this key has not got the scope {wanted[0].value}")
        if who.wallet:
            asked_for = request.path_params.get("wallet") or request.query_params.get("wallet")
            if not of_one_wallet or asked_for != who.wallet:
                raise ApiError(403, "this key reads one wallet only, and this is not it")

    needed = Needs(read, (write,) if or_write is None else (write, or_write), check)
    return needed


class Doorkeeper:
    """ASGI middleware: who is it, and is what they bring of a size; everything else is up to the application."""

    def __init__(
        self,
        app: ASGIApp,
        keyring: KeyRing,
        meters: Meters,
        port: str,
        prefix: str = "/v1/",
        open_paths: frozenset[str] = frozenset(),
        scope: credentials.Scope | None = None,
    ) -> None:
        """Paths that begin with `prefix` need a key, but for `open_paths`, which know their callers by other means.

        With a `scope` the key must have it, and be one of the tenant that runs the installation.
        """
        self._app = app
        self._keyring = keyring
        self._meters = meters
        self._port = port
        self._prefix = prefix
        self._open_paths = open_paths
        self._scope = scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401, 403, 413 or 503."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        if scope["path"] not in self._open_paths:
            refusal = await self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, _bounded(receive), send)

    async def _refusal(self, scope: Scope) -> Response | None:
        """The answer to who may not come in; None, and the caller is known from here on."""
        try:
            who = await self._keyring.caller(_token(scope), self._scope)
            if self._scope and (who.tenant_id != DEFAULT_TENANT_ID or who.wallet):
                raise Forbidden("this is for those who run the installation")
        except Unauthenticated as error:
            self._meters.turned_away(self._port, error.reason)
            answer = problem(401, str(error))
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        except Forbidden as error:
            self._meters.turned_away(self._port, error.reason)
            return problem(403, str(error))
        except DBAPIError:
            # Nothing is known about the key, so that nobody may be told that it is wrong.
            _logger.exception("a key could not be looked up")
            answer = problem(503, "the books cannot be read now; try again")
            answer.headers["Retry-After"] = "2"
            return answer
        _caller.set(who)
        return None


def _bounded(receive: Receive) -> Receive:
    """Reading that ends in ApiError 413 where a body is too large."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is over {MAX_BODY_BYTES} bytes")
        return message

    return bounded


def _token(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    token = token_in(headers.get("authorization"), headers.get("x-api-key"))
    if token is None and scope["method"] in READING:
        # A link that somebody follows can bring no header. Nothing here logs addresses.
        query = parse_qs(scope["query_string"].decode("latin-1"))
        token = next(iter(query.get(LINK_PARAMETER, ())), None)
    return token
