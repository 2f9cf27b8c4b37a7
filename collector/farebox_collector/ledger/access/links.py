"""Signed links: mint, verify and revoke them.

A link carries its wallet and expiry. The books store a row for each link, so that one link, or all links of a key, can
be revoked. A link ends with the key that minted it.
"""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, NameErased, is_erased
from farebox_collector.ledger.access.stored_secrets import LINK, open_sealed, seal
from farebox_collector.ledger.storage.pages import newest_first
from farebox_collector.ledger.tables.books import api_keys, link_secrets
from farebox_collector.ledger.tables.links import wallet_links
from farebox_collector.model.credentials import (
    Caller,
    Link,
    Scope,
    is_signed,
    sign_link,
)
from farebox_collector.model.moments import DAY_NS

_SECRET_BYTES = 32
_KEPT_NS = 30 * DAY_NS
"""How long the row of an expired link is kept."""


class Verified(NamedTuple):
    """A verified token and its own expiry; None for no expiry."""

    caller: Caller
    expires_at_ns: int | None


class Unverified(Exception):
    """An invalid token; the message is one of `unknown`, `revoked`, `expired`."""


class Minted(NamedTuple):
    """A new link."""

    token: str
    link_id: int
    expires_at_ns: int


class NoSuchLink(Exception):
    """There is no such link."""


def mint(connection: Connection, tenant_id: int, wallet: str, minted_by: str, until_ns: int, at_ns: int) -> Minted:
    """Mint a link that reads one wallet until `until_ns`, or until the key `minted_by` expires if that is sooner.

    `minted_by` is a key id; empty while there are no keys. Raises NameErased.
    """
    if is_erased(connection, tenant_id, wallet):
        raise NameErased(ERASED)
    keys, rows = api_keys.c, wallet_links.c
    ends = select(keys.expires_at_ns).where(keys.tenant_id == tenant_id, keys.key_id == minted_by)
    key_ends_at_ns = connection.execute(ends).scalar()
    # A link states its expiry in whole seconds.
    expires_at_s = min(until_ns, key_ends_at_ns or until_ns) // 10**9
    connection.execute(delete(wallet_links).where(rows.tenant_id == tenant_id, rows.expires_at_ns < at_ns - _KEPT_NS))
    secret_id, secret = _secret(connection, tenant_id, at_ns)
    made = connection.execute(
        insert(wallet_links).values(
            tenant_id=tenant_id,
            secret_id=secret_id,
            wallet=wallet,
            minted_by=minted_by,
            created_at_ns=at_ns,
            expires_at_ns=expires_at_s * 10**9,
        )
    ).inserted_primary_key
    assert made is not None
    link = Link(tenant_id, secret_id, wallet, expires_at_s, int(made[0]))
    after = {"link_id": link.link_id, "minted_by": minted_by, "expires_at_s": expires_at_s}
    note(connection, tenant_id, "link.create", wallet, at_ns, after=after)
    return Minted(sign_link(link, secret), link.link_id, expires_at_s * 10**9)


def verify_link(connection: Connection, token: str, link: Link, at_ns: int) -> Verified:
    """Return the caller of a link: a reader of one wallet. Raises Unverified."""
    known = link_secrets.c
    secret = connection.execute(
        select(known.secret, known.retired_at_ns).where(known.tenant_id == link.tenant_id, known.id == link.secret_id)
    ).first()
    if secret is None or not is_signed(token, open_sealed(connection, LINK, link.tenant_id, secret.secret)):
        raise Unverified("unknown")
    expires_at_ns = link.expires_at_s * 10**9
    if secret.retired_at_ns is not None:
        raise Unverified("revoked")
    if expires_at_ns <= at_ns:
        raise Unverified("expired")
    if link.link_id:
        _require_standing(connection, link, at_ns)
    caller = Caller(link.tenant_id, frozenset({Scope.READ}), link.wallet, link_id=link.link_id)
    return Verified(caller, expires_at_ns)


def links_of(
    connection: Connection, tenant_id: int, minted_by: str = "", before_id: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return a tenant's links, newest first; only those of one key if `minted_by` names it."""
    rows = wallet_links.c
    chosen = [rows.tenant_id == tenant_id, *([rows.minted_by == minted_by] if minted_by else [])]
    return newest_first(connection, wallet_links, rows.id, *chosen, before=before_id, limit=limit)


def revoke_link(connection: Connection, tenant_id: int, link_id: int, at_ns: int) -> None:
    """Revoke a link. Raises NoSuchLink if there is no such link."""
    rows = wallet_links.c
    own_rows = (rows.tenant_id == tenant_id, rows.id == link_id)
    wallet = connection.execute(select(rows.wallet).where(*own_rows)).scalar()
    if wallet is None:
        raise NoSuchLink(str(link_id))
    lasting = update(wallet_links).where(*own_rows, rows.revoked_at_ns.is_(None))
    if connection.execute(lasting.values(revoked_at_ns=at_ns)).rowcount:
        note(connection, tenant_id, "link.revoke", wallet, at_ns, after={"link_id": link_id})


def revoke_minted_by(connection: Connection, tenant_id: int, minted_by: str, at_ns: int) -> None:
    """Revoke all links that a key has minted."""
    rows = wallet_links.c
    own_rows = (rows.tenant_id == tenant_id, rows.minted_by == minted_by, rows.revoked_at_ns.is_(None))
    revoked = connection.execute(update(wallet_links).where(*own_rows).values(revoked_at_ns=at_ns)).rowcount
    note(connection, tenant_id, "links.revoke", minted_by, at_ns, after={"minted_by": minted_by, "links": revoked})


def revoke_links(connection: Connection, tenant_id: int, at_ns: int) -> None:
    """Revoke all links of a tenant."""
    known = link_secrets.c
    connection.execute(
        update(link_secrets)
        .where(known.tenant_id == tenant_id, known.retired_at_ns.is_(None))
        .values(retired_at_ns=at_ns)
    )
    note(connection, tenant_id, "links.revoke", "", at_ns)


def retire_every_secret(connection: Connection, at_ns: int) -> None:
    """Revoke all links of all tenants; called when the first key is created."""
    known = link_secrets.c
    connection.execute(update(link_secrets).where(known.retired_at_ns.is_(None)).values(retired_at_ns=at_ns))


def hand_over(connection: Connection, tenant_id: int, key_id: str, to_key_id: str) -> None:
    """Pass the links that a key minted to its successor."""
    rows = wallet_links.c
    own_rows = update(wallet_links).where(rows.tenant_id == tenant_id, rows.minted_by == key_id)
    connection.execute(own_rows.values(minted_by=to_key_id))


def _require_standing(connection: Connection, link: Link, at_ns: int) -> None:
    """Raise Unverified for a revoked link, or if its key was revoked or has expired."""
    rows, keys = wallet_links.c, api_keys.c
    of_minter = and_(keys.tenant_id == rows.tenant_id, keys.key_id == rows.minted_by)
    row = connection.execute(
        select(rows.revoked_at_ns, keys.revoked_at_ns.label("key_revoked_at_ns"), keys.expires_at_ns)
        .select_from(wallet_links.outerjoin(api_keys, of_minter))
        .where(rows.tenant_id == link.tenant_id, rows.id == link.link_id)
    ).first()
    if row is None:
        raise Unverified("unknown")
    if row.revoked_at_ns is not None or row.key_revoked_at_ns is not None:
        raise Unverified("revoked")
    if row.expires_at_ns is not None and row.expires_at_ns <= at_ns:
        raise Unverified("expired")


def _secret(connection: Connection, tenant_id: int, at_ns: int) -> tuple[int, bytes]:
    """Return the id and the secret that sign a tenant's links; creates them if there are none."""
    known = link_secrets.c
    row = connection.execute(
        select(known.id, known.secret)
        .where(known.tenant_id == tenant_id, known.retired_at_ns.is_(None))
        .order_by(known.id.desc())
        .limit(1)
    ).first()
    if row is not None:
        return row.id, open_sealed(connection, LINK, tenant_id, row.secret)
    secret = secrets.token_bytes(_SECRET_BYTES)
    key = connection.execute(
        insert(link_secrets).values(
            tenant_id=tenant_id, secret=seal(connection, LINK, tenant_id, secret), created_at_ns=at_ns
        )
    ).inserted_primary_key
    assert key is not None
    return int(key[0]), secret
