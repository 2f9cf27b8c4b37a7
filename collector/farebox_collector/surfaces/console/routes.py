"""Routes of the console and their required scopes; visitors without a session are sent to the login."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from farebox_collector.ledger.access.actors import actor_of
from farebox_collector.ledger.access.refusals import Attempt
from farebox_collector.model.credentials import Scope
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.callers import peer_address
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.console import (
    account,
    approvals_page,
    people_page,
    render,
)
from farebox_collector.surfaces.console.frame import (
    ACCOUNT,
    APPROVALS,
    PEOPLE,
    error_page,
    framed,
    sections_of,
)
from farebox_collector.surfaces.console.login import Login
from farebox_collector.surfaces.console.visit import (
    CSRF_FIELD,
    HOME,
    Form,
    PageError,
    Visit,
    form_of,
    keep_form_cookie,
    require_scope,
    require_token,
    safe_next,
    to_login,
    visit_of,
)

Handler = Callable[[Request], Awaitable[Response]]
Show = Callable[[Request, Context, Visit], Awaitable[Response]]
Do = Callable[[Request, Context, Visit, Form], Awaitable[Response]]


def console_routes(context: Context, settings: Settings) -> Sequence[BaseRoute]:
    """Return the routes of the console and the login."""
    render.compile_templates()
    login = Login(context, settings)

    def get(path: str, show: Show, scope: Scope | None = None) -> Route:
        async def handler(request: Request) -> Response:
            return await _shown(request, context, show, scope)

        return Route(path, handler, methods=["GET"])

    def post(path: str, do: Do, scope: Scope | None = None) -> Route:
        async def handler(request: Request) -> Response:
            return await _done(request, context, do, scope)

        return Route(path, handler, methods=["POST"])

    return [
        Route("/login", _guarded(login.show, context), methods=["GET"]),
        Route("/login", _guarded(login.take, context), methods=["POST"]),
        Route("/login/oidc", _guarded(login.begin, context), methods=["GET"]),
        Route("/login/oidc/callback", _guarded(login.finish, context), methods=["GET"]),
        post("/logout", login.end),
        Route("/console", lambda _request: RedirectResponse(HOME, 308), methods=["GET"]),
        Route("/console/static/{name}", _static, methods=["GET"]),
        get(HOME, _home),
        post("/console/theme", _theme),
        get(ACCOUNT, account.show),
        post(ACCOUNT + "/sessions/{session_id}/end", account.end_one),
        post(ACCOUNT + "/password", account.change_password),
        get(APPROVALS, approvals_page.show, Scope.READ),
        post(APPROVALS + "/{number:int}", approvals_page.decide, Scope.READ),
        get(PEOPLE, people_page.show, Scope.ADMIN),
        post(PEOPLE, people_page.create, Scope.ADMIN),
        post(PEOPLE + "/{login}/change", people_page.change, Scope.ADMIN),
    ]


async def _shown(request: Request, context: Context, show: Show, scope: Scope | None) -> Response:
    visit = await visit_of(request, context)
    if visit is None:
        return to_login(request)
    try:
        if scope is not None:
            require_scope(visit, scope)
        return keep_form_cookie(visit, await show(request, context, visit))
    except PageError as error:
        return _refused(request, context, visit, error)


async def _done(request: Request, context: Context, do: Do, scope: Scope | None) -> Response:
    visit = await visit_of(request, context)
    try:
        if visit is None:
            raise PageError(401, "Logged out", "The session has ended. Log in and fill in the form again.")
        form = await form_of(request)
        require_token(visit.csrf, form.get(CSRF_FIELD, ""))
        if scope is not None:
            require_scope(visit, scope)
        return keep_form_cookie(visit, await do(request, context, visit, form))
    except PageError as error:
        return _refused(request, context, visit, error)


def _guarded(handler: Handler, context: Context) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except PageError as error:
            return _refused(request, context, None, error)

    return guarded


def _refused(request: Request, context: Context, visit: Visit | None, error: PageError) -> Response:
    """Return an error page; refused actions are recorded in the audit log."""
    if error.status in (401, 403):
        what = f"{request.method} {getattr(request.scope.get('route'), 'path', request.url.path)}"
        who = actor_of(visit.caller, "").name if visit else "unknown"
        tenant_id = visit.caller.tenant_id if visit else DEFAULT_TENANT_ID
        context.refusals.count(Attempt(tenant_id, who, what, error.title), peer_address(request.scope))
    return error_page(request, visit, error)


async def _home(request: Request, _context: Context, visit: Visit) -> Response:
    return framed(request, visit, "home.html", HOME, {"cards": sections_of(visit)})


async def _theme(_request: Request, _context: Context, _visit: Visit, form: Form) -> Response:
    theme = form.get("theme", "")
    response = RedirectResponse(safe_next(form.get("next", "")), 303)
    if theme in render.THEMES:
        response.set_cookie(render.THEME_COOKIE, theme, max_age=31_536_000, path="/", samesite="lax", httponly=True)
    return response


async def _static(request: Request) -> Response:
    found = render.static_file(request.path_params["name"])
    return Response(status_code=404) if found is None else found
