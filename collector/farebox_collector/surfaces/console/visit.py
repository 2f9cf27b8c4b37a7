"""A visit to the console: the visitor, the cookies and form tokens that prove the session.

Cookies are `__Host-`: a browser accepts them over TLS or from loopback only, and no other host can set them. Every form
carries a token derived from the session, so that no other site can send it.
"""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from farebox_collector.cache.keyring import WITHOUT_KEYS
from farebox_collector.ledger.access.actors import actor_of, set_actor
from farebox_collector.ledger.access.sessions import SessionOver, csrf_token, is_session_token
from farebox_collector.model.credentials import Caller, Role, Scope
from farebox_collector.surfaces.api.callers import SESSION_COOKIE, peer_address, set_caller
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.api.hosts import host_name

FORM_COOKIE = "__Host-farebox-form"
"""The cookie from which form tokens are derived when there is no session."""
FLOW_COOKIE = "__Host-farebox-login"
"""The cookie of a login that continues at the OpenID provider."""
CSRF_FIELD = "csrf"
HOME = "/console/"
MAX_FORM_BYTES = 16_384
_MAX_FIELDS = 50
_LEAST_SECRET = 32
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

Form = Mapping[str, str]


class PageError(Exception):
    """A page cannot be shown or a form is refused; the message is for the visitor."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class Visit(NamedTuple):
    """Who visits."""

    caller: Caller
    name: str
    role: Role
    token: str
    """The session's token; empty for `local`, while there is no key."""
    csrf: str
    """The token that every form of this visit carries."""
    form_secret: str = ""
    """A new value for the form cookie; empty if one exists or none is needed."""

    @property
    def is_local(self) -> bool:
        """Whether the visitor is `local`: any process on loopback, while there is no key."""
        return not self.token


async def visit_of(request: Request, context: Context) -> Visit | None:
    """Return the visit of a person's session, or of `local` while there is no key; None must log in."""
    token = request.cookies.get(SESSION_COOKIE, "")
    visit: Visit | None = None
    if token and is_session_token(token):
        try:
            found = await context.logins.session(token)
            visit = Visit(found.caller, found.name, found.role, token, csrf_token(token))
        except SessionOver:
            visit = None
    if visit is None and not await asyncio.to_thread(context.keyring.needs_keys):
        secret = request.cookies.get(FORM_COOKIE, "")
        made = "" if len(secret) >= _LEAST_SECRET else new_form_secret()
        visit = Visit(WITHOUT_KEYS, "local", Role.ADMIN, "", form_token(made or secret), made)
    if visit is not None:
        set_caller(visit.caller)
        set_actor(actor_of(visit.caller, peer_address(request.scope)))
    return visit


def form_token(secret: str) -> str:
    """Return the form token without a session, derived from a cookie that only this host can set; empty if none."""
    return hmac.digest(secret.encode(), b"form", "sha256").hex() if len(secret) >= _LEAST_SECRET else ""


def new_form_secret() -> str:
    """Return a new value for the form cookie."""
    return secrets.token_urlsafe(32)


def keep_form_cookie(visit: Visit, response: Response) -> Response:
    """Set the form cookie if the visit needs one."""
    if visit.form_secret:
        set_cookie(response, FORM_COOKIE, visit.form_secret)
    return response


def require_token(expected: str, given: str) -> None:
    """Raise PageError unless a form carries the expected token."""
    if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
        raise PageError(403, "Form refused", "This form is from another session or page. Load the page again.")


async def form_of(request: Request) -> Form:
    """Return the fields of a form. Raises PageError if the body is no form or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise PageError(415, "Not a form", "Send the page's form.")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                raise PageError(413, "Too large", "The form is too large.")
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except (ValueError, ClientDisconnect):
        raise PageError(400, "Not a form", "The form cannot be read.") from None
    return dict(pairs)


def require_scope(visit: Visit, scope: Scope) -> None:
    """Raise PageError unless a visitor has a scope."""
    if not visit.caller.may(scope):
        raise PageError(403, "Not allowed", f"Your role {visit.role} may not do this. Ask an admin.")


def require_safe_transport(request: Request, public_url: str) -> None:
    """Raise PageError for a login over plain HTTP from another machine, which the network could read."""
    host = host_name(request.headers.get("host", ""))
    safe = request.url.scheme == "https" or host in _LOOPBACK or urlsplit(public_url).scheme == "https"
    if not safe:
        raise PageError(
            403,
            "TLS is needed",
            "Logins need TLS, or a browser on this machine: set FAREBOX_TLS_CERTIFICATE, or FAREBOX_PUBLIC_URL to the"
            " https address where TLS ends in front.",
        )


def set_cookie(response: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Set a `__Host-` cookie: for this host only, over TLS, hidden from scripts, not sent by other sites."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def drop_cookie(response: Response, name: str) -> None:
    """Delete a cookie."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def to_login(request: Request) -> Response:
    """Redirect to the login page, which returns to this page."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(safe_next(path), safe='')}", 303)


def safe_next(wanted: str) -> str:
    """Return a console page to redirect to; the home page for a target that could lead elsewhere."""
    good = wanted.startswith("/console/") and wanted.isprintable() and "\\" not in wanted and len(wanted) <= 2_000
    return wanted if good else HOME
