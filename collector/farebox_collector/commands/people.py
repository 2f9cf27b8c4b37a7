"""`farebox people`: manage people's accounts, including password resets."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    out,
    print_json,
    print_once,
    print_table,
    reading_books,
    writing,
)
from farebox_collector.ledger.access import login_failures, people, sessions
from farebox_collector.ledger.access.people import (
    BadPerson,
    Identity,
    NoSuchPerson,
    PersonExists,
)
from farebox_collector.ledger.access.person_credentials import credentials_of, revoke_credentials
from farebox_collector.model.credentials import Role
from farebox_collector.surfaces.api.people import show_person
from farebox_collector.surfaces.passwords import BadPassword, hash_password, new_password

app = typer.Typer(help="Accounts of people who log in to the console.", no_args_is_help=True)

Login = Annotated[str, typer.Argument(help="The login, such as ada or ada@example.com.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of generating one.")
]


@app.command("create")
def create_command(
    login: Login,
    role: Annotated[Role, typer.Option(help="The person's role.")],
    name: Annotated[str, typer.Option(help="The name to show.")] = "",
    no_password: Annotated[bool, typer.Option("--no-password", help="Log in at the OpenID provider only.")] = False,
    password_stdin: FromStdin = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Create an account and print its password. It is shown only once."""
    password = "" if no_password else _password(password_stdin)
    hashed = _hashed(password) if password else ""
    with _changing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        people.create_person(connection, tenant_id, login, role, time.time_ns(), name=name, password_hash=hashed)
    _print_password(password, password_stdin)


@app.command("list")
def list_command(
    limit: Limit = 100, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List a tenant's accounts: role and last login."""
    with reading_books(database_url) as connection:
        rows = people.people_of(connection, tenant_id_of(connection, tenant), limit=limit)
    shown = [show_person(row) for row in rows]
    if as_json:
        print_json([person.model_dump(mode="json") for person in shown])
        return
    table = figure_table("People", "login", "name", "role", "last login", "")
    for person in shown:
        state = "disabled" if person.disabled else ""
        table.add_row(person.login, person.name, person.role, (person.last_login_at or "")[:19], state)
    print_table(table, len(shown), limit)


@app.command("role")
def role_command(login: Login, role: Role, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Change an account's role; its sessions follow within a second."""
    with _changing(database_url) as connection:
        people.set_role(connection, tenant_id_of(connection, tenant), login, role, time.time_ns())
    out.print(f"{login} is {role.value} now.")


@app.command("password")
def password_command(
    login: Login, password_stdin: FromStdin = False, tenant: TenantName = "default", database_url: DatabaseUrl = None
) -> None:
    """Set a new password and print it; end the account's sessions and unlock it."""
    password = _password(password_stdin)
    hashed = _hashed(password)
    with _changing(database_url) as connection:
        tenant_id, now_ns = tenant_id_of(connection, tenant), time.time_ns()
        people.set_password(connection, tenant_id, login, hashed, now_ns)
        login_failures.unlock(connection, tenant_id, people.login_of(login), now_ns)
    _print_password(password, password_stdin)


@app.command("disable")
def disable_command(
    login: Login,
    revoke: Annotated[bool, typer.Option("--revoke", help="Also revoke the person's keys and links.")] = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Disable an account, end its sessions, and list its working keys and links."""
    with _changing(database_url) as connection:
        tenant_id, now_ns = tenant_id_of(connection, tenant), time.time_ns()
        row = people.require_person(connection, tenant_id, login)
        people.set_disabled(connection, tenant_id, login, now_ns, disabled=True)
        listed = revoke_credentials if revoke else credentials_of
        found = listed(connection, tenant_id, row.number, now_ns)
    out.print(f"{login} cannot log in any more.")
    if any(found):
        keys = f"keys {' '.join(found.keys) or 'none'}; links: {found.links}"
        out.print(f"Revoked: {keys}." if revoke else f"Still working, --revoke ends them: {keys}.", soft_wrap=True)


@app.command("enable")
def enable_command(login: Login, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Enable a disabled account."""
    with _changing(database_url) as connection:
        people.set_disabled(connection, tenant_id_of(connection, tenant), login, time.time_ns(), disabled=False)
    out.print(f"{login} can log in again.")


@app.command("unlock")
def unlock_command(login: Login, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Allow logins again at once after too many failed attempts."""
    with _changing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        row = people.require_person(connection, tenant_id, login)
        login_failures.unlock(connection, tenant_id, row.login, time.time_ns())
    out.print(f"{login} can try again.")


@app.command("identity")
def identity_command(
    login: Login,
    issuer: Annotated[str, typer.Option(help="The OpenID provider, as in FAREBOX_OIDC_ISSUER.")],
    subject: Annotated[str, typer.Option(help="The person's `sub` at the provider.")],
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Link an account to a person of the OpenID provider, for logins there."""
    with _changing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        row = people.require_person(connection, tenant_id, login)
        people.add_identity(connection, tenant_id, Identity(issuer, subject), row.number, time.time_ns())
    out.print(f"{login} is linked to {subject} of {issuer}.", soft_wrap=True)


@app.command("end-sessions")
def end_sessions_command(login: Login, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """End all sessions of an account; running collectors refuse them within a second."""
    with _changing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        row = people.require_person(connection, tenant_id, login)
        ended = sessions.end_sessions_of(connection, tenant_id, row.number, time.time_ns())
    out.print(f"{ended} sessions ended.")


@contextmanager
def _changing(database_url: str | None) -> Iterator[Connection]:
    try:
        with writing(database_url) as connection:
            yield connection
    except (BadPerson, NoSuchPerson) as error:
        raise Stop(str(error)) from None
    except PersonExists as error:
        raise Stop(f"the account {error} already exists") from None


def _password(from_stdin: bool) -> str:
    return sys.stdin.readline().rstrip("\r\n") if from_stdin else new_password()


def _hashed(password: str) -> str:
    try:
        return hash_password(password)
    except BadPassword as error:
        raise Stop(str(error)) from None


def _print_password(password: str, from_stdin: bool) -> None:
    if password and not from_stdin:
        print_once(password, "Send it over a secure channel: only its hash is stored, and it is not shown again.")
