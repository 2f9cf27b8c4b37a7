"""Keys and links of a person. They keep working when the person is disabled, unless revoked."""

from typing import NamedTuple

from sqlalchemy import Connection, func, or_, select

from farebox_collector.ledger.access import keys, links
from farebox_collector.ledger.tables.books import api_keys
from farebox_collector.ledger.tables.links import wallet_links


class PersonCredentials(NamedTuple):
    """Ids of a person's active keys, and the number of active links minted in the person's sessions."""

    keys: tuple[str, ...]
    links: int


def credentials_of(connection: Connection, tenant_id: int, person: int, at_ns: int) -> PersonCredentials:
    """Return the active keys and links of a person. Links minted by a key end with the key."""
    of_keys, of_links = api_keys.c, wallet_links.c
    working = (
        select(of_keys.key_id)
        .where(of_keys.tenant_id == tenant_id, of_keys.person == person, of_keys.revoked_at_ns.is_(None))
        .where(or_(of_keys.expires_at_ns.is_(None), of_keys.expires_at_ns > at_ns))
        .order_by(of_keys.id)
    )
    standing = select(func.count()).where(
        of_links.tenant_id == tenant_id,
        of_links.minted_by == minter(person),
        of_links.revoked_at_ns.is_(None),
        of_links.expires_at_ns > at_ns,
    )
    return PersonCredentials(tuple(connection.execute(working).scalars()), connection.execute(standing).scalar_one())


def revoke_credentials(connection: Connection, tenant_id: int, person: int, at_ns: int) -> PersonCredentials:
    """Revoke all keys and links of a person; returns those that were active."""
    found = credentials_of(connection, tenant_id, person, at_ns)
    for key_id in found.keys:
        keys.revoke_key(connection, tenant_id, key_id, at_ns)
    if found.links:
        links.revoke_minted_by(connection, tenant_id, minter(person), at_ns)
    return found


def minter(person: int) -> str:
    """Return the `minted_by` of links that a person minted."""
    return f"person:{person}"
