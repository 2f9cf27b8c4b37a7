"""People over HTTP: the tenant's accounts, their sessions, and the caller's identity."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access import login_failures, people, sessions
from farebox_collector.ledger.access.people import (
    MAX_LOGIN,
    BadPerson,
    NoSuchPerson,
    PersonExists,
)
from farebox_collector.ledger.access.person_credentials import credentials_of, revoke_credentials
from farebox_collector.model.credentials import Role, Scope
from farebox_collector.model.moments import format_ns
from farebox_collector.surfaces.api.callers import caller, session_csrf_token
from farebox_collector.surfaces.api.context import Context, Name
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError
from farebox_collector.surfaces.passwords import (
    MAX_PASSWORD,
    MIN_PASSWORD,
    BadPassword,
    TooBusy,
    hash_password,
    new_password,
)

Changed = TypeVar("Changed")

_NO_SUCH_SESSION = "there is no such session"


class Person(BaseModel):
    """A person's account."""

    number: int
    login: str
    name: str
    role: Role
    has_password: bool = Field(description="False if the person logs in at the OpenID provider only.")
    disabled: bool
    created_at: str
    last_login_at: str | None


class ChangedPerson(Person):
    """An account with its keys and links."""

    working_keys: list[str] = Field(description="The person's working keys; `revoke` ends them.")
    working_links: int = Field(description="Working links that the person created with a session.")


class PersonRequest(BaseModel):
    """An account to create."""

    model_config = ConfigDict(extra="forbid")

    login: str = Field(min_length=1, max_length=MAX_LOGIN, description="a-z 0-9 . _ @ + -")
    name: Name = Field("", max_length=200)
    role: Role
    password: str | None = Field(
        None,
        min_length=MIN_PASSWORD,
        max_length=MAX_PASSWORD,
        description="By default generated and shown in the response.",
    )


class PersonChange(BaseModel):
    """Changes of an account; omitted fields stay."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, max_length=200)
    role: Role | None = None
    disabled: bool | None = Field(None, description="A disabled account cannot log in; its sessions end.")
    revoke: bool = Field(False, description="Also revoke the keys and links of an account that is disabled.")
    unlock: bool = Field(False, description="Allow logins again at once after too many failed attempts.")


class NewPassword(BaseModel):
    """A password for an account."""

    login: str
    password: str = Field(description="Shown only in this response; empty if the request had it.")


class PasswordRequest(BaseModel):
    """A password to set."""

    model_config = ConfigDict(extra="forbid")

    password: str | None = Field(None, min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class Session(BaseModel):
    """A person's active session."""

    session_id: str
    login: str
    method: str = Field(description="`password` or `oidc`.")
    address: str
    user_agent: str
    created_at: str
    last_used_at: str = Field(description="Accurate to about a minute.")
    expires_at: str


class Me(BaseModel):
    """The caller's identity and scopes."""

    login: str = Field(description="The person's login for a session; empty for a key.")
    key_id: str
    scopes: list[Scope]
    csrf_token: str = Field(description="Send as X-CSRF-Token with every session request but GET.")


def me_router(context: Context) -> APIRouter:
    """The endpoint /v1/me."""
    del context
    routes = APIRouter(prefix="/v1/me", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def get_me() -> Me:
        """Return the caller's identity, its scopes and its session's CSRF token."""
        who = caller()
        scopes = [scope for scope in Scope if who.may(scope)]
        return Me(login=who.login, key_id=who.key_id, scopes=scopes, csrf_token=session_csrf_token())

    return routes


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/people, for admins."""
    routes = APIRouter(prefix="/v1/people", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def list_people(cursor: Cursor = None, limit: Limit = 100) -> Page[Person]:
        """List the tenant's accounts in the order of creation."""
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = people.people_of(connection, context.tenant_id, after, limit + 1)
        return page(rows, limit, show_person, lambda row: (row.number,))

    @routes.post("", status_code=201)
    def create_person(request: PersonRequest) -> NewPassword:
        """Create an account. Without a password in the request, one is generated and shown only in the response."""
        return _create(context, request)

    @routes.patch("/{login}")
    def change_person(login: str, request: PersonChange) -> ChangedPerson:
        """Change an account's name or role, disable, enable or unlock it. Its sessions follow at once.

        A disabled person's keys and links keep working unless `revoke` is true.
        """
        return _change(context, login, request)

    @routes.post("/{login}/password")
    def set_password(login: str, request: PasswordRequest) -> NewPassword:
        """Set an account's password and end its sessions. Without one in the request, one is generated."""
        password = request.password or new_password()
        hashed = _hashed(password)

        def change(connection: Connection) -> NewPassword:
            people.set_password(connection, context.tenant_id, login, hashed, context.clock())
            return NewPassword(login=login.lower(), password="" if request.password else password)

        return _changed(context, change)

    return routes


def _create(context: Context, request: PersonRequest) -> NewPassword:
    password = request.password or new_password()
    hashed = _hashed(password)
    try:
        login = people.login_of(request.login)
        context.database.transact(
            lambda connection: people.create_person(
                connection,
                context.tenant_id,
                login,
                request.role,
                context.clock(),
                name=request.name,
                password_hash=hashed,
            )
        )
    except PersonExists:
        raise ApiError(409, "an account with this login already exists") from None
    except BadPerson as error:
        raise ApiError(422, f"login: {error}") from None
    return NewPassword(login=login, password="" if request.password else password)


def _change(context: Context, login: str, request: PersonChange) -> ChangedPerson:
    def change(connection: Connection) -> ChangedPerson:
        tenant_id, now_ns = context.tenant_id, context.clock()
        row = people.require_person(connection, tenant_id, login)
        if request.name is not None:
            people.set_name(connection, tenant_id, login, request.name, now_ns)
        if request.role is not None:
            people.set_role(connection, tenant_id, login, request.role, now_ns)
        if request.disabled is not None:
            people.set_disabled(connection, tenant_id, login, now_ns, disabled=request.disabled)
        if request.unlock:
            login_failures.unlock(connection, tenant_id, row.login, now_ns)
        if request.revoke:
            _require_disabled(people.require_person(connection, tenant_id, login))
            revoke_credentials(connection, tenant_id, row.number, now_ns)
        left = credentials_of(connection, tenant_id, row.number, now_ns)
        shown = show_person(people.require_person(connection, tenant_id, login))
        return ChangedPerson(**shown.model_dump(), working_keys=list(left.keys), working_links=left.links)

    return _changed(context, change)


def sessions_router(context: Context) -> APIRouter:
    """The endpoints under /v1/sessions, for admins."""
    routes = APIRouter(prefix="/v1/sessions", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def list_sessions(
        login: Annotated[Name, Query(max_length=MAX_LOGIN, description="Only sessions of this account.")] = "",
    ) -> Page[Session]:
        """List at most a thousand active sessions, newest first."""
        tenant_id, idle_ns = context.tenant_id, context.logins.lifetime.idle_ns
        with context.database.reading() as connection:
            person = None if not login else _required(connection, tenant_id, login).number
            rows = sessions.sessions_of(connection, tenant_id, idle_ns, context.clock(), person)
        return Page(items=[_show_session(row) for row in rows], next_cursor=None)

    @routes.delete("/{session_id}", status_code=204)
    def end_session(session_id: str) -> None:
        """End a session; every collector refuses it within a second."""

        def end(connection: Connection) -> None:
            try:
                sessions.end_session(connection, context.tenant_id, session_id, context.clock())
            except sessions.NoSuchSession:
                raise ApiError(404, _NO_SUCH_SESSION) from None

        _changed(context, end)

    return routes


def _require_disabled(row: Any) -> None:
    if row.disabled_at_ns is None:
        raise ApiError(422, "revoke: the account is not disabled; send disabled: true with it")


def show_person(row: Any) -> Person:
    """Convert a row of `people` to its API model."""
    return Person(
        number=row.number,
        login=row.login,
        name=row.name,
        role=row.role,
        has_password=bool(row.password_hash),
        disabled=row.disabled_at_ns is not None,
        created_at=format_ns(row.created_at_ns),
        last_login_at=None if row.last_login_at_ns is None else format_ns(row.last_login_at_ns),
    )


def _show_session(row: Any) -> Session:
    return Session(
        session_id=row.session_id,
        login=row.login,
        method=row.method,
        address=row.address,
        user_agent=row.user_agent,
        created_at=format_ns(row.created_at_ns),
        last_used_at=format_ns(row.last_used_at_ns),
        expires_at=format_ns(row.expires_at_ns),
    )


def _changed(context: Context, change: Callable[[Connection], Changed]) -> Changed:
    try:
        done = context.database.transact(change)
    except NoSuchPerson as error:
        raise ApiError(404, str(error)) from None
    context.logins.forget_all()
    return done


def _required(connection: Connection, tenant_id: int, login: str) -> Any:
    try:
        return people.require_person(connection, tenant_id, login)
    except NoSuchPerson as error:
        raise ApiError(404, str(error)) from None


def _hashed(password: str) -> str:
    try:
        return hash_password(password)
    except BadPassword as error:
        raise ApiError(422, f"password: {error}") from None
    except TooBusy:
        raise ApiError(503, "too many passwords are being checked; try again") from None
