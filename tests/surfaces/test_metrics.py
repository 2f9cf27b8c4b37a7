"""What a scraper gets: every metric that is documented and no other, exemplars, and the same from any collector."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.metrics import catalogue
from farebox_collector.metrics.catalogue import CATALOGUE, Kind
from farebox_collector.metrics.exposition import openmetrics
from farebox_collector.metrics.families import family, histogram, summary
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.verdicts import Verdict
from harness import Collector, farebox
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector as RegistryCollector
from prometheus_client.samples import Exemplar
from spans import llm_span, protobuf_body

OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}
SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_count", "_sum"), Kind.SUMMARY: ("_count", "_sum")}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with something of everything, whose audits come quickly."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("metrics")), audit_seconds=0.2)
    spans = [
        llm_span(
            farebox__dept=f"dept-{n % 3}",
            farebox__route="cheap",
            cloud__region="eu",
            latency_ns=n * 10**8,
            gen_ai__response__time_to_first_chunk=0.2,
            farebox__citation_rate=0.5,
            farebox__review__approved=n % 2 == 0,
            error__type="timeout" if n == 7 else None,
        )
        for n in range(1, 11)
    ]
    collector.export_grpc(protobuf_body([*spans, llm_span(model="never-heard-of"), llm_span(input_tokens=-1)]))
    report = llm_span(farebox__quality__trace_id=spans[0].trace_id.hex(), farebox__review__approved=True)
    kept = {key: value for key, value in report.attributes.items() if key.startswith("farebox.")}
    for _ in range(2):
        collector.export_grpc(protobuf_body([report._replace(attributes=kept)]))
    collector.api.put("/v1/budgets/dept-1", json={"usd_per_month": "2500"}).raise_for_status()
    collector.api.post(
        "/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers={"Idempotency-Key": "1"}
    ).raise_for_status()
    while "farebox_audit_timestamp_seconds{" not in httpx2.get(collector.metrics_url).text:
        time.sleep(0.05)
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def families(collector: Collector) -> dict[str, dict[str, float]]:
    """Samples with their labels by name, as OpenMetrics has them."""
    found: dict[str, dict[str, float]] = {}
    collector.fold()
    text = httpx2.get(collector.metrics_url, headers=OPENMETRICS).raise_for_status().text
    for told in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in told.samples:
            found.setdefault(sample.name, {})[str(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_scrape_has_every_metric_of_the_catalogue_and_no_other(busy: Collector) -> None:
    expected = {f"{m.name}{suffix}" for m in CATALOGUE for suffix in SUFFIXES.get(m.kind, ("",))}
    assert set(families(busy)) == expected


def test_the_text_is_that_of_the_official_encoder() -> None:
    """Labels that need escaping, exemplars, and what processes count themselves, to the byte."""
    registry = CollectorRegistry()
    meters = Meters(registry, 1_000)
    meters.answered("grpc", "accepted", 0.02)
    meters.judged({Verdict.CHARGED: 3})
    odd = ('a"b\\c', "line\nbreak", "ü", "", "x", "1e3")
    ours = [
        family(catalogue.COST, {odd: 0.1 + 0.2, ("",) * 6: 1e-9, ("a",) * 6: 12345678901234567.0}),
        family(catalogue.WALLETS, {(): 3.0}),
        histogram(
            catalogue.CALL_SECONDS,
            [(odd[:4], [1] * 12, 3, 2_500_000)],
            range(1000, 13_000, 1000),
            lambda _, bucket: Exemplar({"trace_id": "ab"}, 0.5, 12.25) if bucket == 3 else None,
        ),
        summary(catalogue.CITATION_RATE, [(odd[:4], 2, 1.5)]),
    ]

    class Ours(RegistryCollector):
        def collect(self) -> list[Metric]:
            return ours

    registry.register(Ours())
    assert openmetrics(registry.collect()) == generate_latest(registry)  # type: ignore[no-untyped-call]


def test_labels_are_those_of_the_catalogue(busy: Collector) -> None:
    declared = {metric.name: set(metric.labels) for metric in CATALOGUE}
    busy.fold()
    text = httpx2.get(busy.metrics_url, headers=OPENMETRICS).text
    for told in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        name = told.name + ("_total" if told.type == "counter" else "")
        for sample in told.samples:
            assert set(sample.labels) - {"le"} == declared[name], sample


def test_quality_and_latency_add_up(busy: Collector) -> None:
    metrics = families(busy)
    assert sum(metrics["farebox_call_seconds_count"].values()) == 11
    assert sum(metrics["farebox_call_seconds_sum"].values()) == pytest.approx(5.5 + 0.5)
    assert sum(metrics["farebox_first_chunk_seconds_count"].values()) == 10
    assert sum(metrics["farebox_call_errors_total"].values()) == 1
    assert sum(metrics["farebox_citation_rate_sum"].values()) == pytest.approx(5)
    assert sum(metrics["farebox_human_reviews_total"].values()) == 10 + 1
    assert sum(metrics["farebox_human_approvals_total"].values()) == 5 + 1
    assert metrics["farebox_spans_total"]["[('verdict', 'noted')]"] == 2


def test_a_call_shows_what_it_said_of_its_answer(busy: Collector) -> None:
    told = [record["quality"] for record in busy.usage(verdict="charged")]
    expected = {"cache_hit": None, "citation_rate": 0.5, "human_reviewed": True}
    assert len(told) == 10
    assert all(quality | expected == quality for quality in told)
    assert sum(quality["review_approved"] for quality in told) == 5


def test_latency_buckets_have_exemplars_that_are_in_the_books(busy: Collector) -> None:
    busy.fold()
    text = httpx2.get(busy.metrics_url, headers=OPENMETRICS).text
    trace_ids = set(re.findall(r'farebox_call_seconds_bucket\{[^}]*\} \S+ # \{trace_id="([0-9a-f]{32})"\}', text))
    assert len(trace_ids) >= 2
    for trace_id in trace_ids:
        assert busy.usage(trace_id=trace_id)


def test_the_list_price_is_in_the_terms_of_the_price_book(busy: Collector) -> None:
    prices = families(busy)["farebox_list_price_usd_per_1k"]
    labels = [("kind", "input"), ("model", "gpt-4o-mini"), ("provider", "openai")]
    assert prices[str(labels)] == 0.00015
    assert "never-heard-of" not in str(prices)


def test_wallets_are_counted_by_balance_and_never_named(busy: Collector) -> None:
    metrics = families(busy)
    assert metrics["farebox_wallets"]["[]"] == 1
    below = {label: count for label, count in metrics["farebox_wallets_below"].items() if count}
    assert set(below) == {f"[('credits', '{bound}')]" for bound in (10, 50, 100, 500, 1000)}
    busy.fold()
    assert '"ada"' not in httpx2.get(busy.metrics_url).text


def test_budgets_are_versions_of_which_the_last_holds(tmp_path: Path) -> None:
    books = ("--database-url", f"sqlite:///{tmp_path}/farebox.db")
    for amount in ("100", "250.5"):
        assert farebox("budgets", "set", "support", amount, "--reason", "growth", *books).returncode == 0
    assert farebox("budgets", "set", "idle", "5", *books).returncode == 0
    assert farebox("budgets", "set", "idle", "0", *books).returncode == 0
    assert farebox("budgets", "set", "idle", "-1", *books).returncode == 2
    listed = farebox("budgets", "list", "--json", *books).stdout
    assert '"usd_per_month": "250.500000000"' in listed
    assert "idle" not in listed
