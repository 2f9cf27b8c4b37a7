"""Login by password or at an OpenID provider."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farebox_collector.ledger.access.sessions import Origin
from farebox_collector.ledger.access.tenants import DEFAULT_TENANT, tenants_after
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.callers import SESSION_COOKIE, peer_address
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.console.frame import framed
from farebox_collector.surfaces.console.openid import FLOW_SECONDS, Provider, ProviderRefused
from farebox_collector.surfaces.console.visit import (
    CSRF_FIELD,
    FLOW_COOKIE,
    FORM_COOKIE,
    Form,
    PageError,
    Visit,
    drop_cookie,
    form_of,
    form_token,
    new_form_secret,
    require_safe_transport,
    require_token,
    safe_next,
    set_cookie,
    visit_of,
)
from farebox_collector.surfaces.login_desk import LoginRefused
from farebox_collector.surfaces.passwords import TooBusy

_CALLBACK = "/login/oidc/callback"


class Login:
    """The pages to log in and out."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context = context
        self._provider = Provider(settings) if settings.oidc_issuer else None
        self._issuer = urlsplit(settings.oidc_issuer).hostname or ""
        self._tenant = settings.oidc_tenant
        self._roles = settings.oidc_roles
        self._seconds = int(settings.session_hours * 3600)

    async def show(self, request: Request) -> Response:
        """Show the login page; redirect a visitor who is logged in."""
        require_safe_transport(request, self._context.public_url)
        after = safe_next(request.query_params.get("next", ""))
        visit = await visit_of(request, self._context)
        if visit is not None and not visit.is_local:
            return RedirectResponse(after, 303)
        return await self._page(request, after, tenant=request.query_params.get("tenant", DEFAULT_TENANT)[:200])

    async def take(self, request: Request) -> Response:
        """Log in with a password."""
        require_safe_transport(request, self._context.public_url)
        form = await form_of(request)
        require_token(form_token(request.cookies.get(FORM_COOKIE, "")), form.get(CSRF_FIELD, ""))
        after = safe_next(form.get("next", ""))
        tenant, login = form.get("tenant", DEFAULT_TENANT)[:200], form.get("login", "")[:200]
        origin = self._origin(request, "password")
        logins = self._context.logins
        try:
            token = await asyncio.to_thread(logins.with_password, tenant, login, form.get("password", ""), origin)
        except LoginRefused as refused:
            response = await self._page(
                request,
                after,
                tenant=tenant,
                login=login,
                problem=str(refused),
                status=429 if refused.retry_after_s else 401,
            )
            if refused.retry_after_s:
                response.headers["Retry-After"] = str(refused.retry_after_s)
            return response
        except TooBusy:
            raise PageError(503, "Too many logins", "Too many logins at once. Try again in a minute.") from None
        return await self._begun(request, token, after)

    async def begin(self, request: Request) -> Response:
        """Redirect to the OpenID provider."""
        require_safe_transport(request, self._context.public_url)
        provider = self._required()
        after = safe_next(request.query_params.get("next", ""))
        try:
            begun = await asyncio.to_thread(provider.begin, self._redirect_uri(request), after)
        except ProviderRefused as refused:
            raise PageError(502, "The login failed", str(refused)) from None
        response = RedirectResponse(begun.url, 303, {"Cache-Control": "no-store"})
        set_cookie(response, FLOW_COOKIE, begun.flow, FLOW_SECONDS)
        return response

    async def finish(self, request: Request) -> Response:
        """Finish a login on the return from the OpenID provider."""
        require_safe_transport(request, self._context.public_url)
        provider, flow = self._required(), request.cookies.get(FLOW_COOKIE, "")
        try:
            finished = await asyncio.to_thread(provider.finish, request.url.query, flow, self._redirect_uri(request))
            token = await asyncio.to_thread(
                self._context.logins.with_identity,
                self._tenant,
                finished.claimed,
                self._roles,
                self._origin(request, "oidc"),
            )
        except (ProviderRefused, LoginRefused) as refused:
            raise PageError(403, "The login failed", str(refused)) from None
        response = await self._begun(request, token, finished.after)
        drop_cookie(response, FLOW_COOKIE)
        return response

    async def end(self, _request: Request, context: Context, visit: Visit, _form: Form) -> Response:
        """Log out."""
        if not visit.is_local:
            await asyncio.to_thread(context.logins.end, visit.token, visit.caller)
        response = RedirectResponse("/login", 303)
        drop_cookie(response, SESSION_COOKIE)
        return response

    async def _begun(self, request: Request, token: str, after: str) -> Response:
        """Start a new session and end the browser's previous one."""
        before = await visit_of(request, self._context)
        if before is not None and not before.is_local:
            await asyncio.to_thread(self._context.logins.end, before.token, before.caller)
        response = RedirectResponse(after, 303, {"Cache-Control": "no-store"})
        set_cookie(response, SESSION_COOKIE, token, self._seconds)
        drop_cookie(response, FORM_COOKIE)
        return response

    async def _page(self, request: Request, after: str, *, tenant: str, status: int = 200, **facts: Any) -> Response:
        kept = request.cookies.get(FORM_COOKIE, "")
        secret = kept if form_token(kept) else new_form_secret()
        several = await asyncio.to_thread(self._has_several_tenants)
        shown = {"csrf": form_token(secret), "next": after, "tenant": tenant, "login": "", "several_tenants": several}
        provider = self._issuer if self._provider else ""
        response = framed(request, None, "login.html", "/login", {**shown, "provider": provider, **facts}, status)
        set_cookie(response, FORM_COOKIE, secret)
        return response

    def _has_several_tenants(self) -> bool:
        with self._context.database.reading() as connection:
            return len(tenants_after(connection, limit=2)) > 1

    def _required(self) -> Provider:
        if self._provider is None:
            raise PageError(404, "No provider", "No OpenID provider is configured. Set FAREBOX_OIDC_ISSUER.")
        return self._provider

    def _redirect_uri(self, request: Request) -> str:
        base = self._context.public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
        return base + _CALLBACK

    @staticmethod
    def _origin(request: Request, method: str) -> Origin:
        return Origin(method, peer_address(request.scope), request.headers.get("user-agent", ""))
