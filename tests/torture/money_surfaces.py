"""Every surface that shows money: each term is the same figure in all of them, and the one that its definition says.

The expected figures are plain arithmetic over `money_model`; a credit sells for a dollar.
"""

import csv
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from farebox_collector.ledger.reports.metric_readings import list_price_of_tenants, money
from farebox_collector.model.moments import DAY_NS, Days, months_of
from farebox_collector.surfaces.api.report_catalogue import REPORTS, Question
from farebox_collector.surfaces.api.reports import chosen_columns, write_report
from sqlalchemy import Connection
from torture.money_model import Figures

NANO = 10**9


@dataclass
class Expected:
    """The terms of money of one tenant since the beginning, in nanocredits and nano-USD."""

    charge: int
    revenue: int
    promotional: int
    discounts: int
    unpaid: int
    breakage: int
    refunds: int
    cost: int
    fees: int
    cash_in: int
    deferred: int
    receivable: int

    @classmethod
    def of(cls, wallets: Iterable[Figures], charge: int, cost: int, fees: int) -> "Expected":
        """Return the terms by their definitions."""
        found = list(wallets)

        def total(name: str) -> int:
            return sum(getattr(figures, name) for figures in found)

        return cls(
            charge=charge,
            revenue=total("revenue"),
            promotional=total("promotional"),
            discounts=total("paid") - total("revenue"),
            unpaid=total("unpaid"),
            breakage=total("breakage"),
            refunds=total("refunded"),
            cost=cost,
            fees=fees,
            cash_in=total("received"),
            deferred=total("deferred"),
            receivable=sum(max(-figures.balance, 0) for figures in found),
        )

    @property
    def profit(self) -> int:
        """Revenue + breakage − refunds of used credits − cost − fees."""
        return self.revenue + self.breakage - self.refunds - self.cost - self.fees


def assert_surfaces_agree(
    connection: Connection, tenant_id: int, expected: Expected, began_ns: int, now_ns: int
) -> None:
    """Compare every surface with the expected figures, since the beginning; all wallets must be drawn up."""
    days = Days(began_ns // DAY_NS - 8, now_ns // DAY_NS + 2)
    whole = {name: _total(connection, tenant_id, name, days) for name in REPORTS}
    bridge, summary, usage = whole["bridge"], whole["summary"], whole["usage"]
    assert _nano(bridge, "promotional discounts unpaid_overdraft timing adjustments") == [
        expected.promotional,
        expected.discounts,
        expected.unpaid,
        0,
        0,
    ]
    for row in (bridge, summary):
        assert _nano(row, "charge_value given_away revenue breakage refunds cost fees profit cash_in") == [
            expected.charge,
            expected.charge - expected.revenue,
            expected.revenue,
            expected.breakage,
            expected.refunds,
            expected.cost,
            expected.fees,
            expected.profit,
            expected.cash_in,
        ]
        assert (row.margin_percent is None) == (not expected.revenue)
    for row in (usage, whole["wallets"]):
        assert _nano(row, "charge_value cost") == [expected.charge, expected.cost]
        assert row.margin_at_list_percent == bridge.margin_at_list_percent == summary.margin_at_list_percent
    assert _nano(whole["credits"], "cash_in") == [expected.cash_in]
    assert _nano(whole["deferred"], "opening used expired closing") == [
        0,
        expected.revenue,
        expected.breakage,
        expected.deferred,
    ]
    assert _nano(bridge, "deferred_closing deferred_change") == [expected.deferred] * 2
    assert _nano(whole["receivables"], "receivable") == [expected.receivable]
    owed = [_nano(row, "to_30_days to_60_days to_90_days older") for row in _rows(connection, tenant_id, "receivables")]
    assert sum(map(sum, owed)) == expected.receivable
    _assert_months_add_up(connection, tenant_id, days, bridge)
    _assert_files_agree(connection, tenant_id, days, whole)


def assert_metrics_agree(connection: Connection, expected: Iterable[Expected]) -> None:
    """Compare the gauges of money with the sums of all tenants."""
    found = money(connection, list_price_of_tenants(connection))
    for term in ("revenue", "breakage", "refunds", "fees", "cash_in", "receivable"):
        assert found[term] == sum(getattr(one, term) for one in expected), term
    assert found["deferred_revenue"] == sum(one.deferred for one in expected)


def _assert_months_add_up(connection: Connection, tenant_id: int, days: Days, bridge: Any) -> None:
    """The months of a bridge and of deferred revenue add up to the whole, and each begins where another ended."""
    question = Question(days, REPORTS["bridge"].groups)
    months: list[Any] = list(REPORTS["bridge"].rows(connection, tenant_id, question))
    assert len(months) == len(list(months_of(days)))
    for name in type(bridge).model_fields:
        if name.endswith(("_usd", "_credits")) and "_opening" not in name and "_closing" not in name:
            sums = [_nano(month, name.rpartition("_")[0], name.rpartition("_")[2])[0] for month in months]
            assert sum(sums) == _nano(bridge, name.rpartition("_")[0], name.rpartition("_")[2])[0], name
    for before, after in itertools.pairwise(months):
        assert before.deferred_closing_usd == after.deferred_opening_usd
    deferred = REPORTS["deferred"]
    (total,) = deferred.rows(connection, tenant_id, Question(days))
    for groups in ((deferred.groups[0],), deferred.groups[1:], deferred.groups):
        rows = list(deferred.rows(connection, tenant_id, Question(days, groups)))
        for name in ("sold", "transferred", "used", "expired", "returned"):
            assert sum(_nano(row, name)[0] for row in rows) == _nano(total, name)[0], (groups, name)


def _assert_files_agree(connection: Connection, tenant_id: int, days: Days, whole: dict[str, Any]) -> None:
    """A CSV file has the same figures as the answer."""
    for name in ("bridge", "summary", "deferred"):
        file = io.BytesIO()
        question = Question(days)
        columns = chosen_columns(REPORTS[name], question, None)
        write_report(connection, tenant_id, REPORTS[name], question, columns, False, "csv", file)
        (row,) = csv.DictReader(io.StringIO(file.getvalue().decode()))
        assert row == {column: str(getattr(whole[name], column) or "") or row[column] for column, _ in columns}


def _total(connection: Connection, tenant_id: int, name: str, days: Days) -> Any:
    report = REPORTS[name]
    now = Days(days.end - 2, days.end - 1)
    return report.total(connection, tenant_id, Question(days if report.of_days else now))


def _rows(connection: Connection, tenant_id: int, name: str) -> list[Any]:
    return list(REPORTS[name].rows(connection, tenant_id, Question(Days(0, 1))))


def _nano(row: Any, names: str, unit: str = "usd") -> list[int]:
    """The amounts of some columns, exactly."""
    return [int(Decimal(getattr(row, f"{name}_{unit}")) * NANO) for name in names.split()]
