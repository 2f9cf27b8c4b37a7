"""People over HTTP: accounts of the tenant, their sessions, and who the caller is."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access import login_failures, people, sessions
from farebox_collector.ledger.access.belongings import belongings_of, revoke_belongings
from farebox_collector.ledger.access.people import (
    MAX_LOGIN,
    BadPerson,
    NoSuchPerson,
    PersonExists,
)
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
    """An account with which a human logs in."""

    number: int
    login: str
    name: str
    role: Role
    has_password: bool = Field(description="False for one that logs in at the OpenID provider only.")
    disabled: bool
    created_at: str
    last_login_at: str | None


class ChangedPerson(Person):
    """An account, and what belongs to it."""

    working_keys: list[str] = Field(description="Keys of the person that still work; `revoke` ends them.")
    working_links: int = Field(description="Links that the person minted with a session and that still work.")


class PersonRequest(BaseModel):
    """An account to make."""

    model_config = ConfigDict(extra="forbid")

    login: str = Field(min_length=1, max_length=MAX_LOGIN, description="a-z 0-9 . _ @ + -")
    name: Name = Field("", max_length=200)
    role: Role
    password: str | None = Field(
        None,
        min_length=MIN_PASSWORD,
        max_length=MAX_PASSWORD,
        description="By default one is made, and shown in the answer.",
    )


class PersonChange(BaseModel):
    """What to change of an account; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(None, max_length=200)
    role: Role | None = None
    disabled: bool | None = Field(None, description="A disabled account cannot log in; its sessions end.")
    revoke: bool = Field(False, description="Also revoke the keys and links of an account that is disabled.")
    unlock: bool = Field(False, description="Let it log in again at once after too many failed attempts.")


class NewPassword(BaseModel):
    """A password for an account."""

    login: str
    password: str = Field(description="Shown here and never again; empty where the request had it.")


class PasswordRequest(BaseModel):
    """A password to set."""

    model_config = ConfigDict(extra="forbid")

    password: str | None = Field(None, min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class Session(BaseModel):
    """A session of a person that lasts."""

    session_id: str
    login: str
    method: str = Field(description="`password` or `oidc`.")
    address: str
    user_agent: str
    created_at: str
    last_used_at: str = Field(description="Within a minute or so.")
    expires_at: str


class Me(BaseModel):
    """Who the caller is, and what it may do."""

    login: str = Field(description="Of a person with a session; empty for a key.")
    key_id: str
    scopes: list[Scope]
    csrf_token: str = Field(description="What a person's session sends as X-CSRF-Token with everything but GET.")


def me_router(context: Context) -> APIRouter:
    """The endpoint /v1/me."""
    del context
    routes = APIRouter(prefix="/v1/me", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def get_me() -> Me:
        """Who the caller is, what it may do, and the token that requests of its session carry."""
        who = caller()
        scopes = [scope for scope in Scope if who.may(scope)]
        return Me(login=who.login, key_id=who.key_id, scopes=scopes, csrf_token=session_csrf_token())

    return routes


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/people, for admins."""
    routes = APIRouter(prefix="/v1/people", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def list_people(cursor: Cursor = None, limit: Limit = 100) -> Page[Person]:
        """The tenant's accounts, in the order in which they were made."""
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = people.people_of(connection, context.tenant_id, after, limit + 1)
        return page(rows, limit, show_person, lambda row: (row.number,))

    @routes.post("", status_code=201)
    def create_person(request: PersonRequest) -> NewPassword:
        """Make an account. Where the request has no password, the answer has one, and nowhere else, ever."""
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
            raise ApiError(409, "there is an account of this login already") from None
        except BadPerson as error:
            raise ApiError(422, f"login: {error}") from None
        return NewPassword(login=login, password="" if request.password else password)

    @routes.patch("/{login}")
    def change_person(login: str, request: PersonChange) -> ChangedPerson:
        """Change the name or the role of an account, disable or enable it, unlock it. Its sessions follow at once.

        Keys of a disabled person, and links that the person minted, go on working unless `revoke` is true.
        """

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
                revoke_belongings(connection, tenant_id, row.number, now_ns)
            left = belongings_of(connection, tenant_id, row.number, now_ns)
            shown = show_person(people.require_person(connection, tenant_id, login))
            return ChangedPerson(**shown.model_dump(), working_keys=list(left.keys), working_links=left.links)

        return _changed(context, change)

    @routes.post("/{login}/password")
    def set_password(login: str, request: PasswordRequest) -> NewPassword:
        """Give an account another password, and end its sessions. Without one in the request, the answer has it."""
        password = request.password or new_password()
        hashed = _hashed(password)

        def change(connection: Connection) -> NewPassword:
            people.set_password(connection, context.tenant_id, login, hashed, context.clock())
            return NewPassword(login=login.lower(), password="" if request.password else password)

        return _changed(context, change)

    return routes


def sessions_router(context: Context) -> APIRouter:
    """The endpoints under /v1/sessions, for admins."""
    routes = APIRouter(prefix="/v1/sessions", tags=["people"], responses=RESPONSES)

    @routes.get("")
    def list_sessions(
        login: Annotated[Name, Query(max_length=MAX_LOGIN, description="Only of this account.")] = "",
    ) -> Page[Session]:
        """The sessions of people that last, newest first, a thousand at most."""
        tenant_id, idle_ns = context.tenant_id, context.logins.lifetime.idle_ns
        with context.database.reading() as connection:
            person = None if not login else _required(connection, tenant_id, login).number
            rows = sessions.sessions_of(connection, tenant_id, idle_ns, context.clock(), person)
        return Page(items=[_show_session(row) for row in rows], next_cursor=None)

    @routes.delete("/{session_id}", status_code=204)
    def end_session(session_id: str) -> None:
        """End a session; it works no longer than a second, at every collector."""

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
    """A row of `people` as the API shows it."""
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
        raise ApiError(503, "many passwords are being checked now; try again") from None
