"""Read a collector's wallets, costs and charges for the demo, and check its receipts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
from prometheus_client.parser import text_string_to_metric_families

NANO = Decimal("0.000000001")


class Event(NamedTuple):
    """The sums of a product event's calls so far."""

    requests: int
    cost_usd: float
    charged_credits: float


class Books:
    """A client of a collector's HTTP API and metrics; its methods raise httpx2.HTTPError."""

    def __init__(self, api_url: str, metrics_url: str) -> None:
        self._api = httpx2.Client(base_url=api_url, timeout=10)
        self._metrics_url = metrics_url

    def deposit(self, wallet: str, credits: str, key: str) -> None:
        """Add credits to a wallet, once per key."""
        self._api.post(
            f"/v1/wallets/{quote(wallet, safe='')}/deposits",
            json={"amount_credits": credits, "memo": "demo"},
            headers={"Idempotency-Key": key},
        ).raise_for_status()

    def sell(self, pack: str, credits: str, price_usd: str) -> None:
        """Set a pack of credits at a price."""
        body = {"credits": credits, "price": {"value": price_usd}, "author": "demo"}
        self._api.put(f"/v1/packs/{pack}", json=body).raise_for_status()

    def wallets(self) -> list[dict[str, Any]]:
        """Return all wallets by name."""
        return list(self._pages("/v1/wallets"))

    def events(self) -> dict[str, Event]:
        """Return requests, cost and charge by event from the metrics."""
        sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for family in text_string_to_metric_families(self._api.get(self._metrics_url).raise_for_status().text):
            for sample in family.samples:
                if "event" in sample.labels:
                    sums[sample.labels["event"]][sample.name] += sample.value  # type: ignore[assignment]
        return {
            event: Event(
                int(counts["farebox_requests_total"]),
                counts["farebox_cost_usd_total"],
                counts["farebox_charged_credits_total"],
            )
            for event, counts in sorted(sums.items())
        }

    def usage(self) -> list[dict[str, Any]]:
        """Return all usage records, newest first."""
        return list(self._pages("/v1/usage"))

    def receipt(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the receipt of a usage record."""
        path = f"/v1/usage/{record['trace_id']}/{record['span_id']}/receipt"
        return self._api.get(path).raise_for_status().json()  # type: ignore[no-any-return]

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            page = self._api.get(path, params=query).raise_for_status().json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def find_errors(books: Books, calls: int) -> list[str]:
    """Return mismatches as sentences: receipts against records, records against wallets, calls against records.

    `calls` is the number of calls since the books were created.
    """
    errors = []
    charged: defaultdict[str, Decimal] = defaultdict(Decimal)
    seen = 0
    for record in books.usage():
        seen += record["verdict"] != "covered"
        if record["charge_credits"] is None:
            continue
        charged[record["wallet"]] += Decimal(record["charge_credits"])
        cost, charge = _recompute(books.receipt(record))
        if cost != Decimal(record["cost_usd"]) or charge != Decimal(record["charge_credits"]):
            errors.append(f"span {record['span_id']}: its receipt says {cost} USD and {charge} credits")
    for wallet in books.wallets():
        spent = Decimal(wallet["spent_credits"])
        if spent != charged[wallet["wallet"]]:
            errors.append(f"wallet {wallet['wallet']}: {spent} spent, {charged[wallet['wallet']]} on its receipts")
    if seen != calls:
        errors.append(f"{calls} calls were made, {seen} are in the books")
    return errors


def _recompute(receipt: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Recompute a receipt: (cost in USD, charge in credits)."""
    exact = sum(
        (Decimal(line["count"]) * Decimal(line["price"]["usd_per_1k"]) / 1000 for line in receipt["lines"]), Decimal()
    )
    cost = exact.quantize(NANO, ROUND_HALF_EVEN)
    rule = receipt["charge"]
    charge = cost * Decimal(rule["multiplier"]) / Decimal(rule["usd_per_credit"])
    return cost, charge.quantize(NANO, ROUND_HALF_EVEN)
