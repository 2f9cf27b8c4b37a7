"""Erase a person: replace the names of a wallet and of its users by pseudonyms everywhere in the books.

Postings, prices and counts stay under the pseudonym, so that the books still balance. Every step can be repeated: an
interrupted erasure is resumed by erasing the same name again.

1. `begin` stores the keyed hash of the name and its pseudonym.
2. `sweep` replaces the name in texts and JSON, batch by batch, while the users of the wallet are still known.
3. `rename` replaces it in all name columns in one transaction, because the audit compares them with each other. From
   then on collectors replace it in every new span, within `KNOWN_AFTER_S`.
4. `is_written_again` checks whether a collector wrote it in between; those rows get another pseudonym.
5. `sweep` runs again, and `forget_entries` empties entries of the audit log with the name: the chain covers a salted
   digest of them. `end` marks the erasure as complete.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, delete, func, insert, or_, select, text, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import (
    MIN_WORD,
    hash_of,
    name_secret,
    new_pseudonym,
    text_without_names,
    user_pseudonym,
    without_name,
)
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.privacy.personal_places import (
    ACTION_COLUMNS,
    TEXT_COLUMNS,
    USER_COLUMNS,
    WALLET_COLUMNS,
    Texts,
)
from farebox_collector.ledger.storage.differences import prepare_to_erase
from farebox_collector.ledger.tables.access import audit_log
from farebox_collector.ledger.tables.books import accounts, api_keys
from farebox_collector.ledger.tables.columns import metadata
from farebox_collector.ledger.tables.links import wallet_links
from farebox_collector.ledger.tables.payments import payment_methods
from farebox_collector.ledger.tables.personal import erased_names

KNOWN_AFTER_S = 3.0
"""Time after which every collector knows an erased name; each checks once a second."""
_AT_ONCE = 500

Place = tuple[Any, ...]
"""The key of the row after which a sweep goes on."""


class NoSuchPerson(Exception):
    """The books do not know the name; the message states it."""


class Erasure(NamedTuple):
    """A name that is being erased."""

    tenant_id: int
    wallet: str
    pseudonym: str
    users: Mapping[str, str]
    """Pseudonyms of the users of the wallet."""


def begin(connection: Connection, tenant_id: int, wallet: str, at_ns: int) -> Erasure:
    """Begin to erase a name, or resume an earlier erasure. Raises NoSuchPerson."""
    secret = name_secret(connection, tenant_id)
    table = erased_names.c
    own_rows = and_(table.tenant_id == tenant_id, table.name_hmac == hash_of(secret, wallet))
    pseudonym = connection.execute(select(table.pseudonym).where(own_rows)).scalar()
    if pseudonym is None:
        if not _is_known(connection, tenant_id, wallet):
            raise NoSuchPerson(f"there is no wallet {wallet!r}")
        pseudonym = new_pseudonym()
        row = {"tenant_id": tenant_id, "name_hmac": hash_of(secret, wallet), "pseudonym": pseudonym}
        connection.execute(insert(erased_names).values(**row, begun_at_ns=at_ns))
        note(connection, tenant_id, "privacy.erase", pseudonym, at_ns)
    elif _account_is_there(connection, tenant_id, pseudonym) and _account_is_there(connection, tenant_id, wallet):
        # The name was written again after the rename: two accounts cannot be merged.
        pseudonym = new_pseudonym()
    connection.execute(update(erased_names).where(own_rows).values(ended_at_ns=None))
    users = {user: user_pseudonym(secret, pseudonym, user) for user in _users(connection, tenant_id, wallet, pseudonym)}
    return Erasure(tenant_id, wallet, pseudonym, users)


def rename(connection: Connection, erasure: Erasure, at_ns: int) -> int:
    """Replace the name in all name columns; returns the number of changed rows.

    Revokes the wallet's links and keys, and deletes its saved payment methods.
    """
    prepare_to_erase(connection)
    tenant_id, wallet = erasure.tenant_id, erasure.wallet
    own = _rows_of(accounts, "name", tenant_id, wallet)
    # Waits for transactions that spend from the wallet.
    connection.execute(select(accounts.c.id).where(own).with_for_update())
    links, keys = wallet_links.c, api_keys.c
    connection.execute(
        update(wallet_links)
        .where(links.tenant_id == tenant_id, links.wallet == wallet, links.revoked_at_ns.is_(None))
        .values(revoked_at_ns=at_ns)
    )
    connection.execute(
        update(api_keys)
        .where(keys.tenant_id == tenant_id, keys.wallet == wallet, keys.revoked_at_ns.is_(None))
        .values(revoked_at_ns=at_ns)
    )
    cards = payment_methods.c
    connection.execute(delete(payment_methods).where(cards.tenant_id == tenant_id, cards.wallet == wallet))
    changed = 0
    for table_name, column in ACTION_COLUMNS:
        changed += _rename_actions(connection, erasure, metadata.tables[table_name], column)
    for table_name, wallet_column in USER_COLUMNS:
        table = metadata.tables[table_name]
        of_wallet = _rows_of(table, wallet_column, tenant_id, wallet)
        for user, pseudonym in erasure.users.items():
            renamed = update(table).where(of_wallet, table.c.user_id == user).values(user_id=pseudonym)
            connection.execute(renamed)
    for table_name, column, _ in WALLET_COLUMNS:
        table = metadata.tables[table_name]
        done = connection.execute(
            update(table).where(_rows_of(table, column, tenant_id, wallet)).values({column: erasure.pseudonym})
        )
        changed += done.rowcount
    secret, names = name_secret(connection, tenant_id), erased_names.c
    own_rows = (names.tenant_id == tenant_id, names.name_hmac == hash_of(secret, wallet), names.renamed_at_ns.is_(None))
    connection.execute(update(erased_names).where(*own_rows).values(renamed_at_ns=at_ns))
    return changed


def places() -> tuple[Texts, ...]:
    """Return the text columns in the order of the sweep."""
    return TEXT_COLUMNS


def sweep(connection: Connection, erasure: Erasure, place: Texts, after: Place | None) -> Place | None:
    """Replace the name in one batch of rows of a place; returns where to go on, None at the end."""
    table = metadata.tables[place.table]
    key = [table.c[name] for name in place.key]
    query = select(*key, *(table.c[name] for name in place.columns)).where(table.c.tenant_id == erasure.tenant_id)
    query = query.where(or_(*(may_name(table.c[name], erasure.wallet) for name in place.columns)))
    if after is not None:
        query = query.where(_is_after(key, after))
    rows = connection.execute(query.order_by(*key).limit(_AT_ONCE)).all()
    for row in rows:
        where, texts = tuple(row[: len(key)]), row[len(key) :]
        cleaned = {
            name: text_without_names(value, {erasure.wallet: erasure.pseudonym}, erasure.users)
            for name, value in zip(place.columns, texts, strict=True)
            if value
        }
        changes: dict[str, Any] = {
            name: value for name, value in cleaned.items() if value != texts[place.columns.index(name)]
        }
        if changes:
            _write(connection, table, place, where, erasure.tenant_id, changes)
    return tuple(rows[-1][: len(key)]) if len(rows) == _AT_ONCE else None


def forget_entries(connection: Connection, erasure: Erasure, at_ns: int) -> int:
    """Erase the content of all entries of the audit log that name the wallet; returns how many."""
    table = audit_log.c
    named = or_(may_name(table.subject, erasure.wallet), may_name(table.details, erasure.wallet))
    query = select(table.number, table.subject, table.details).where(table.tenant_id == erasure.tenant_id, named)
    numbers = [
        row.number
        for row in connection.execute(query)
        if any(
            text_without_names(stored, {erasure.wallet: erasure.pseudonym}, {}) != stored
            for stored in (row.subject, row.details)
        )
    ]
    for start in range(0, len(numbers), _AT_ONCE):
        chosen = table.number.in_(numbers[start : start + _AT_ONCE])
        emptied = update(audit_log).where(table.tenant_id == erasure.tenant_id, chosen)
        connection.execute(emptied.values(subject="", details="", salt=b""))
    if numbers:
        note(connection, erasure.tenant_id, "audit_log.forget", "", at_ns, after={"entries": len(numbers)})
    return len(numbers)


def is_written_again(connection: Connection, erasure: Erasure) -> bool:
    """Return whether the name is in the books again after the rename."""
    return _is_known(connection, erasure.tenant_id, erasure.wallet)


def end(connection: Connection, erasure: Erasure, at_ns: int) -> None:
    """Mark an erasure as complete."""
    secret = name_secret(connection, erasure.tenant_id)
    table = erased_names.c
    own_rows = (table.tenant_id == erasure.tenant_id, table.name_hmac == hash_of(secret, erasure.wallet))
    pseudonym = connection.execute(select(table.pseudonym).where(*own_rows)).scalar_one()
    connection.execute(update(erased_names).where(*own_rows).values(ended_at_ns=at_ns))
    note(connection, erasure.tenant_id, "privacy.erased", pseudonym, at_ns)


def _write(
    connection: Connection, table: Table, place: Texts, where: tuple[Any, ...], tenant_id: int, changes: dict[str, Any]
) -> None:
    is_this = (table.c[name] == value for name, value in zip(place.key, where, strict=True))
    own_rows = and_(table.c.tenant_id == tenant_id, *is_this)
    first = place.columns[0]
    if place.digest and first in changes:
        digest = hashlib.blake2b(changes[first].encode(), digest_size=16).digest()
        changes["digest"] = digest
        same = [table.c.tenant_id == tenant_id, table.c.digest == digest]
        if "trace_id" in table.c:
            ids = select(table.c.trace_id, table.c.span_id).where(own_rows)
            trace_id, span_id = connection.execute(ids).one()
            same += [table.c.trace_id == trace_id, table.c.span_id == span_id]
        if connection.execute(select(table.c.id).where(*same)).first() is not None:
            # A row with the same content without the name exists already.
            connection.execute(delete(table).where(own_rows))
            return
    connection.execute(update(table).where(own_rows).values(**changes))


def _rename_actions(connection: Connection, erasure: Erasure, table: Table, column: str) -> int:
    own = and_(table.c.tenant_id == erasure.tenant_id, table.c.wallet == erasure.wallet)
    ids = select(table.c[column]).where(own, table.c[column].contains(erasure.wallet, autoescape=True)).distinct()
    changed = 0
    for action_id in connection.execute(ids).scalars().all():
        cleaned = without_name(action_id, erasure.wallet, erasure.pseudonym)
        if cleaned != action_id:
            done = connection.execute(update(table).where(own, table.c[column] == action_id).values({column: cleaned}))
            changed += done.rowcount
    return changed


def _rows_of(table: Table, column: str, tenant_id: int, wallet: str) -> Any:
    condition = next(which for name, of, which in WALLET_COLUMNS if (name, of) == (table.name, column))
    parts = [table.c.tenant_id == tenant_id, table.c[column] == wallet]
    return and_(*parts, text(condition)) if condition else and_(*parts)


def _users(connection: Connection, tenant_id: int, wallet: str, pseudonym: str) -> Iterator[str]:
    """Return the users of a wallet, even if an erasure has renamed it already."""
    found: set[str] = set()
    for table_name, column in USER_COLUMNS:
        table = metadata.tables[table_name]
        for name in (wallet, pseudonym):
            query = select(table.c.user_id).where(_rows_of(table, column, tenant_id, name)).distinct()
            found.update(connection.execute(query).scalars())
    return iter(sorted(user for user in found if user and not user.startswith(f"{pseudonym}-")))


def may_name(column: Any, name: str) -> Any:
    """Return a condition for texts that may contain the name, plain or as JSON writes it."""
    looked_for = {name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1]}
    if len(name) < MIN_WORD:
        return or_(column == name, *(column.contains(f'"{one}"', autoescape=True) for one in looked_for))
    return or_(*(column.contains(one, autoescape=True) for one in sorted(looked_for)))


def _is_after(key: list[Any], after: tuple[Any, ...]) -> Any:
    first, *rest = key
    if not rest:
        return first > after[0]
    return or_(first > after[0], and_(first == after[0], _is_after(rest, after[1:])))


def _is_known(connection: Connection, tenant_id: int, wallet: str) -> bool:
    return any(
        connection.execute(
            select(func.count())
            .select_from(metadata.tables[name])
            .where(_rows_of(metadata.tables[name], column, tenant_id, wallet))
        ).scalar_one()
        for name, column, _ in WALLET_COLUMNS
    )


def _account_is_there(connection: Connection, tenant_id: int, wallet: str) -> bool:
    table = accounts.c
    own_rows = (table.tenant_id == tenant_id, table.kind == WALLET, table.name == wallet)
    return connection.execute(select(table.id).where(*own_rows)).first() is not None
