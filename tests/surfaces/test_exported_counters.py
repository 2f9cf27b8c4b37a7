"""What is exported is what is in the books, to the last nano: after corrections, a restart, and by every replica."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import pytest
from farebox_collector.ledger.reports.costs import versions_by_id
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.model.records import Buckets
from farebox_collector.model.verdicts import ONE_CALL
from farebox_collector.pricing.cards import rate_card
from farebox_collector.pricing.price import bill
from harness import Collector
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from spans import SpanSpec, llm_span, protobuf_body
from sqlalchemy import Connection, text

LABELS = ("event", "provider", "model", "dept", "project", "task")
PRICED = ("provider", "model", "kind")
NAMES = (
    "farebox_requests_total",
    "farebox_request_errors_total",
    "farebox_tokens_total",
    "farebox_cost_usd_total",
    "farebox_charged_credits_total",
    "farebox_reversed_requests_total",
    "farebox_reversed_cost_usd_total",
    "farebox_reversed_credits_total",
    "farebox_token_cost_usd_total",
    "farebox_priced_tokens_total",
    "farebox_corrections_total",
    "farebox_corrected_cost_usd_total",
    "farebox_corrected_credits_total",
)
LABELS_OF = {
    "farebox_tokens_total": (*LABELS, "kind"),
    "farebox_token_cost_usd_total": PRICED,
    "farebox_priced_tokens_total": PRICED,
    "farebox_corrections_total": ("cause",),
    "farebox_corrected_cost_usd_total": ("cause", "direction"),
    "farebox_corrected_credits_total": ("cause", "direction"),
}

Series = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture(params=["sqlite", "postgresql"])
def collectors(
    request: pytest.FixtureRequest, new_books: Callable[[str, Path], str], tmp_path: Path
) -> Iterator[list[Collector]]:
    """A collector, and on PostgreSQL a second one beside it."""
    url = new_books(request.param, tmp_path)
    number = 2 if request.param == "postgresql" else 1
    running = [Collector(url, tmp_path / f"collector-{n}.log") for n in range(number)]
    yield running
    for collector in running:
        collector.close()


def test_counters_equal_the_ledger(collectors: list[Collector]) -> None:
    first, last = collectors[0], collectors[-1]
    outer, inner = traffic()
    first.export_grpc(protobuf_body(outer))
    last.export_grpc(protobuf_body(outer[:20]))
    assert_equal(collectors)
    last.export_grpc(protobuf_body(inner))
    assert sum(exported(first)["farebox_reversed_cost_usd_total"].values()) > 0
    assert_equal(collectors)
    assert first.stop() == 0
    first.start()
    assert_equal(collectors)
    first.audit()


def traffic() -> tuple[list[SpanSpec], list[SpanSpec]]:
    """Calls of many labels, and spans within some of them that know more: those pay, and the first get theirs back."""
    outer = [
        llm_span(
            model=("gpt-4o-mini", "gpt-4o", "never-heard-of")[n % 3],
            event=f"event-{n % 2}",
            wallet="ada" if n % 4 == 1 else None,
            input_tokens=None if n == 8 else 100 + 7 * n,
            output_tokens=None if n == 8 else 3 * n,
            error__type="timeout" if n % 11 == 0 else None,
            farebox__dept=f"dept-{n % 4}",
            farebox__task="summarize" if n % 5 else None,
            gen_ai__usage__cache_read__input_tokens=n,
        )
        for n in range(60)
    ]
    inner = [
        span._replace(
            span_id=bytes([number]) * 8,
            parent_span_id=span.span_id,
            attributes={**span.attributes, "farebox.event": "inner", "farebox.wallet": "ada"},
        )
        for number, span in enumerate(outer[:30], start=1)
    ]
    return outer, inner


def assert_equal(collectors: list[Collector]) -> None:
    with (
        closing(open_database(collectors[0].database_url, writable=False)) as database,
        database.reading() as connection,
    ):
        expected = in_the_books(connection)
    for collector in collectors:
        found = exported(collector)
        for name in NAMES:
            nonzero = {labels: value for labels, value in found[name].items() if value}
            assert nonzero == {labels: value for labels, value in expected[name].items() if value}, name


def exported(collector: Collector) -> Series:
    """Samples of the counters by the values of their labels."""
    accept = {"accept": "application/openmetrics-text;version=1.0.0"}
    found: Series = defaultdict(dict)
    collector.fold()
    for family in text_string_to_metric_families(httpx2.get(collector.metrics_url, headers=accept).text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            labels = LABELS_OF.get(sample.name, LABELS)
            if sample.name in NAMES:
                assert sample.labels.get("tier", "standard") == "standard"
                found[sample.name][tuple(sample.labels[label] for label in labels)] = sample.value
    return found


def in_the_books(connection: Connection) -> Series:
    """The same out of records and corrections: what each was first booked as, and what each correction made of it."""
    booked: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    by_kind: defaultdict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    corrections: defaultdict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(text("SELECT * FROM corrections ORDER BY number")):
        corrections[row.usage_record_id].append(row)
        booked["farebox_corrections_total"][row.cause,] += 1
        for name, column in (("cost_usd", "cost_nanousd"), ("credits", "charge_nanocredits")):
            moved = (getattr(row, f"{column}_after") or 0) - (getattr(row, f"{column}_before") or 0)
            direction = "up" if moved > 0 else "down"
            booked[f"farebox_corrected_{name}_total"][row.cause, direction] += abs(moved)

    def book(record: Any, outcome: tuple[Any, ...], *, back: bool) -> None:
        verdict, provider, model, cost, charge, version_ids = outcome
        labels = (record.event, provider, model, record.dept, record.project, record.task)
        kind = "reversed_" if back else ""
        if verdict in ONE_CALL:
            booked[f"farebox_{kind}requests_total"][labels] += 1
            booked[f"farebox_{kind}request_errors_total"][labels] += bool(record.error_type)
        if verdict == "charged":
            booked[f"farebox_{kind}cost_usd_total"][labels] += cost
            booked[f"farebox_{'reversed' if back else 'charged'}_credits_total"][labels] += charge
            for column in TOKEN_COLUMNS:
                token_labels = (*labels, column.removesuffix("_tokens"))
                booked[f"farebox_{kind}tokens_total"][token_labels] += getattr(record, column) or 0
            if not back:
                buckets = Buckets._make(getattr(record, column) for column in TOKEN_COLUMNS)
                for unit, count, nanousd in the_bill(connection, version_ids, buckets):
                    booked["farebox_priced_tokens_total"][provider, model, unit] += count
                    by_kind[provider, model, unit] += nanousd

    for record in connection.execute(text("SELECT * FROM usage_records")):
        made = corrections[record.id]
        sides = [(side, row) for row in made for side in ("before", "after")]
        outcomes = [tuple(getattr(row, f"{name}_{side}") for name in _OUTCOME) for side, row in sides]
        if not made:
            outcomes = [tuple(getattr(record, name) for name in _OUTCOME)]
        # First booked, then taken back and booked anew by each correction.
        book(record, outcomes[0], back=False)
        for number, outcome in enumerate(outcomes):
            if made:
                book(record, outcome, back=number % 2 == 0)
    assert booked["farebox_requests_total"]
    assert {unit for _, _, unit in by_kind} == {"input", "cache_read", "output"}
    # Nothing here has a fee: the parts make the whole, but for the rounding of each call.
    whole = booked["farebox_cost_usd_total"].total()
    assert abs(Fraction(sum(by_kind.values()) - whole)) <= Fraction(booked["farebox_requests_total"].total(), 2)
    token_costs = {labels: float(nanousd / 10**9) for labels, nanousd in by_kind.items()}
    money = ("usd_total", "credits_total")
    return {"farebox_token_cost_usd_total": token_costs} | {
        name: {labels: n / 10**9 if name.endswith(money) else float(n) for labels, n in booked[name].items()}
        for name in NAMES
        if name != "farebox_token_cost_usd_total"
    }


def the_bill(connection: Connection, version_ids: str, buckets: Buckets) -> Iterator[tuple[str, int, Fraction]]:
    """Kind, tokens and exact nano-USD of each line of a call."""
    numbers = json.loads(version_ids)
    card = rate_card(list(versions_by_id(connection, set(numbers)).values()))
    for line in bill(card, buckets):
        yield line.unit, line.quantity, Fraction(line.quantity * line.rate, card.denominator)


_OUTCOME = ("verdict", "provider", "model", "cost_nanousd", "charge_nanocredits", "price_version_ids")
