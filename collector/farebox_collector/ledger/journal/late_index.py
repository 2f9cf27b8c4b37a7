"""Indexes that commits leave behind: tables in the order of a key, filled in sweeps up to a watermark.

An index in the order of random keys is written at as many places as a commit has rows, and each place is a whole page.
A database with one writer assigns ids in the order of commits, so a watermark states exactly which rows of the source
the index holds. A sweep takes in later rows in the order of keys, in transactions of any length: many of them share a
page, and each page is written once. Rows after the watermark, the tail, are read by id.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.differences import has_one_writer

MAX_ID = 2**63 - 1
Key = tuple[Any, ...]


class Sweep(NamedTuple):
    """Rows to add to an index in the order of its keys."""

    after: int
    upto: int
    """The range of ids: after the first, up to the second."""
    bounds: list[Key]
    """The boundaries between pieces, and both ends."""

    @property
    def pieces(self) -> int:
        """Return the number of pieces."""
        return len(self.bounds) - 1


class LateIndex:
    """One index. Only for databases with one writer; elsewhere its table is empty."""

    def __init__(self, name: str, table: str, source: str, columns: Mapping[str, str], key: int) -> None:
        """`columns` are those of the index, with the column of the source that each is a copy of.

        The first `key` of them are the key, and the first of all is a positive number.
        """
        self.name = name
        """The watermark: the last row of the source that is in the index."""
        self.table, self.source = table, source
        self._columns = columns
        self._key = list(columns.values())[:key]

    def mark(self, connection: Connection) -> int:
        """Return the id of the last row in the index; rows after it may be in the index too."""
        return watermark(connection, self.name)

    def behind(self, connection: Connection) -> int:
        """Return the number of rows that are not indexed yet, as ids count them."""
        if not has_one_writer(connection):
            return 0
        return max(0, self._newest(connection) - self.mark(connection))

    def plan(self, connection: Connection, most: int, piece: int) -> Sweep | None:
        """Plan the next sweep over the oldest rows that are not indexed; None if there are none."""
        after = self.mark(connection)
        upto = min(self._newest(connection), after + most)
        if upto <= after or not has_one_writer(connection):
            return None
        found = connection.execute(self._bounds(), {"after": after, "upto": upto, "piece": piece})
        return Sweep(after, upto, [self._end(0), *(tuple(row) for row in found), self._end(MAX_ID)])

    def take_in(self, connection: Connection, sweep: Sweep, start: int, stop: int) -> None:
        """Add pieces of a sweep to the index, in order from the first; the last piece moves the watermark."""
        stop = min(stop, sweep.pieces)
        values: dict[str, Any] = {"after": sweep.after, "upto": sweep.upto}
        for side, bound in (("low", sweep.bounds[start]), ("high", sweep.bounds[stop])):
            values |= {f"{side}_{place}": part for place, part in enumerate(bound)}
        connection.execute(self._take_in_some(), values)
        if stop == sweep.pieces:
            set_watermark(connection, self.name, sweep.upto)

    def complete(self, connection: Connection) -> None:
        """Add all rows that are not indexed yet, in one statement."""
        after, upto = self.mark(connection), self._newest(connection)
        if upto > after:
            connection.execute(self._take_in_all(), {"after": after, "upto": upto})
            set_watermark(connection, self.name, upto)

    def _newest(self, connection: Connection) -> int:
        return int(connection.exec_driver_sql(f"SELECT coalesce(max(id), 0) FROM {self.source}").scalar_one())

    def _end(self, first: int) -> Key:
        """Return a key before or after all others."""
        return (first, *(0 for _ in self._key[1:]))

    def _bounds(self) -> TextClause:
        key = ", ".join(self._key)
        return text(
            f"SELECT {key} FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS number"
            f" FROM {self.source} WHERE id > :after AND id <= :upto) numbered"
            " WHERE number % :piece = 0 ORDER BY number"
        )

    def _take_in_all(self) -> TextClause:
        return self._insert("")

    def _take_in_some(self) -> TextClause:
        low, high = (", ".join(f":{side}_{place}" for place in range(len(self._key))) for side in ("low", "high"))
        key = ", ".join(self._key)
        return self._insert(f" AND ({key}) > ({low}) AND ({key}) <= ({high})")

    def _insert(self, bounds: str) -> TextClause:
        # An interrupted sweep has inserted some of the rows already.
        return text(
            f"INSERT INTO {self.table} ({', '.join(self._columns)}) SELECT {', '.join(self._columns.values())}"
            f" FROM {self.source} WHERE id > :after AND id <= :upto{bounds}"
            f" ORDER BY {', '.join(self._key)} ON CONFLICT DO NOTHING"
        )
