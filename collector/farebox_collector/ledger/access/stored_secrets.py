"""Seal secrets that must be readable again: those that sign links and webhooks, or key the hashes of erased names.

They are sealed with the keys that the database was opened with (`Database.keep_secrets`), if any. All other secrets in
the books are stored as hashes.
"""

from typing import NamedTuple

from sqlalchemy import Connection, Table, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage.database import secret_box_of
from farebox_collector.ledger.tables.books import link_secrets
from farebox_collector.ledger.tables.outbox import webhook_endpoints
from farebox_collector.ledger.tables.personal import name_secrets
from farebox_collector.model.secret_box import is_sealed

LINK = "link"
WEBHOOK = "webhook"
NAMES = "names"
_PLACES: tuple[tuple[str, Table, str], ...] = (
    (LINK, link_secrets, "secret"),
    (WEBHOOK, webhook_endpoints, "secret"),
    (WEBHOOK, webhook_endpoints, "former_secret"),
    (NAMES, name_secrets, "secret"),
)


class Sealing(NamedTuple):
    """Result of sealing the secrets in the books."""

    secrets: int
    sealed_now: int
    plain: int
    """How many are still in plain text."""


def seal(connection: Connection, kind: str, tenant_id: int, secret: bytes) -> bytes:
    """Return a secret of a tenant as stored."""
    return secret_box_of(connection).seal(secret, f"{kind}/{tenant_id}")


def open_sealed(connection: Connection, kind: str, tenant_id: int, stored: bytes) -> bytes:
    """Open a stored secret of a tenant. Raises WrongSecretsKey."""
    return secret_box_of(connection).open(bytes(stored), f"{kind}/{tenant_id}")


def seal_everything(connection: Connection, at_ns: int) -> Sealing:
    """Seal every secret that is not sealed with the first key; without a key, only check that all are readable.

    Opens all of them first, and changes none if one cannot be opened. Idempotent. Raises WrongSecretsKey.
    """
    box = secret_box_of(connection)
    found = [
        (place, *row)
        for place in _PLACES
        for row in connection.execute(
            select(place[1].c.id, place[1].c.tenant_id, place[1].c[place[2]])
            .where(place[1].c[place[2]].is_not(None))
            .order_by(place[1].c.id)
        )
    ]
    opened = [box.open(bytes(stored), f"{kind}/{tenant_id}") for (kind, _, _), _, tenant_id, stored in found]
    changed: dict[int, int] = {}
    plain = 0
    for ((kind, table, column), row_id, tenant_id, stored), secret in zip(found, opened, strict=True):
        if box.is_current(bytes(stored)):
            plain += not is_sealed(bytes(stored))
            continue
        own_rows = (table.c.id == row_id, table.c[column] == stored)
        sealed = box.seal(secret, f"{kind}/{tenant_id}")
        if connection.execute(update(table).where(*own_rows).values({column: sealed})).rowcount:
            changed[tenant_id] = changed.get(tenant_id, 0) + 1
    for tenant_id, count in changed.items():
        note(connection, tenant_id, "secrets.seal", "", at_ns, after={"secrets": count})
    return Sealing(len(found), sum(changed.values()), plain)
