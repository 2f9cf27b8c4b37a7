"""The commands of the price book on books of their own: currencies, imports that are refused whole, tenants, gaps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.cli import app
from farebox_collector.commands.terminal import Stop
from farebox_collector.ledger.access.tenants import tenant_of
from farebox_collector.settings import Settings
from sqlalchemy import text
from typer.testing import CliRunner, Result

NOW_NS = 1_795_000_000 * 10**9
CSV = "provider,model,unit,price_per_1k,currency,valid_from\n"


class Books:
    """Books in SQLite and the commands over them."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._directory = directory

    def run(self, *arguments: str) -> Result:
        """Run a command; what it raises is raised here."""
        return CliRunner().invoke(app, [*arguments, "--database-url", self.url], catch_exceptions=False)

    def json(self, *arguments: str) -> Any:
        """What a command says with --json."""
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> str:
        """Why a command does not do it."""
        with pytest.raises(Stop) as caught:
            self.run(*arguments)
        return str(caught.value)

    def file(self, content: str, name: str = "list.csv") -> str:
        """A file for a command to read."""
        (self._directory / name).write_text(content, encoding="utf-8")
        return str(self._directory / name)

    def versions(self) -> list[tuple[Any, ...]]:
        """Everything in the price book."""
        database = assembly.open_books(Settings(database_url=self.url))
        with database.reading() as connection:
            rows = connection.execute(text("SELECT * FROM price_versions ORDER BY id")).all()
        database.close()
        return [tuple(row) for row in rows]

    def rate(self, tenant: str, model: str, unit: str = "input", provider: str = "openai") -> float | None:
        """Nano-USD a token that a tenant pays now."""
        database = assembly.open_books(Settings(database_url=self.url))
        with database.reading() as connection:
            tenant_id = tenant_of(connection, tenant)
        assert tenant_id is not None
        card = Tariffs(database, lambda: NOW_NS).of(tenant_id).book.rate_for(provider, model, NOW_NS)
        database.close()
        return None if card is None or unit not in card.rates else card.rates[unit] / card.denominator


@pytest.fixture
def books(new_books: Callable[[str, Path], str], tmp_path: Path) -> Books:
    return Books(new_books("sqlite", tmp_path), tmp_path)


def test_a_price_in_euro_is_recorded_in_dollars_with_where_it_came_from(books: Books) -> None:
    assert "no exchange rate for EUR" in books.refused("prices", "set", "p", "m", "input", "1", "--currency", "EUR")
    books.run("prices", "rate", "set", "eur", "1.08", "--from", "2026-01-01")
    books.run("prices", "rate", "set", "EUR", "1.20", "--from", "2026-06-01")
    assert [rate["usd_per_currency"] for rate in books.json("prices", "rate", "list")] == ["1.08", "1.2"]
    books.run("prices", "set", "p", "m", "input", "0.5", "--currency", "eur", "--from", "2026-03-01")
    (price,) = books.json("prices", "list", "p")
    assert (price["usd_per_1k"], price["currency"], price["original_per_1k"], price["usd_per_currency"]) == (
        "0.54",
        "EUR",
        "0.5",
        "1.08",
    )
    books.run("prices", "rate", "set", "EUR", "9", "--from", "2026-01-01")
    assert books.json("prices", "list", "p") == [price], "a rate changes no recorded price"
    assert "no currency" in books.refused("prices", "rate", "set", "EURO", "1")
    assert "no currency" in books.refused("prices", "rate", "set", "USD", "1")
    assert "positive" in books.refused("prices", "rate", "set", "EUR", "0")


def test_one_bad_row_leaves_the_book_as_it_was(books: Books) -> None:
    before = books.versions()
    listed = CSV + "p,m,input,1,USD,2026-01-01\np,m,output,0,USD,2026-01-01\np,m,inputs,1,USD,\n"
    reason = books.refused("prices", "import", "--from", "csv", books.file(listed), "--apply")
    assert "line 3: the price is zero" in reason
    assert "line 4: 'inputs' is not a unit" in reason
    overlapping = CSV + "p,m,input,1,USD,2026-01-01\np,m,input,2,USD,2026-02-01\n"
    reason = books.refused("prices", "import", "--from", "csv", books.file(overlapping), "--apply")
    assert "line 3: overlaps line 2" in reason
    listed = json.dumps({"m": {"litellm_provider": "openai", "input_cost_per_token": -1}})
    assert "below zero" in books.refused("prices", "import", "--from", "litellm", books.file(listed), "--apply")
    for missing in ((), (books.file("") + "x",)):
        assert books.refused("prices", "import", "--from", "csv", *missing, "--apply")
    assert books.versions() == before


def test_an_import_shows_first_and_applies_when_told(books: Books) -> None:
    before = books.versions()
    listed = books.file(CSV + "openai,gpt-4o-mini,input,0.5,USD,2026-11-01\nopenai,gpt-new,input,1,USD,2026-11-01\n")
    command = ("prices", "import", "--from", "csv", listed)
    for shown in (books.json(*command), books.json(*command, "--dry-run")):
        assert shown["applied"] is False
        assert {(found["model"], found["kind"], found["old_usd_per_1k"]) for found in shown["differences"]} == {
            ("gpt-4o-mini", "changed", "0.00015"),
            ("gpt-new", "added", None),
        }
    text_shown = books.run(*command)
    assert "Not applied" in text_shown.stdout
    assert books.versions() == before
    assert books.json(*command, "--apply")["prices"]["added"] == 1
    assert books.rate("default", "gpt-4o-mini") == 500_000
    assert books.rate("default", "gpt-new") == 1_000_000
    assert len(books.versions()) == len(before) + 2
    again = books.json(*command, "--apply")
    assert (again["differences"], again["prices"]["unchanged"]) == ([], 2)
    # A published list never changes it.
    published = {"gpt-4o-mini": {"litellm_provider": "openai", "input_cost_per_token": 9e-6}}
    other = books.json("prices", "import", "--from", "litellm", books.file(json.dumps(published)), "--apply")
    assert (other["prices"]["kept_by_hand"], other["prices"]["changed"]) == (1, 0)


def test_a_late_price_can_hold_from_the_past_on(books: Books) -> None:
    published = {"gpt-4o-mini": {"litellm_provider": "openai", "input_cost_per_token": 2e-7}}
    file = books.file(json.dumps(published))
    shown = books.json("prices", "import", "--from", "litellm", file, "--since", "2026-10-01", "--apply")
    (difference,) = shown["differences"]
    assert (difference["kind"], difference["from"][:10]) == ("changed", "2026-10-01")
    listed = books.json("prices", "list", "openai", "gpt-4o-mini", "--at", "2026-09-30T23:59:59")
    assert "0.00015" in [price["usd_per_1k"] for price in listed]


def test_what_one_tenant_negotiated_is_nobody_else_s_price(books: Books) -> None:
    books.run("tenants", "create", "acme")
    listed = books.file(
        CSV + "openai,gpt-4o-mini,input,0.0001,USD,2026-01-01\nhouse,own-model,input,1,USD,2026-01-01\n"
    )
    command = ("prices", "import", "--from", "csv", listed, "--tenant", "acme", "--apply")
    assert books.json(*command)["prices"]["added"] == 2
    books.run("prices", "set", "openai", "gpt-4o-mini", "output", "0.0002", "--tenant", "acme", "--from", "2026-01-01")
    assert (books.rate("acme", "gpt-4o-mini"), books.rate("default", "gpt-4o-mini")) == (100, 150)
    assert (books.rate("acme", "gpt-4o-mini", "output"), books.rate("default", "gpt-4o-mini", "output")) == (200, 600)
    assert books.rate("acme", "gpt-4o-mini", "cache_read") == 75, "the list price of what was not negotiated"
    assert books.rate("acme", "own-model", provider="house") == 1_000_000
    assert books.rate("default", "own-model", provider="house") is None
    # A list price that changes does not touch it.
    books.run("prices", "set", "openai", "gpt-4o-mini", "input", "0.0009", "--from", "2026-02-01")
    assert (books.rate("acme", "gpt-4o-mini"), books.rate("default", "gpt-4o-mini")) == (100, 900)
    scopes = {
        (price["unit"], price["scope"], price["usd_per_1k"])
        for price in books.json("prices", "list", "openai", "gpt-4o-mini", "--tenant", "acme")
        if price["condition"] == "standard" and price["unit"] in ("input", "cache_read", "output")
    }
    assert scopes == {
        ("input", "negotiated", "0.0001"),
        ("cache_read", "list", "0.000075"),
        ("output", "negotiated", "0.0002"),
    }
    assert "no tenant 'missing'" in books.refused("prices", "set", "p", "m", "input", "1", "--tenant", "missing")


def test_hours_and_tiers_can_be_set_and_overlapping_hours_cannot(books: Books) -> None:
    price = ("prices", "set", "p", "m", "input")
    assert books.run(*price, "1").exit_code == 0
    assert books.run(*price, "2", "--hours", "22:00-06:00").exit_code == 0
    assert books.run(*price, "3", "--condition", "Batch").exit_code == 0
    assert "refused" in books.refused(*price, "4", "--hours", "05:00-07:00")
    assert "not hours" in books.refused(*price, "4", "--hours", "5-7")
    assert sorted(
        (found["usd_per_1k"], found["condition"], found["daily_from"]) for found in books.json("prices", "list", "p")
    ) == [("1", "standard", None), ("2", "standard", "22:00:00Z"), ("3", "batch", None)]


def test_check_finds_gaps_and_its_status_says_so(books: Books) -> None:
    assert books.run("prices", "check").exit_code == 0, "the bundled book has gaps"
    heading = "provider,model,unit,price_per_1k,valid_from,valid_to\n"
    listed = books.file(heading + "p,m,input,1,2026-01-01,2026-02-01\np,m,input,2,2026-03-01,\n")
    books.run("prices", "import", "--from", "csv", listed, "--apply")
    books.run("prices", "set", "p", "n", "input", "1", "--over", "1000")
    done = books.run("prices", "check", "--json")
    assert done.exit_code == 1
    gaps = {gap["model"]: gap for gap in json.loads(done.stdout)}
    assert gaps["m"]["what"] == "no price between two versions"
    assert gaps["m"]["to_ns"] - gaps["m"]["from_ns"] == 28 * 86_400 * 10**9
    assert gaps["n"]["what"].startswith("a price for some calls only")
