"""Running totals by event, provider, model and verdict: what the metrics are read from, so that no restart resets them.

Names come from outside, so the number of rows is capped: past it a new combination is counted under `other`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from farebox_collector.ledger import bulk
from farebox_collector.ledger.locks import NEW_LABELS, wait_in_turn
from farebox_collector.ledger.tables import TOKEN_COLUMNS, usage_totals
from farebox_collector.records import PricedUsage
from farebox_collector.verdicts import Verdict

MAX_LABELS = 1_000
"""Most combinations of event, provider and model a tenant has in its totals."""
OTHER = "other"

_KEY = ("tenant_id", "event", "provider", "model", "verdict")
_SUMS = ("requests", "errors", *TOKEN_COLUMNS, "cost_nanousd", "charge_nanocredits")
_NO_TOKENS = (0,) * len(TOKEN_COLUMNS)

Label = tuple[str, str, str]
_OTHERS: Label = (OTHER, OTHER, OTHER)


class TotalLabels:
    """The combinations of (event, provider, model) that have a total of their own, a tenant."""

    def __init__(self) -> None:
        self._known: dict[int, set[Label]] = {}
        self.folded = 0
        """How many calls were counted under `other` since this process began."""

    def admit(self, connection: Connection, tenant_id: int, labels: Iterable[Label]) -> set[Label]:
        """Those of the labels that are counted under their own name; the others go under `other`.

        Labels that are new here are decided by what the books have at that moment: other replicas add some too, and
        what this one added in a transaction that failed is not there.
        """
        wanted = set(labels)
        if wanted - self._known.get(tenant_id, set()):
            wait_in_turn(connection, NEW_LABELS, [tenant_id])
            columns = (usage_totals.c.event, usage_totals.c.provider, usage_totals.c.model)
            rows = connection.execute(select(*columns).distinct().where(usage_totals.c.tenant_id == tenant_id))
            known = {(event, provider, model) for event, provider, model in rows}
            room = max(0, MAX_LABELS - len(known - {_OTHERS}))
            known.update(sorted(wanted - known)[:room])
            self._known[tenant_id] = known
        return wanted & self._known[tenant_id]


def add_to_totals(
    connection: Connection, tenant_id: int, calls: Sequence[tuple[PricedUsage, Verdict]], labels: TotalLabels
) -> None:
    """Add newly recorded calls to their totals."""
    sums: defaultdict[tuple[Label, Verdict], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
    admitted = labels.admit(connection, tenant_id, (_label(call) for call, _ in calls))
    for call, verdict in calls:
        label = _label(call)
        if label not in admitted:
            label = _OTHERS
            labels.folded += 1
        row = sums[label, verdict]
        row[0] += 1
        row[1] += bool(call.usage.error_type)
        for index, count in enumerate(call.usage.buckets or _NO_TOKENS, start=2):
            row[index] += count
        if verdict is Verdict.CHARGED:
            row[-2] += call.cost_nanousd or 0
            row[-1] += call.charge_nanocredits or 0
    rows = [(tenant_id, *label, verdict, *row) for (label, verdict), row in sorted(sums.items())]
    bulk.insert_adding(connection, "usage_totals", _KEY, _SUMS, rows)


def _label(call: PricedUsage) -> Label:
    return call.usage.event, call.provider, call.model
