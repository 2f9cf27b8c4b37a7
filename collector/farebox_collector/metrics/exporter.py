"""Metrics that are readings of the ledger, taken anew at each scrape."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from farebox_collector.ledger import dead_letters, statements
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.tables import TOKEN_COLUMNS
from farebox_collector.metrics import catalogue
from farebox_collector.metrics.catalogue import Metric
from farebox_collector.money import NANO
from farebox_collector.records import UNATTRIBUTED
from farebox_collector.verdicts import ONE_CALL, STORED, Verdict

_Label = tuple[str, str, str]


class LedgerCollector(Collector):
    """Reads running totals from the books. Amounts are integers until the very last step, the exported float."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Family]:
        """Nothing in advance: registering must not read the books."""
        return []

    def collect(self) -> Iterator[Family]:
        """One family a metric, from one consistent snapshot."""
        with self._database.reading() as connection:
            rows = statements.totals(connection)
            letters = dead_letters.count(connection)
            unattributed = statements.charged_calls(connection, UNATTRIBUTED)
        requests: Counter[_Label] = Counter()
        errors: Counter[_Label] = Counter()
        cost: Counter[_Label] = Counter()
        charge: Counter[_Label] = Counter()
        tokens: Counter[tuple[_Label, str]] = Counter()
        records: Counter[str] = Counter(dict.fromkeys(STORED, 0))
        for row in rows:
            if row.reversed:
                continue
            label = (row.event, row.provider, row.model)
            records[row.verdict] += row.requests
            if row.verdict in ONE_CALL:
                requests[label] += row.requests
                errors[label] += row.errors
            if row.verdict == Verdict.CHARGED:
                cost[label] += row.cost_nanousd
                charge[label] += row.charge_nanocredits
                for column in TOKEN_COLUMNS:
                    tokens[label, column.removesuffix("_tokens")] += getattr(row, column)
        yield _family(catalogue.REQUESTS, {label: float(n) for label, n in requests.items()})
        yield _family(catalogue.REQUEST_ERRORS, {label: float(n) for label, n in errors.items()})
        yield _family(catalogue.TOKENS, {(*label, kind): float(n) for (label, kind), n in tokens.items()})
        yield _family(catalogue.COST, {label: n / NANO for label, n in cost.items()})
        yield _family(catalogue.CHARGE, {label: n / NANO for label, n in charge.items()})
        yield _family(catalogue.RECORDS, {(verdict,): float(n) for verdict, n in records.items()})
        yield _family(catalogue.UNATTRIBUTED, {(): float(unattributed)})
        yield GaugeMetricFamily(catalogue.DEAD_LETTERS.name, catalogue.DEAD_LETTERS.meaning, letters)


def _family(metric: Metric, samples: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family
