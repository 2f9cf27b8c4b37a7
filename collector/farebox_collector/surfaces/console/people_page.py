"""The page of a tenant's accounts and roles, for admins."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farebox_collector.ledger.access import people, sessions
from farebox_collector.ledger.access.people import BadPerson, NoSuchPerson, PersonExists
from farebox_collector.model.credentials import Role
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.console.account import shown_moment
from farebox_collector.surfaces.console.frame import PEOPLE, framed
from farebox_collector.surfaces.console.visit import Form, PageError, Visit
from farebox_collector.surfaces.passwords import TooBusy, hash_password, new_password

_SHOWN = 500


async def show(request: Request, context: Context, visit: Visit) -> Response:
    """The page."""
    return await _page(request, context, visit)


async def create(request: Request, context: Context, visit: Visit, form: Form) -> Response:
    """Create an account and show its password once."""
    password, role, name = new_password(), _role(form), form.get("name", "").strip()[:200]
    if not name.isprintable():
        raise PageError(422, "Not created", "A name must have printable characters only.")
    hashed = await _hashed(password)

    def make(connection: Connection) -> None:
        people.create_person(
            connection,
            visit.caller.tenant_id,
            form.get("login", ""),
            role,
            context.clock(),
            name=name,
            password_hash=hashed,
        )

    try:
        await asyncio.to_thread(context.database.transact, make)
    except PersonExists as error:
        return await _page(request, context, visit, problem=f"The account {error} already exists.", status=409)
    except BadPerson as error:
        return await _page(request, context, visit, problem=f"Not created: {error}.", status=422)
    return await _page(request, context, visit, new_password=password, new_login=form.get("login", ""), status=201)


async def change(request: Request, context: Context, visit: Visit, form: Form) -> Response:
    """Change an account's role or password, end its sessions, disable or enable it."""
    login, what = request.path_params["login"], form.get("do", "")
    tenant_id, now_ns = visit.caller.tenant_id, context.clock()
    password = new_password() if what == "password" else ""
    hashed = await _hashed(password) if password else ""
    role = _role(form) if what == "role" else Role.VIEWER
    changes: dict[str, Callable[[Connection], Any]] = {
        "role": lambda connection: people.set_role(connection, tenant_id, login, role, now_ns),
        "password": lambda connection: people.set_password(connection, tenant_id, login, hashed, now_ns),
        "disable": lambda connection: people.set_disabled(connection, tenant_id, login, now_ns, disabled=True),
        "enable": lambda connection: people.set_disabled(connection, tenant_id, login, now_ns, disabled=False),
        "sessions": lambda connection: sessions.end_sessions_of(
            connection, tenant_id, people.require_person(connection, tenant_id, login).number, now_ns
        ),
    }
    if what not in changes:
        raise PageError(422, "Nothing to do", "The form names no action. Use the buttons of the page.")
    try:
        await asyncio.to_thread(context.database.transact, changes[what])
    except NoSuchPerson as error:
        raise PageError(404, "No such account", str(error)) from None
    context.logins.forget_all()
    if not password:
        return RedirectResponse(PEOPLE, 303)
    return await _page(request, context, visit, new_password=password, new_login=login)


async def _page(
    request: Request, context: Context, visit: Visit, *, problem: str = "", status: int = 200, **facts: str
) -> Response:
    found = await asyncio.to_thread(_read, context, visit.caller.tenant_id)
    shown = {"people": found, "roles": [role.value for role in Role], "problem": problem, "new_password": ""}
    return framed(request, visit, "people.html", PEOPLE, {**shown, **facts}, status)


def _read(context: Context, tenant_id: int) -> list[dict[str, Any]]:
    with context.database.reading() as connection:
        rows = people.people_of(connection, tenant_id, limit=_SHOWN)
        lasting = sessions.sessions_of(connection, tenant_id, context.logins.lifetime.idle_ns, context.clock())
    open_sessions = Counter(session.person for session in lasting)
    return [
        {
            "login": row.login,
            "name": row.name,
            "role": row.role,
            "disabled": row.disabled_at_ns is not None,
            "last_login": "" if row.last_login_at_ns is None else shown_moment(row.last_login_at_ns),
            "sessions": open_sessions[row.number],
        }
        for row in rows
    ]


def _role(form: Form) -> Role:
    try:
        return Role(form.get("role", ""))
    except ValueError:
        raise PageError(422, "No such role", f"Choose one of {', '.join(Role)}.") from None


async def _hashed(password: str) -> str:
    try:
        return await asyncio.to_thread(hash_password, password)
    except TooBusy:
        raise PageError(503, "Too many logins", "Too many logins at once. Try again in a minute.") from None
