"""The account page: a person's role, sessions and password."""

import asyncio
from functools import partial
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farebox_collector.ledger.access import people, sessions
from farebox_collector.model.credentials import SCOPES_OF, Scope
from farebox_collector.model.moments import format_ns
from farebox_collector.surfaces.api.callers import SESSION_COOKIE
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.console.frame import ACCOUNT, framed
from farebox_collector.surfaces.console.visit import (
    Form,
    PageError,
    Visit,
    drop_cookie,
)
from farebox_collector.surfaces.login_desk import LoginRefused
from farebox_collector.surfaces.passwords import BadPassword, TooBusy, hash_password


async def show(request: Request, context: Context, visit: Visit) -> Response:
    """The page."""
    return await _page(request, context, visit)


async def end_one(request: Request, context: Context, visit: Visit, _form: Form) -> Response:
    """End one of the visitor's own sessions."""
    session_id, caller = request.path_params["session_id"], visit.caller

    def end(connection: Connection) -> None:
        sessions.end_session(connection, caller.tenant_id, session_id, context.clock(), of_person=caller.person)

    try:
        await asyncio.to_thread(context.database.transact, end)
    except sessions.NoSuchSession:
        raise PageError(404, "No such session", "You have no session of this id.") from None
    context.logins.forget_person(caller.tenant_id, caller.person)
    if session_id != caller.session_id:
        return RedirectResponse(ACCOUNT, 303)
    return _logged_out()


async def change_password(request: Request, context: Context, visit: Visit, form: Form) -> Response:
    """Change the visitor's password and end all their sessions."""
    caller = visit.caller
    if not caller.login:
        raise PageError(404, "No password", "There is no API key yet, so there are no logins. Create a key first.")
    try:
        await asyncio.to_thread(_change, context, visit, form.get("old", ""), form.get("new", ""))
    except BadPassword as error:
        return await _page(request, context, visit, f"Not changed: {error}.", 422)
    except LoginRefused as refused:
        return await _page(request, context, visit, str(refused), 429)
    except TooBusy:
        return await _page(request, context, visit, "Not changed: too many logins at once. Try again.", 503)
    context.logins.forget_person(caller.tenant_id, caller.person)
    return _logged_out()


def _change(context: Context, visit: Visit, old: str, new: str) -> None:
    caller, now_ns = visit.caller, context.clock()
    if not context.logins.proves_password(caller.tenant_id, caller.login, old):
        raise BadPassword("the current password is wrong")
    hashed = hash_password(new)
    context.database.transact(
        lambda connection: people.set_password(connection, caller.tenant_id, caller.login, hashed, now_ns)
    )


async def _page(request: Request, context: Context, visit: Visit, problem: str = "", status: int = 200) -> Response:
    found, has_password = await asyncio.to_thread(partial(_read, context, visit))
    lifetime = context.logins.lifetime
    facts = {
        "problem": problem,
        "scopes": sorted(scope.value for scope in (SCOPES_OF[visit.role] if visit.token else Scope)),
        "sessions": found,
        "has_password": has_password,
        "idle": _duration(lifetime.idle_ns),
        "absolute": _duration(lifetime.absolute_ns),
    }
    return framed(request, visit, "account.html", ACCOUNT, facts, status)


def _read(context: Context, visit: Visit) -> tuple[list[dict[str, Any]], bool]:
    caller = visit.caller
    if visit.is_local:
        return [], False
    with context.database.reading() as connection:
        rows = sessions.sessions_of(
            connection, caller.tenant_id, context.logins.lifetime.idle_ns, context.clock(), caller.person, limit=100
        )
        person = people.person_of(connection, caller.tenant_id, caller.person)
    return [show_session(row) for row in rows], bool(person is not None and person.password_hash)


def show_session(row: Any) -> dict[str, Any]:
    """Convert a row of `sessions` for pages."""
    return {
        "id": row.session_id,
        "since": shown_moment(row.created_at_ns),
        "used": shown_moment(row.last_used_at_ns),
        "address": row.address or "unknown",
        "method": row.method,
        "user_agent": row.user_agent,
    }


def shown_moment(at_ns: int) -> str:
    """Format a time to the minute, in UTC."""
    return format_ns(at_ns)[:16].replace("T", " ") + " UTC"


def _duration(nanoseconds: int) -> str:
    minutes = nanoseconds // (60 * 10**9)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def _logged_out() -> Response:
    response = RedirectResponse("/login", 303)
    drop_cookie(response, SESSION_COOKIE)
    return response
