"""Export everything that the books store about a wallet, table by table, with rows as stored.

Secrets and their hashes are left out. Amounts are integers with their unit in the column name; bytes are hexadecimal.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Select, and_, or_, select, text

from farebox_collector.ledger.access.erased import text_without_names
from farebox_collector.ledger.privacy.erasure import may_name
from farebox_collector.ledger.privacy.personal_places import TEXT_COLUMNS, WALLET_COLUMNS
from farebox_collector.ledger.tables.access import audit_log
from farebox_collector.ledger.tables.columns import metadata

_SECRET = frozenset({"secret_sha256", "salt", "content_sha256", "sha256", "secret", "former_secret"})
_AT_ONCE = 1_000
Row = dict[str, Any]


def sections(connection: Connection, tenant_id: int, wallet: str) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yield the name and rows of each table in a fixed order, including tables without rows."""
    conditions = _conditions(tenant_id, wallet)
    for name in sorted(conditions):
        condition, keep = conditions[name]
        yield name, _rows(connection, name, condition, keep)


Keep = Callable[[Row], bool]


def _conditions(tenant_id: int, wallet: str) -> dict[str, tuple[Any, Keep]]:
    found: dict[str, tuple[Any, Keep]] = {}
    for name, column, which in WALLET_COLUMNS:
        table = metadata.tables[name]
        of_wallet = and_(table.c.tenant_id == tenant_id, table.c[column] == wallet)
        found[name] = (and_(of_wallet, text(f"{name}.{which}")) if which else of_wallet, _any_row)
    for place in TEXT_COLUMNS:
        if place.table not in found:
            found[place.table] = _mentions(place.table, place.columns, tenant_id, wallet)
    found["audit_log"] = _mentions(audit_log.name, ("subject", "details"), tenant_id, wallet)
    tables = metadata.tables
    own = _ids(tables["accounts"], found["accounts"][0])
    records = _ids(tables["usage_records"], found["usage_records"][0])
    lots = _ids(tables["lots"], found["lots"][0])
    topups = tables["topups"]
    posted = select(tables["postings"].c.transaction_id).where(tables["postings"].c.account_id.in_(own))
    paid = select(topups.c.payment_intent).where(found["topups"][0], topups.c.payment_intent != "")
    transactions, returns = tables["transactions"], tables["payment_returns"].c
    movement = and_(transactions.c.id.in_(posted), transactions.c.kind != "usage")
    mentioned, names_it = found["transactions"]
    found |= {
        "postings": (tables["postings"].c.account_id.in_(own), _any_row),
        "corrections": (tables["corrections"].c.usage_record_id.in_(records), _any_row),
        "lot_moves": (tables["lot_moves"].c.lot_id.in_(lots), _any_row),
        "payment_fees": (tables["payment_fees"].c.topup_id.in_(_ids(topups, found["topups"][0])), _any_row),
        "payment_returns": (
            and_(returns.tenant_id == tenant_id, returns.payment_intent.in_(paid)),
            _any_row,
        ),
        "transactions": (or_(movement, mentioned), lambda row: row["kind"] != "usage" or names_it(row)),
    }
    return found


def _ids(table: Any, condition: Any) -> Select[Any]:
    return select(table.c.id).where(condition)


def _any_row(row: Row) -> bool:
    return True


def _mentions(name: str, columns: tuple[str, ...], tenant_id: int, wallet: str) -> tuple[Any, Keep]:
    table = metadata.tables[name]

    def mentions(row: Row) -> bool:
        """Return whether the name is a separate word in one of the texts."""
        return any(text_without_names(row[column], {wallet: "\0"}, {}) != row[column] for column in columns)

    possible = or_(*(may_name(table.c[column], wallet) for column in columns))
    return and_(table.c.tenant_id == tenant_id, possible), mentions


def _rows(connection: Connection, name: str, condition: Any, keep: Keep) -> Iterator[Row]:
    table = metadata.tables[name]
    found = connection.execution_options(yield_per=_AT_ONCE).execute(
        select(table).where(condition).order_by(*table.primary_key.columns)
    )
    for row in found.mappings():
        if keep(dict(row)):
            yield {column: _shown(value) for column, value in row.items() if column not in _SECRET}


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
