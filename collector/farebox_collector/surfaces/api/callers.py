"""Authenticate and authorise callers: once a key exists, every path under /v1/ needs one with the right scope.

`Authentication` identifies the caller before the rest of the request is read, and bounds the body. `needs` makes the
dependency of each router that checks the caller's scopes. Paths without such a dependency are closed.
"""

import hmac
import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qs

from fastapi import Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import AfterValidator
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farebox_collector.admission.connections import note_key
from farebox_collector.admission.rates import Rates, TooMuch
from farebox_collector.cache.keyring import (
    Forbidden,
    KeyRing,
    TooManyUnknownKeys,
    Unauthenticated,
)
from farebox_collector.ledger.access.actors import actor_of, set_actor
from farebox_collector.ledger.access.refusals import Attempt, Refusals
from farebox_collector.ledger.access.sessions import SessionOver, csrf_token, is_session_token
from farebox_collector.metrics.meters import Meters
from farebox_collector.model import credentials
from farebox_collector.model.credentials import Caller, token_in
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.api.problems import ApiError, problem
from farebox_collector.surfaces.api.turns import TURN, Turn, Turns
from farebox_collector.surfaces.login_desk import LoginDesk

MAX_BODY_BYTES = 2**20
"""Largest body of a request to the API."""
LINK_PARAMETER = "token"
"""The query parameter that holds a signed link's token."""
ONE_WALLET = "x-one-wallet"
"""The OpenAPI extension that names the wallet parameter of a route open to single-wallet callers."""
SESSION_COOKIE = "__Host-farebox"
CSRF_HEADER = "x-csrf-token"
_NOT_YOURS = "this key may read one wallet only, and not this one"

_logger = logging.getLogger(__name__)

_caller: ContextVar[Caller] = ContextVar("caller")
_csrf: ContextVar[str] = ContextVar("csrf", default="")

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that only read."""
# For the documentation page, which has fields for them; `Authentication` reads them first.
_BEARER = HTTPBearer(auto_error=False, description="An API key, or the token of a signed link.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


def caller() -> Caller:
    """Return the caller of the current request. Raises LookupError outside a request."""
    return _caller.get()


def session_csrf_token() -> str:
    """Return the CSRF token that this session must send with every method but GET; empty without a session."""
    return _csrf.get()


def set_caller(who: Caller) -> None:
    """Set the caller for the rest of this request."""
    _caller.set(who)


ScopeSet = frozenset[credentials.Scope]
"""Scopes that a caller must have together."""


class Needs(NamedTuple):
    """The scopes that a router requires."""

    read: tuple[ScopeSet, ...]
    """Scopes for reading: any one of these sets is enough."""
    write: tuple[ScopeSet, ...]
    """Scopes for all other methods: any one of these sets is enough."""
    check: Callable[..., Awaitable[None]]
    """The dependency that admits a caller with one of these sets."""

    def of(self, method: str) -> tuple[ScopeSet, ...]:
        """Return the sets of scopes that allow a method."""
        return self.read if method in READING else self.write


def needs(
    read: credentials.Scope,
    write: credentials.Scope | ScopeSet,
    *,
    or_write: credentials.Scope | None = None,
    slow: bool = False,
) -> Needs:
    """Require a scope: `read` for GET, `write` or `or_write` for other methods.

    A set holds scopes that are needed together. A single-wallet caller is admitted only if the handler declares a
    parameter with `OWN_WALLET`, and only for its own wallet. If `slow`, fewer requests are answered at once.
    """

    async def check(
        request: Request,
        _bearer: Annotated[object, Security(_BEARER)] = None,
        _header: Annotated[object, Security(_HEADER)] = None,
    ) -> None:
        who = caller()
        wanted = needed.of(request.method)
        if not any(all(who.may(scope) for scope in together) for together in wanted):
            raise ApiError(403, f"this key lacks the scope {scope_names(wanted[0])}")
        if who.wallet and not _names_own_wallet(request, who.wallet):
            raise ApiError(403, _NOT_YOURS)
        if slow or request.method in READING:
            turn: Turn = request.scope[TURN]
            await turn.take(who.tenant_id, slow=slow)

    written = [write if isinstance(write, frozenset) else frozenset({write})]
    written += [] if or_write is None else [frozenset({or_write})]
    needed = Needs((frozenset({read}),), tuple(written), check)
    return needed


def scope_names(together: ScopeSet) -> str:
    """Return scopes separated by spaces, as in OAuth."""
    return " ".join(sorted(together))


def _own(wallet: str) -> str:
    """Return the normalised wallet name. Raises ApiError 403 if the caller may only read another wallet."""
    who, wallet = caller(), name_in_books(wallet)
    if who.wallet and wallet != who.wallet:
        raise ApiError(403, _NOT_YOURS)
    return wallet


OWN_WALLET = AfterValidator(_own)
"""Marks the handler parameter that names the wallet to read: `wallet: Annotated[str, OWN_WALLET]`.

It opens the route to single-wallet callers. The handler receives the value that was checked.
"""
OwnWallet = Annotated[str, OWN_WALLET]
"""The name of a wallet in a path."""


class WalletParameter(NamedTuple):
    """The route parameter that holds the wallet's name."""

    place: Literal["path", "query"]
    name: str


def wallet_parameter(route: APIRoute) -> WalletParameter | None:
    """Return the route parameter marked with `OWN_WALLET`; None if single-wallet callers may not use the route.

    Raises TypeError for two such parameters: each wallet would need its own check.
    """
    marked = [
        name
        for name, parameter in inspect.signature(route.endpoint).parameters.items()
        if OWN_WALLET in getattr(parameter.annotation, "__metadata__", ())
    ]
    if len(marked) > 1:
        raise TypeError(f"{route.path}: mark one parameter with OWN_WALLET, not {len(marked)}")
    if not marked:
        return None
    return WalletParameter("path" if marked[0] in route.param_convertors else "query", marked[0])


def _names_own_wallet(request: Request, wallet: str) -> bool:
    """Return whether the request's route reads one wallet and names exactly this wallet."""
    found = (getattr(request.scope.get("route"), "openapi_extra", None) or {}).get(ONE_WALLET)
    if found is None:
        return False
    if found["in"] == "path":
        return name_in_books(request.path_params.get(found["name"]) or "") == wallet
    return [name_in_books(name) for name in request.query_params.getlist(found["name"])] == [wallet]


class Authentication:
    """ASGI middleware that authenticates the caller and bounds the body."""

    def __init__(
        self,
        app: ASGIApp,
        keyring: KeyRing,
        meters: Meters,
        port: str,
        prefix: str = "/v1/",
        open_paths: frozenset[str] = frozenset(),
        scope: credentials.Scope | None = None,
        rates: Rates | None = None,
        refusals: Refusals | None = None,
        logins: LoginDesk | None = None,
    ) -> None:
        """Require a key for paths under `prefix`, except `open_paths`, which authenticate callers themselves.

        With a `scope`, the key must have it and belong to the operating tenant. `refusals` counts every 401 and 403
        response. With `logins`, a person's session cookie is accepted as well.
        """
        self._app = app
        self._keyring = keyring
        self._meters = meters
        self._port = port
        self._prefix = prefix
        self._open_paths = open_paths
        self._scope = scope
        self._rates = rates
        self._turns = Turns()
        self._refusals = refusals
        self._logins = logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or answer 401, 403, 413, 429 or 503."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        if self._refusals is not None:
            send = _watched(scope, send, self._refusals)
        if scope["path"] not in self._open_paths:
            refusal = await self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        turn = scope[TURN] = Turn(self._turns)
        try:
            await self._app(scope, _bounded(receive), turn.watched(send))
        finally:
            turn.end()

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return the refusal, or set the caller and return None."""
        try:
            who = await self._caller_of(scope)
            if self._scope and (who.tenant_id != DEFAULT_TENANT_ID or who.wallet):
                raise Forbidden("only keys of the operating tenant may do this")
            if self._rates is not None and self._rates.are_set:
                await self._rates.admit(who, brings_usage=False)
        except Unauthenticated as error:
            self._meters.turned_away(self._port, error.reason)
            answer = problem(401, str(error))
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        except Forbidden as error:
            self._meters.turned_away(self._port, error.reason)
            return problem(403, str(error))
        except TooMuch as error:
            answer = problem(429, str(error))
            answer.headers["Retry-After"] = str(math.ceil(error.delay_s))
            return answer
        except TooManyUnknownKeys as error:
            answer = problem(503, str(error))
            answer.headers["Retry-After"] = "2"
            return answer
        except DBAPIError:
            # The key may be valid: do not answer that it is wrong.
            _logger.exception("cannot look up an API key")
            answer = problem(503, "the database cannot be read now; try again")
            answer.headers["Retry-After"] = "2"
            return answer
        _caller.set(who)
        set_actor(actor_of(who, peer_address(scope)))
        note_key(scope, who)
        return None

    async def _caller_of(self, scope: Scope) -> Caller:
        """Return the caller of the request's key, link or session."""
        token = _token(scope)
        session = "" if token is not None or self._logins is None else session_cookie(scope)
        if session and self._logins is not None:
            try:
                found = await self._logins.session(session)
            except SessionOver:
                found = None
            if found is not None:
                _csrf.set(csrf_token(session))
                if scope["method"] not in READING:
                    _require_csrf_token(scope, session)
                return found.caller
        return await self._keyring.caller(token, self._scope)


def session_cookie(scope: Scope) -> str:
    """Return the session token in the request's cookie; empty without a well-formed one."""
    token = cookie_parser(Headers(scope=scope).get("cookie", "")).get(SESSION_COOKIE, "")
    return token if is_session_token(token) else ""


def _require_csrf_token(scope: Scope, session: str) -> None:
    """Raise Forbidden without the session's CSRF token, which no other origin can read."""
    given = Headers(scope=scope).get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode("latin-1"), csrf_token(session).encode()):
        raise Forbidden("send the session's token in X-CSRF-Token; `GET /v1/me` returns it")


def _watched(scope: Scope, send: Send, refusals: Refusals) -> Send:
    """Wrap `send` so that refused callers are counted."""

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (401, 403):
            who = _caller.get(None)
            route = getattr(scope.get("route"), "path", "") or "unknown path"
            if message["status"] == 401 or who is None:
                attempt = Attempt(DEFAULT_TENANT_ID, "unknown", "log in", "no valid key or session")
            else:
                actor = actor_of(who, "").name
                attempt = Attempt(who.tenant_id, actor, f"{scope['method']} {route}", "not allowed")
            refusals.count(attempt, peer_address(scope))
        await send(message)

    return watched


def peer_address(scope: Scope) -> str:
    """Return the request's client address; empty if the server does not know it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _bounded(receive: Receive) -> Receive:
    """Wrap `receive` so that a body that is too large raises ApiError 413."""
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
        # A followed link cannot send a header. URLs are not logged here.
        query = parse_qs(scope["query_string"].decode("latin-1"))
        token = next(iter(query.get(LINK_PARAMETER, ())), None)
    return token
