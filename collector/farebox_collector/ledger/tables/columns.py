"""Building blocks of tables. Integers have 64 bits in either database; names are never NULL."""

from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Part = TypeVar("Part", Index, ForeignKeyConstraint, UniqueConstraint)

# STRICT tables support only INTEGER, which SQLite stores in up to 64 bits.
Int64 = BigInteger().with_variant(Integer(), "sqlite")


def number(name: str, *, nullable: bool = False, default: int | None = None) -> Column[int]:
    """A 64-bit integer."""
    server_default = None if default is None else text(str(default))
    return Column(name, Int64, nullable=nullable, server_default=server_default)


def words(name: str, *, default: str | None = None) -> Column[str]:
    """A text, never NULL."""
    server_default = None if default is None else text(f"'{default}'")
    return Column(name, Text, nullable=False, server_default=server_default)


def identity() -> Column[int]:
    """The primary key of every table, in the order of recording."""
    return Column("id", Int64, primary_key=True, autoincrement=True)


Item = (
    Column[int]
    | Column[str]
    | Column[bytes]
    | UniqueConstraint
    | CheckConstraint
    | ForeignKeyConstraint
    | PrimaryKeyConstraint
)


def table(name: str, *items: Item) -> Table:
    """A table of the books."""
    return Table(name, metadata, *items, sqlite_strict=True)


def only_on(dialect: str, item: Part) -> Part:
    """An index or a constraint that only one kind of database has."""
    item.info["dialect"] = dialect
    item.ddl_if(dialect=dialect)
    return item


def is_on(dialect: str, item: Any) -> bool:
    """Return whether a kind of database has an item of `metadata`."""
    return bool(item.info.get("dialect", dialect) == dialect)
