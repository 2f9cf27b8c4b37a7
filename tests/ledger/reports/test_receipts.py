"""Receipts that a stranger can work out again: every kind of price, and what does not add up is named."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from booked import book_calls, used
from calls import START_NS
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.exchange_rates import load_rates, set_rate
from farebox_collector.ledger.tariffs.prices import load_prices, set_price
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    Buckets,
    CatalogueRow,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.currencies import ExchangeRate, in_usd
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.receipt_check import mismatches
from farebox_collector.surfaces.api.receipt_models import Receipt
from farebox_collector.surfaces.api.receipts import receipt
from sqlalchemy import text

A_MONDAY_AT_TWO_NS = 1_796_004_000 * 10**9
"""2026-11-30, 02:00 UTC: peak hours at DeepSeek."""


def receipt_of(database: Database, usage: UsageRecord) -> Receipt:
    with database.reading() as connection:
        found = receipt(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id)
    assert found is not None
    return found


def test_every_kind_of_price_has_a_receipt_that_adds_up(database: Database) -> None:
    euro = CatalogueRow("house", "llama", "input", 0, 0, 0, Decimal(0), 0, None)
    own = CatalogueRow("openai", "gpt-4o-mini", "output", 0, 0, 0, Decimal("0.0003"), START_NS, None)
    with database.transaction() as connection:
        set_rate(connection, ExchangeRate("EUR", Decimal("1.08"), 0), "ada", START_NS)
        set_price(connection, in_usd(euro, Decimal("0.1"), "EUR", load_rates(connection)), "ada", START_NS)
        set_price(connection, own, "ada", START_NS, DEFAULT_TENANT_ID)
    plain = Buckets(input=1000, cache_read=400, output=200, reasoning=50)
    usages = [
        used(1, buckets=plain),
        used(2, "llama", "house", buckets=Buckets(input=10)),
        used(3, "gpt-4.1", buckets=plain, service_tier="batch", started_at_ns=START_NS + 320 * 86_400 * 10**9),
        used(4, "claude-sonnet-4-5", "anthropic", buckets=Buckets(input=199_000, cache_read=2_000, output=9)),
        used(5, "deepseek-v4-pro", "deepseek", buckets=plain, started_at_ns=A_MONDAY_AT_TWO_NS),
        used(6, "gpt-4.1", buckets=plain, units=(("web_searches", 2),)),
        used(7, "voxtral-mini-2602", "mistral", buckets=Buckets(), units=(("audio_seconds", 61),)),
    ]
    priced, verdicts = book_calls(database, usages)
    assert verdicts == [Verdict.CHARGED] * 7, [call.reason for call in priced]
    receipts = [receipt_of(database, usage) for usage in usages]
    assert [mismatches(found) for found in receipts] == [[]] * 7
    assert receipts[0].cost_usd == "0.000240000"  # 1000 × 150 + 400 × 75 + 200 × 300
    assert [line.price.scope for line in receipts[0].lines] == ["list", "list", "negotiated"]
    (line,) = receipts[1].lines
    assert (line.price.currency, line.price.original_per_1k, line.price.usd_per_currency) == ("EUR", "0.1", "1.08")
    assert (line.price.usd_per_1k, receipts[1].cost_usd) == ("0.108", "0.001080000")
    assert {line.price.condition for line in receipts[2].lines} == {"batch", "standard"}
    assert {line.price.over_input_tokens for line in receipts[3].lines} == {200_000}
    assert receipts[3].inclusive_input_tokens == 201_000
    assert all((line.price.daily_from, line.price.weekdays) == ("01:00:00Z", "mon-fri") for line in receipts[4].lines)
    assert {line.unit: line.count for line in receipts[5].lines}["web_searches"] == 2
    (line,) = receipts[6].lines
    assert (line.unit, line.price.unit, line.divisor) == ("audio_seconds", "audio_hours", 3_600_000)
    # What people keep is JSON: it says the same.
    assert [mismatches(Receipt.model_validate_json(found.model_dump_json())) for found in receipts] == [[]] * 7


def test_any_call_has_a_receipt_that_adds_up(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    """Two hundred models of the book, each with every unit that it has a price for."""
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    random = Random(20_261_121)
    with database.reading() as connection:
        versions, _ = load_prices(connection)
    usages = []
    for number, version in enumerate(random.sample(versions, 200), start=1):
        counts = Buckets(*(random.choice((0, 1, 999, 150_000)) for _ in Buckets._fields))
        buckets = counts._replace(reasoning=min(counts.reasoning, counts.output))
        at_ns = START_NS + random.randrange(330) * 86_400 * 10**9 + random.randrange(86_400) * 10**9
        facts = {"service_tier": random.choice(("", version.condition, "flex")), "started_at_ns": at_ns}
        usages.append(used(number, version.model, version.provider, buckets=buckets, **facts))
    _, verdicts = book_calls(database, usages)
    charged = [usage for usage, verdict in zip(usages, verdicts, strict=True) if verdict is Verdict.CHARGED]
    assert len(charged) > 100
    assert [found for usage in usages for found in mismatches(receipt_of(database, usage))] == []
    database.close()


TAMPERED = {
    "cost_nanousd = cost_nanousd + 1": "the lines sum to",
    "charge_nanocredits = charge_nanocredits - 1": "charge_credits says",
    "output_tokens = output_tokens + 1": "the lines sum to",
    "priced_at_ns = 0, price_version_ids = replace(price_version_ids, ']', ']')": "",
    "model = 'gpt-4o'": "is of openai/gpt-4o-mini",
}


def test_what_does_not_add_up_is_named(database: Database) -> None:
    usage = used(1, buckets=Buckets(input=1000, output=200))
    book_calls(database, [usage])
    for change, sentence in TAMPERED.items():
        with database.transaction() as connection, connection.begin_nested() as undone:
            connection.execute(text(f"UPDATE usage_records SET {change}"))
            found = receipt(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id)
            undone.rollback()
        assert found is not None
        assert (sentence in " ".join(mismatches(found))) if sentence else mismatches(found) == [], change
    assert mismatches(receipt_of(database, usage)) == []


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("lines", 0, "price", "usd_per_1k"), "0.00016", "the lines sum to"),
        (("lines", 0, "price", "valid_from"), "2999-01-01T00:00:00.000000000Z", "did not hold yet"),
        (("lines", 0, "price", "condition"), "batch", "for the service tier batch"),
        (("lines", 0, "price", "over_input_tokens"), 5000, "more input"),
        (("lines", 0, "count"), 1001, "the call used 1000, the lines bill 1001"),
        (("buckets", "cache_read"), 7, "cache_read: the call used 7, the lines bill 0"),
        (("units", "web_searches"), 1, "web_searches: the call used 1, the lines bill 0"),
        (("charge",), None, "has no charge"),
        (("cost_usd",), None, "without a cost"),
        (("charge", "multiplier"), "2", "charge_credits says"),
    ],
)
def test_a_forged_receipt_is_found_out(
    new_books: Callable[[str, Path], str], tmp_path: Path, path: tuple[str | int, ...], value: object, sentence: str
) -> None:
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    usage = used(1, buckets=Buckets(input=1000, output=200))
    book_calls(database, [usage])
    honest = receipt_of(database, usage)
    database.close()
    forged = json.loads(honest.model_dump_json())
    *above, last = path
    place = forged
    for step in above:
        place = place[step]
    place[last] = value
    assert sentence in " ".join(mismatches(Receipt.model_validate(forged)))


def test_the_command_prints_verifies_and_fails(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    url = new_books("sqlite", tmp_path)
    database = assembly.open_books(Settings(database_url=url))
    usage = used(1, buckets=Buckets(input=1000, output=200))
    book_calls(database, [usage])
    database.close()

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["receipt", usage.trace_id.hex(), usage.span_id.hex(), "--database-url", url, *arguments]
        return subprocess.run(
            [sys.executable, "-m", "farebox_collector", *command], capture_output=True, text=True, check=False
        )

    shown = run("--verify")
    assert shown.returncode == 0, shown.stderr
    for word in ("0.00015", "0.0006", "0.000270000 USD", "0.000270000 credits", "half to even", "Verified"):
        assert word in shown.stdout
    told = json.loads(run("--json", "--verify").stdout)
    assert (told["cost_usd"], told["verified"], told["mismatches"]) == ("0.000270000", True, [])
    with closing(assembly.open_books(Settings(database_url=url))) as database, database.transaction() as connection:
        connection.execute(text("UPDATE usage_records SET cost_nanousd = 1"))
    wrong = run("--verify")
    assert wrong.returncode == 1
    assert "MISMATCH the lines sum to 0.000270000" in wrong.stdout
