"""Accounts of people: each belongs to one tenant and has one role."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.sessions import end_sessions_of
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.locks import PEOPLE, lock_stripes
from farebox_collector.ledger.tables.access import people, person_identities
from farebox_collector.model.credentials import Role

MAX_LOGIN = 200
MOST_PEOPLE = 10_000
"""Most accounts of one tenant."""
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]*")
_COLUMNS = ("tenant_id", "issuer", "subject", "person")


class BadPerson(ValueError):
    """The account data is invalid; the message states the rule."""


class PersonExists(Exception):
    """The tenant already has an account of this login."""


class NoSuchPerson(Exception):
    """The tenant has no account of this login; the message names it."""


class Identity(NamedTuple):
    """Identity of a person at an OpenID provider."""

    issuer: str
    subject: str


def login_of(text: str) -> str:
    """Return a login as stored: lower case, without surrounding spaces. Raises BadPerson."""
    login = text.strip().lower()
    if len(login) > MAX_LOGIN or not _LOGIN.fullmatch(login):
        raise BadPerson(f"a login must have 1 to {MAX_LOGIN} of a-z 0-9 . _ @ + -, such as ada or ada@example.com")
    return login


def create_person(
    connection: Connection,
    tenant_id: int,
    login: str,
    role: Role,
    at_ns: int,
    *,
    name: str = "",
    password_hash: str = "",
) -> int:
    """Create an account; returns its number. Without a password it can log in through an OpenID provider only.

    Raises BadPerson and PersonExists.
    """
    login = login_of(login)
    # Serialises the numbering within a tenant.
    lock_stripes(connection, PEOPLE, [tenant_id])
    table = people.c
    if connection.execute(select(table.number).where(table.tenant_id == tenant_id, table.login == login)).first():
        raise PersonExists(login)
    newest = select(func.coalesce(func.max(table.number), 0)).where(table.tenant_id == tenant_id)
    number = int(connection.execute(newest).scalar_one()) + 1
    if number > MOST_PEOPLE:
        raise BadPerson(f"a tenant can have at most {MOST_PEOPLE:,} accounts")
    row = {"login": login, "name": name, "role": role.value, "password_hash": password_hash, "created_at_ns": at_ns}
    connection.execute(insert(people).values(tenant_id=tenant_id, number=number, **row))
    after = {"login": login, "name": name, "role": role.value, "password": bool(password_hash)}
    note(connection, tenant_id, "person.create", f"person:{number}", at_ns, after=after)
    return number


def person_by_login(connection: Connection, tenant_id: int, login: str) -> Row[Any] | None:
    """Return the account of a login as typed; None if there is none."""
    table = people.c
    query = select(people).where(table.tenant_id == tenant_id, table.login == login.strip().lower())
    return connection.execute(query).first()


def require_person(connection: Connection, tenant_id: int, login: str) -> Row[Any]:
    """Return the account of a login. Raises NoSuchPerson."""
    row = person_by_login(connection, tenant_id, login)
    if row is None:
        raise NoSuchPerson(f"there is no account {login!r}")
    return row


def person_of(connection: Connection, tenant_id: int, number: int) -> Row[Any] | None:
    """Return the account of a number; None if there is none."""
    table = people.c
    return connection.execute(select(people).where(table.tenant_id == tenant_id, table.number == number)).first()


def people_of(connection: Connection, tenant_id: int, after_number: int = 0, limit: int = 100) -> Sequence[Row[Any]]:
    """Return a tenant's accounts in the order of creation."""
    table = people.c
    query = select(people).where(table.tenant_id == tenant_id, table.number > after_number)
    return connection.execute(query.order_by(table.number).limit(limit)).all()


def logins_of(connection: Connection, tenant_id: int) -> dict[int, str]:
    """Return the logins of a tenant's accounts, by number."""
    table = people.c
    rows = connection.execute(select(table.number, table.login).where(table.tenant_id == tenant_id))
    return {row.number: row.login for row in rows}


def set_role(connection: Connection, tenant_id: int, login: str, role: Role, at_ns: int) -> None:
    """Set the role of an account; its sessions get the new scopes within a second. Raises NoSuchPerson."""
    row = require_person(connection, tenant_id, login)
    if row.role == role.value:
        return
    _change(connection, row, at_ns, "person.role", {"role": role.value})


def set_name(connection: Connection, tenant_id: int, login: str, name: str, at_ns: int) -> None:
    """Set the display name of an account. Raises NoSuchPerson."""
    row = require_person(connection, tenant_id, login)
    if row.name != name:
        _change(connection, row, at_ns, "person.name", {"name": name})


def set_password(connection: Connection, tenant_id: int, login: str, password_hash: str, at_ns: int) -> None:
    """Set the password of an account, and end all its sessions. Raises NoSuchPerson."""
    row = require_person(connection, tenant_id, login)
    table = people.c
    chosen = update(people).where(table.tenant_id == tenant_id, table.number == row.number)
    connection.execute(chosen.values(password_hash=password_hash))
    end_sessions_of(connection, tenant_id, row.number, at_ns)
    note(connection, tenant_id, "person.password", f"person:{row.number}", at_ns)


def keep_better_hash(connection: Connection, tenant_id: int, number: int, password_hash: str) -> None:
    """Store the hash of the same password with newer parameters."""
    table = people.c
    chosen = update(people).where(table.tenant_id == tenant_id, table.number == number)
    connection.execute(chosen.values(password_hash=password_hash))


def set_disabled(connection: Connection, tenant_id: int, login: str, at_ns: int, *, disabled: bool) -> None:
    """Disable an account and end its sessions, or enable it. Raises NoSuchPerson."""
    row = require_person(connection, tenant_id, login)
    if (row.disabled_at_ns is not None) == disabled:
        return
    action = "person.disable" if disabled else "person.enable"
    _change(connection, row, at_ns, action, {"disabled_at_ns": at_ns if disabled else None})
    if disabled:
        end_sessions_of(connection, tenant_id, row.number, at_ns)


def note_login(connection: Connection, tenant_id: int, number: int, at_ns: int) -> None:
    """Store the last login of an account."""
    table = people.c
    chosen = update(people).where(table.tenant_id == tenant_id, table.number == number)
    connection.execute(chosen.values(last_login_at_ns=at_ns))


def person_with_identity(connection: Connection, tenant_id: int, identity: Identity) -> Row[Any] | None:
    """Return the account with an identity at an OpenID provider; None if there is none."""
    known = person_identities.c
    number = connection.execute(
        select(known.person).where(
            known.tenant_id == tenant_id, known.issuer == identity.issuer, known.subject == identity.subject
        )
    ).scalar()
    return None if number is None else person_of(connection, tenant_id, number)


def add_identity(connection: Connection, tenant_id: int, identity: Identity, number: int, at_ns: int) -> None:
    """Let an identity at an OpenID provider log in to an account."""
    bulk_insert.insert_ignoring_conflicts(connection, "person_identities", _COLUMNS, [(tenant_id, *identity, number)])
    note(connection, tenant_id, "person.identity", f"person:{number}", at_ns, after=identity._asdict())


def _change(connection: Connection, row: Row[Any], at_ns: int, action: str, values: dict[str, Any]) -> None:
    table = people.c
    chosen = update(people).where(table.tenant_id == row.tenant_id, table.number == row.number)
    connection.execute(chosen.values(values))
    before = {name: getattr(row, name) for name in values}
    note(connection, row.tenant_id, action, f"person:{row.number}", at_ns, before=before, after=values)
