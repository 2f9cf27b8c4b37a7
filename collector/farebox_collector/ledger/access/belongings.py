"""What goes on working when a person is disabled: keys that belong to the person, and links that the person minted."""

from typing import NamedTuple

from sqlalchemy import Connection, func, or_, select

from farebox_collector.ledger.access import keys, links
from farebox_collector.ledger.tables.books import api_keys
from farebox_collector.ledger.tables.links import wallet_links


class Belongings(NamedTuple):
    """Working keys of a person, by their ids, and how many working links the person minted with a session."""

    keys: tuple[str, ...]
    links: int


def belongings_of(connection: Connection, tenant_id: int, person: int, at_ns: int) -> Belongings:
    """The keys and links of a person that work now. Links that one of the keys minted end with the key."""
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
    return Belongings(tuple(connection.execute(working).scalars()), connection.execute(standing).scalar_one())


def revoke_belongings(connection: Connection, tenant_id: int, person: int, at_ns: int) -> Belongings:
    """Let no key and no link of a person work any more; what worked until now."""
    found = belongings_of(connection, tenant_id, person, at_ns)
    for key_id in found.keys:
        keys.revoke_key(connection, tenant_id, key_id, at_ns)
    if found.links:
        links.revoke_minted_by(connection, tenant_id, minter(person), at_ns)
    return found


def minter(person: int) -> str:
    """How a link names the person who minted it."""
    return f"person:{person}"
