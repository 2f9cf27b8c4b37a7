"""Which combinations of names have a running total of their own. Names come from senders, so they must be bounded.

Over the bound, the tags (the last names) of a combination are counted as `other`; over a second bound of the same size,
all its names.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, Table, select

from farebox_collector.ledger.storage.locks import NEW_LABELS, lock_stripes

OTHER = "other"

Label = tuple[str, ...]


class TableLabels:
    """The combinations of one table per tenant: at most `most` with all their names, and as many with tags as `other`.

    `tags` is how many of the last names are replaced first.
    """

    def __init__(self, table: Table, names: tuple[str, ...], tags: int, most: int) -> None:
        self._most = most
        self._table = table
        self._names = names
        self._tags = tags
        self._known: dict[int, dict[Label, Label]] = {}

    def places(self, connection: Connection, tenant_id: int, wanted: Iterable[Label]) -> Mapping[Label, Label]:
        """Return the label under which each wanted label is counted.

        Labels that are new here are checked against the books: other replicas add labels too, and labels that this
        process added in a failed transaction are missing.
        """
        known = self._known.get(tenant_id, {})
        new = sorted({label for label in wanted if label not in known})
        if new:
            lock_stripes(connection, NEW_LABELS, [tenant_id])
            columns = (self._table.c[name] for name in self._names)
            found = connection.execute(select(*columns).distinct().where(self._table.c.tenant_id == tenant_id))
            known = self._placed(new, {tuple(row) for row in found})
            self._known[tenant_id] = known
        return known

    def _placed(self, new: list[Label], booked: set[Label]) -> dict[Label, Label]:
        coarse = {label for label in booked if label[-self._tags :] == (OTHER,) * self._tags}
        placed = {label: label for label in booked}
        room = self._most - len(booked - coarse)
        others = (OTHER,) * len(self._names)
        coarse_room = self._most - len(coarse - {others})
        for label in new:
            if label in placed:
                continue
            folded = (*label[: -self._tags], *others[-self._tags :])
            if room > 0:
                placed[label] = label
                room -= 1
            elif folded in placed:
                placed[label] = folded
            elif coarse_room > 0:
                placed[label] = placed[folded] = folded
                coarse_room -= 1
            # Labels that are counted under `other` are not cached: their number is unbounded.
            # Folded names are cached for one batch only, for the same reason.
        return placed


def place(placed: Mapping[Label, Label], label: Label) -> Label:
    """Return where a label is counted, from the result of `places`."""
    return placed.get(label) or (OTHER,) * len(label)


def folded(placed: Mapping[Label, Label], sizes: Mapping[Label, int]) -> int:
    """Return how many calls are counted under another label than their own, given how many each label has."""
    counts = Counter({label: size for label, size in sizes.items() if place(placed, label) != label})
    return counts.total()
