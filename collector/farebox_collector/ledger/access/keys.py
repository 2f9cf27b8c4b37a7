"""API keys. A key is shown once; the books store its SHA-256."""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, insert, or_, select, update

from farebox_collector.ledger.access import links
from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.access.links import Unverified, Verified
from farebox_collector.ledger.tables.books import api_keys
from farebox_collector.model.credentials import (
    Caller,
    Scope,
    fingerprint,
    key_id_of,
    new_token,
)


class Issued(NamedTuple):
    """A new key; its token is shown only now."""

    token: str
    key_id: str


class NoActiveKey(Exception):
    """There is no active key of this id."""


def create_key(
    connection: Connection,
    tenant_id: int,
    name: str,
    scopes: Iterable[Scope],
    at_ns: int,
    *,
    wallet: str = "",
    expires_at_ns: int | None = None,
    token: str = "",
    person: int | None = None,
) -> Issued:
    """Create a key for a tenant; `token` may be generated elsewhere.

    It belongs to a person, by number; by default to the person who acts. 0 is no person.

    Raises ValueError for a key without scopes, a wallet key with a scope other than read, an erased wallet, and an
    invalid token.
    """
    wanted = sorted(set(scopes))
    if not wanted:
        raise ValueError("a key needs at least one scope")
    if wallet and wanted != [Scope.READ]:
        raise ValueError("a key for one wallet allows the scope read only")
    if wallet and is_erased(connection, tenant_id, wallet):
        raise ValueError(ERASED)
    made = token or new_token()
    key_id = key_id_of(made)
    if key_id is None:
        raise ValueError("a key must be fbx_, 16 hexadecimal digits, _, and 43 to 128 of A-Z a-z 0-9 _ -")
    if not any_key(connection):
        # Without keys any caller could mint links; from now on a key is required.
        links.retire_every_secret(connection, at_ns)
    person = acting().person if person is None else person
    row = insert(api_keys).values(
        tenant_id=tenant_id,
        person=person,
        key_id=key_id,
        name=name,
        scopes=" ".join(wanted),
        wallet=wallet,
        secret_sha256=fingerprint(made),
        created_at_ns=at_ns,
        expires_at_ns=expires_at_ns,
    )
    connection.execute(row)
    note(connection, tenant_id, "key.create", key_id, at_ns, after=_facts(name, wanted, wallet, expires_at_ns, person))
    return Issued(made, key_id)


def provide_key(
    connection: Connection,
    tenant_id: int,
    name: str,
    scopes: Iterable[Scope],
    at_ns: int,
    token: str,
    wallet: str = "",
    expires_at_ns: int | None = None,
) -> bool:
    """Create a key from a token generated elsewhere, unless it exists; returns whether it was created.

    Raises ValueError for an invalid token, and for an existing key with another secret, other permissions, or one that
    is revoked or expired.
    """
    wanted = sorted(set(scopes))
    keys = api_keys.c
    found = connection.execute(select(api_keys).where(keys.key_id == (key_id_of(token) or ""))).first()
    if found is None:
        create_key(connection, tenant_id, name, wanted, at_ns, wallet=wallet, expires_at_ns=expires_at_ns, token=token)
        return True
    if not hmac.compare_digest(found.secret_sha256, fingerprint(token)):
        raise ValueError(f"key {found.key_id} exists with another secret: generate a new key")
    if (found.tenant_id, found.scopes, found.wallet) != (tenant_id, " ".join(wanted), wallet):
        raise ValueError(f"key {found.key_id} exists with other scopes, wallet or tenant: generate a new key")
    if found.revoked_at_ns is not None or (found.expires_at_ns is not None and found.expires_at_ns <= at_ns):
        raise ValueError(f"key {found.key_id} is revoked or has expired: generate a new key")
    return False


def rotate_key(connection: Connection, tenant_id: int, key_id: str, at_ns: int, overlap_ns: int) -> Issued:
    """Create a key with the same permissions; the old one works for another `overlap_ns`. Raises NoActiveKey.

    Links minted by the old key pass to the new one, so that they keep working.
    """
    old = _working(connection, tenant_id, key_id, at_ns)
    ends_at_ns = at_ns + overlap_ns
    if old.expires_at_ns is None or old.expires_at_ns > ends_at_ns:
        connection.execute(update(api_keys).where(api_keys.c.id == old.id).values(expires_at_ns=ends_at_ns))
    scopes = [Scope(scope) for scope in old.scopes.split()]
    note(connection, tenant_id, "key.rotate", key_id, at_ns, after={"old_key_ends_at_ns": ends_at_ns})
    made = create_key(
        connection,
        tenant_id,
        old.name,
        scopes,
        at_ns,
        wallet=old.wallet,
        expires_at_ns=old.expires_at_ns,
        # The successor must act in the name of the same person.
        person=old.person,
    )
    links.hand_over(connection, tenant_id, key_id, made.key_id)
    return made


def revoke_key(connection: Connection, tenant_id: int, key_id: str, at_ns: int) -> bool:
    """Revoke a key; False if it was revoked before. Raises NoActiveKey if there is no such key."""
    keys = api_keys.c
    this = (keys.tenant_id == tenant_id, keys.key_id == key_id)
    if connection.execute(select(keys.id).where(*this)).first() is None:
        raise NoActiveKey(key_id)
    changed = connection.execute(
        update(api_keys).where(*this, keys.revoked_at_ns.is_(None)).values(revoked_at_ns=at_ns)
    )
    if changed.rowcount:
        note(connection, tenant_id, "key.revoke", key_id, at_ns)
    return bool(changed.rowcount)


def keys_of(connection: Connection, tenant_id: int, after_id: int = 0, limit: int = 100) -> Sequence[Row[Any]]:
    """Return a tenant's keys in the order of creation, without their hashes."""
    keys = api_keys.c
    shown = [column for column in keys if column.name != "secret_sha256"]
    return connection.execute(
        select(*shown).where(keys.tenant_id == tenant_id, keys.id > after_id).order_by(keys.id).limit(limit)
    ).all()


def any_key(connection: Connection) -> bool:
    """Return whether any tenant ever created a key; from then on every caller needs one."""
    return connection.execute(select(api_keys.c.id).limit(1)).first() is not None


def has_admin(connection: Connection, tenant_id: int, at_ns: int) -> bool:
    """Return whether a tenant has an active key of the scope admin."""
    keys = api_keys.c
    working = select(keys.scopes).where(
        keys.tenant_id == tenant_id,
        keys.revoked_at_ns.is_(None),
        or_(keys.expires_at_ns.is_(None), keys.expires_at_ns > at_ns),
        keys.scopes.contains(Scope.ADMIN),
    )
    return connection.execute(working.limit(1)).first() is not None


def verify_key(connection: Connection, token: str, at_ns: int) -> Verified:
    """Return the caller of a key. Raises Unverified. Compares secrets in constant time."""
    keys = api_keys.c
    row = connection.execute(select(api_keys).where(keys.key_id == (key_id_of(token) or ""))).first()
    if row is None or not hmac.compare_digest(row.secret_sha256, fingerprint(token)):
        raise Unverified("unknown")
    if row.revoked_at_ns is not None:
        raise Unverified("revoked")
    if row.expires_at_ns is not None and row.expires_at_ns <= at_ns:
        raise Unverified("expired")
    scopes = frozenset(Scope(scope) for scope in row.scopes.split())
    return Verified(Caller(row.tenant_id, scopes, row.wallet, row.key_id, row.person), row.expires_at_ns)


def note_use(connection: Connection, used_at_ns: Mapping[str, int]) -> None:
    """Store the times of last use of keys, by id."""
    keys = api_keys.c
    for key_id, at_ns in sorted(used_at_ns.items()):
        connection.execute(
            update(api_keys)
            .where(keys.key_id == key_id, or_(keys.last_used_at_ns.is_(None), keys.last_used_at_ns < at_ns))
            .values(last_used_at_ns=at_ns)
        )


def _facts(name: str, scopes: list[Scope], wallet: str, expires_at_ns: int | None, person: int) -> dict[str, Any]:
    shown = {"name": name, "scopes": [scope.value for scope in scopes], "wallet": wallet}
    return {**shown, "expires_at_ns": expires_at_ns, "person": person}


def _working(connection: Connection, tenant_id: int, key_id: str, at_ns: int) -> Row[Any]:
    keys = api_keys.c
    row = connection.execute(select(api_keys).where(keys.tenant_id == tenant_id, keys.key_id == key_id)).first()
    if row is None or row.revoked_at_ns is not None or (row.expires_at_ns is not None and row.expires_at_ns <= at_ns):
        raise NoActiveKey(key_id)
    return row
