"""Which combinations of names have a running total of their own: names come from outside, so there must be a bound.

Past it a combination is counted with its tags (the last names) as `other`, and past as many of those with every name
as `other`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, Table, select

from farebox_collector.ledger.storage.locks import NEW_LABELS, wait_in_turn

OTHER = "other"

Label = tuple[str, ...]


class TableLabels:
    """The combinations of one table, a tenant: at most `most` with all their names, and as many with tags as `other`.

    `tags` is how many of the last names are given up first.
    """

    def __init__(self, table: Table, names: tuple[str, ...], tags: int, most: int) -> None:
        self._most = most
        self._table = table
        self._names = names
        self._tags = tags
        self._known: dict[int, dict[Label, Label]] = {}

    def places(self, connection: Connection, tenant_id: int, wanted: Iterable[Label]) -> Mapping[Label, Label]:
        """Under which label each of the wanted ones is counted.

        Labels that are new here are decided by what the books have at that moment: other replicas add some too, and
        what this one added in a transaction that failed is not there.
        """
        known = self._known.get(tenant_id, {})
        new = sorted({label for label in wanted if label not in known})
        if new:
            wait_in_turn(connection, NEW_LABELS, [tenant_id])
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
            # What is not placed goes under `other`, and is not remembered: there is no end to such names.
        # Folded names are remembered for one batch only: there is no end to them either.
        return placed


def place(placed: Mapping[Label, Label], label: Label) -> Label:
    """Where a label is counted, by what `places` answered."""
    return placed.get(label) or (OTHER,) * len(label)


def folded(placed: Mapping[Label, Label], sizes: Mapping[Label, int]) -> int:
    """How many calls are counted under another label than their own, given how many each label has."""
    counts = Counter({label: size for label, size in sizes.items() if place(placed, label) != label})
    return counts.total()
