"""Metrics read from the ledger at each scrape."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from farebox_collector.ledger.audit.audit_runs import SCOPES, last_audit
from farebox_collector.ledger.credits.budgets import budgets_in_force
from farebox_collector.ledger.journal.outbox import MessageState, messages_by_state
from farebox_collector.ledger.payments import auto_topups, payment_fees
from farebox_collector.ledger.payments.unmatched import count_unmatched
from farebox_collector.ledger.reports import metric_readings, statements
from farebox_collector.ledger.reports.terms import ListPrice
from farebox_collector.ledger.reports.token_costs import Cards
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.service import FIRST_CHUNK_BOUNDS_MS, LATENCY_BOUNDS_MS
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.tariffs.prices import book_edition
from farebox_collector.ledger.tariffs.rules import rules_edition
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.batch_sums import FIRST_CHUNK_COLUMNS, LATENCY_COLUMNS
from farebox_collector.ledger.usage.corrections import Cause, are_frozen
from farebox_collector.ledger.usage.running_totals import SERVICE_LABELS, USAGE_LABELS
from farebox_collector.ledger.usage.stakes import stake_sums
from farebox_collector.metrics import catalogue
from farebox_collector.metrics.exemplars import Exemplars
from farebox_collector.metrics.families import (
    Labels,
    family,
    histogram,
    summary,
)
from farebox_collector.model.money import NANO
from farebox_collector.model.records import UNATTRIBUTED, Buckets
from farebox_collector.model.units import FALLBACK_UNITS
from farebox_collector.model.verdicts import ONE_CALL, STORED, Verdict

_ALWAYS_SHOWN = frozenset({"input", "output"})
_WAITING = (Verdict.UNPRICED, Verdict.UNMETERED, Verdict.EXPOSED)
_SEVERITIES = ("critical", "warning", "info")
_MOST_PRICED_MODELS = 500
_COUNT_AGAIN_NS = 60 * 10**9


class LedgerCollector(Collector):
    """Read running totals from the books. Amounts are integers until the last step, the exported float."""

    def __init__(self, database: Database, exemplars: Exemplars, clock: Callable[[], int]) -> None:
        self._database = database
        self._exemplars = exemplars
        self._clock = clock
        self._cards = Cards()
        self._running_dry: Mapping[str, int] = {}
        self._counted_at_ns = -_COUNT_AGAIN_NS

    def describe(self) -> list[Family]:
        """Return nothing: registration must not read the books."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield one family per metric, from one consistent snapshot. It may lack the calls of the last half second."""
        with self._database.snapshot() as connection:
            usage = metric_readings.usage_rows(connection)
            prices = metric_readings.list_price_of_tenants(connection)
            service = metric_readings.service_rows(connection)
            by_price = self._cards.token_costs(connection)
            money = metric_readings.money(connection, prices)
            others = list(self._money_and_books(connection, _charged_models(usage)))
        yield from _spending(usage, prices)
        yield family(catalogue.TOKEN_COST, {label: float(usd) for label, usd in by_price.usd.items()})
        yield family(catalogue.PRICED_TOKENS, {label: float(count) for label, count in by_price.tokens.items()})
        yield family(catalogue.MONEY, {(term,): amount / NANO for term, amount in money.items()})
        yield from _waiting(usage)
        yield from self._calls(service)
        yield from others

    def _calls(self, rows: Sequence[Any]) -> Iterator[Family]:
        """Latency, errors, tokens and quality of calls."""
        labelled = [(tuple(getattr(row, name) for name in SERVICE_LABELS), row) for row in rows]
        latencies = [
            (labels, [getattr(row, name) for name in LATENCY_COLUMNS], row.requests, row.latency_us)
            for labels, row in labelled
        ]
        first_chunks = [
            (labels, [getattr(row, name) for name in FIRST_CHUNK_COLUMNS], row.first_chunks, row.first_chunk_us)
            for labels, row in labelled
            if row.first_chunks
        ]
        yield histogram(catalogue.CALL_SECONDS, latencies, LATENCY_BOUNDS_MS, self._exemplars.of)
        yield histogram(catalogue.FIRST_CHUNK_SECONDS, first_chunks, FIRST_CHUNK_BOUNDS_MS, _no_exemplar)
        tokens = {(*labels, "input"): float(row.input_tokens) for labels, row in labelled}
        tokens |= {(*labels, "output"): float(row.output_tokens) for labels, row in labelled}
        yield family(catalogue.CALL_TOKENS, tokens)
        for metric, column in (
            (catalogue.CALL_ERRORS, "errors"),
            (catalogue.CACHE_LOOKUPS, "cache_lookups"),
            (catalogue.CACHE_HITS, "cache_hits"),
            (catalogue.HUMAN_REVIEWS, "human_reviews"),
            (catalogue.HUMAN_APPROVALS, "human_approvals"),
        ):
            yield family(metric, {labels: float(getattr(row, column)) for labels, row in labelled})
        rates = [(labels, row.citation_rates, row.citation_rate_ppm / 1e6) for labels, row in labelled]
        yield summary(catalogue.CITATION_RATE, rates)

    def _money_and_books(self, connection: Connection, models: Sequence[tuple[str, str]]) -> Iterator[Family]:
        """Wallets, credits, prices, budgets, and items that need attention."""
        now_ns = self._clock()
        wallets = metric_readings.wallets(connection)
        yield family(catalogue.WALLETS, {(): float(wallets.wallets)})
        yield family(catalogue.WALLETS_BELOW, {(str(bound),): float(n) for bound, n in wallets.below.items()})
        yield family(catalogue.WALLETS_RUNNING_DRY, {(time,): float(n) for time, n in self._dry(connection).items()})
        sums = {"positive": wallets.positive_nanocredits, "negative": wallets.negative_nanocredits}
        yield family(catalogue.WALLET_CREDITS, {(sign,): amount / NANO for sign, amount in sums.items()})
        credits_in = {"deposit": 0} | metric_readings.credits_in(connection)
        yield family(catalogue.CREDITS_IN, {(source,): amount / NANO for source, amount in credits_in.items()})
        yield from _payments(connection)
        yield family(catalogue.CREDIT_USD, {(): float(metric_readings.usd_per_credit(connection))})
        budgets: Counter[str] = Counter()
        for row in budgets_in_force(connection):
            budgets[row.dept] += row.nanousd_per_month
        yield family(catalogue.BUDGET, {(dept,): amount / NANO for dept, amount in budgets.items()})
        prices = _with_fallbacks(metric_readings.list_prices(connection, models, now_ns))
        yield family(catalogue.LIST_PRICE, {labels: float(price) for labels, price in prices.items()})
        yield family(catalogue.PRICE_EDITION, {(): float(book_edition(connection))})
        yield family(catalogue.RULE_EDITION, {(): float(rules_edition(connection))})
        unattributed = statements.charged_calls(connection, UNATTRIBUTED)
        yield family(catalogue.UNATTRIBUTED, {(): float(unattributed)})
        yield family(catalogue.DEAD_LETTERS, {(): float(dead_letters.count(connection))})
        yield from _audits(connection)
        yield from _corrections(connection)
        messages = dict.fromkeys(MessageState, 0) | messages_by_state(connection)
        yield family(catalogue.WEBHOOK_MESSAGES, {(state,): float(n) for state, n in messages.items()})
        incidents = dict.fromkeys(_SEVERITIES, 0) | metric_readings.incidents_by_severity(connection)
        stakes = stake_sums(connection)
        yield family(catalogue.STAKE_RECORDS, {(flag,): float(records) for flag, (records, _) in stakes.items()})
        yield family(catalogue.AT_STAKE, {(flag,): amount / NANO for flag, (_, amount) in stakes.items()})
        yield family(catalogue.INCIDENTS, {(severity,): float(n) for severity, n in incidents.items()})

    def _dry(self, connection: Connection) -> Mapping[str, int]:
        """Wallets that run dry, counted once a minute because it reads a week of their spending."""
        now_ns = self._clock()
        if not 0 <= now_ns - self._counted_at_ns < _COUNT_AGAIN_NS:
            self._running_dry = metric_readings.wallets_running_dry(connection, now_ns)
            self._counted_at_ns = now_ns
        return self._running_dry


def _payments(connection: Connection) -> Iterator[Family]:
    automatic = {"on": 0, "failed": 0, "paused": 0} | auto_topups.standing(connection)
    yield family(catalogue.AUTO_TOPUPS, {(state,): float(n) for state, n in automatic.items()})
    unmatched = count_unmatched(connection)
    yield family(catalogue.PAYMENTS_UNMATCHED, {(kind,): float(n) for kind, n in unmatched.items()})
    aside = payment_fees.count_waiting(connection) | auto_topups.set_aside(connection)
    yield family(catalogue.PAYMENTS_SET_ASIDE, {(reason,): float(n) for reason, n in aside.items()})


def _audits(connection: Connection) -> Iterator[Family]:
    """Results of the last audits, by any collector."""
    last = {scope: audited for scope in SCOPES if (audited := last_audit(connection, scope)) is not None}
    found = {(scope,): float(audited.mismatches) for scope, audited in last.items()}
    yield family(catalogue.AUDIT_MISMATCHES, found)
    ended = {(scope,): audited.ended_at_ns / 1e9 for scope, audited in last.items()}
    yield family(catalogue.AUDIT_TIMESTAMP, ended)
    yield family(catalogue.CORRECTIONS_FROZEN, {(): float(are_frozen(connection))})


def _corrections(connection: Connection) -> Iterator[Family]:
    """Corrections by cause; causes without corrections are 0."""
    rows = {row.cause: row for row in metric_readings.correction_rows(connection)}
    counts = {(cause.value,): float(rows[cause].corrections) if cause in rows else 0.0 for cause in Cause}
    yield family(catalogue.CORRECTIONS, counts)
    for metric, name, unit in (
        (catalogue.CORRECTED_COST, "cost", "nanousd"),
        (catalogue.CORRECTED_CHARGE, "charge", "nanocredits"),
    ):
        moved = {
            (cause.value, direction): getattr(rows[cause], f"{name}_{direction}_{unit}") if cause in rows else 0
            for cause in Cause
            for direction in ("up", "down")
        }
        yield family(metric, {labels: int(amount) / NANO for labels, amount in moved.items()})


def _spending(rows: Sequence[Any], prices: Mapping[int, ListPrice]) -> Iterator[Family]:
    """Requests, tokens and money: booked, and separately reversed by corrections."""
    booked: defaultdict[str, Counter[Labels]] = defaultdict(Counter)
    reversed_: defaultdict[str, Counter[Labels]] = defaultdict(Counter)
    tokens: Counter[Labels] = Counter()
    records: Counter[str] = Counter(dict.fromkeys(STORED, 0))
    for row in rows:
        labels = tuple(getattr(row, name) for name in USAGE_LABELS)
        side = reversed_ if row.reversed else booked
        if not row.reversed:
            records[row.verdict] += row.requests
        if row.verdict in ONE_CALL:
            side["requests"][labels] += row.requests
            side["errors"][labels] += row.errors
        if row.verdict == Verdict.CHARGED:
            side["cost"][labels] += row.cost_nanousd
            side["charge"][labels] += row.charge_nanocredits
            side["value"][labels] += prices[row.tenant_id].nanousd(row.charge_nanocredits)
            if not row.reversed:
                for column in TOKEN_COLUMNS:
                    kind, count = column.removesuffix("_tokens"), getattr(row, column)
                    if count or kind in _ALWAYS_SHOWN:
                        tokens[*labels, kind] += count
    yield family(catalogue.REQUESTS, {labels: float(n) for labels, n in booked["requests"].items()})
    yield family(catalogue.REQUEST_ERRORS, {labels: float(n) for labels, n in booked["errors"].items()})
    yield family(catalogue.TOKENS, {labels: float(n) for labels, n in tokens.items()})
    yield family(catalogue.RECORDS, {(verdict,): float(n) for verdict, n in records.items()})
    # Each label set has its reversed counter at 0 from the start: a difference of two series needs both.
    for metric, name, unit in (
        (catalogue.REVERSED_REQUESTS, "requests", 1),
        (catalogue.REVERSED_COST, "cost", NANO),
        (catalogue.REVERSED_CHARGE, "charge", NANO),
        (catalogue.REVERSED_CHARGE_VALUE, "value", NANO),
    ):
        yield family(metric, {labels: reversed_[name][labels] / unit for labels in booked[name]})
    yield family(catalogue.COST, {labels: n / NANO for labels, n in booked["cost"].items()})
    yield family(catalogue.CHARGE, {labels: n / NANO for labels, n in booked["charge"].items()})
    yield family(catalogue.CHARGE_VALUE, {labels: n / NANO for labels, n in booked["value"].items()})


def _waiting(rows: Sequence[Any]) -> Iterator[Family]:
    """Records that are not settled."""
    waiting: Counter[Labels] = Counter()
    for row in rows:
        if row.verdict in _WAITING:
            waiting[row.verdict, row.provider, row.model] += (1 - 2 * row.reversed) * row.requests
    yield family(catalogue.UNSETTLED, {labels: float(n) for labels, n in waiting.items()})


def _charged_models(rows: Sequence[Any]) -> list[tuple[str, str]]:
    models = {(row.provider, row.model) for row in rows if row.verdict == Verdict.CHARGED}
    return sorted(models)[:_MOST_PRICED_MODELS]


def _with_fallbacks(rows: Sequence[Any]) -> Mapping[tuple[str, str, str], Decimal]:
    """Map (provider, model, kind) to its price, also for kinds that providers bill as another kind."""
    prices = {(row.provider, row.model, row.unit): Decimal(row.usd_per_1k) for row in rows}
    for provider, model in {(provider, model) for provider, model, _ in prices}:
        for kind in Buckets._fields:
            priced_as = kind
            while priced_as in FALLBACK_UNITS and (provider, model, priced_as) not in prices:
                priced_as = FALLBACK_UNITS[priced_as]
            if (provider, model, priced_as) in prices:
                prices[provider, model, kind] = prices[provider, model, priced_as]
    # Reasoning has a separate price, or is billed as output.
    separate = {key[:2]: price for key, price in prices.items() if key[2] == "output_reasoning"}
    reasoning = {(*model, "reasoning"): price for model, price in separate.items()}
    return {key: price for key, price in prices.items() if key[2] in Buckets._fields} | reasoning


def _no_exemplar(_labels: Labels, _bucket: int) -> None:
    return None
