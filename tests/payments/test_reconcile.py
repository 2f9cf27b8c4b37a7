"""`farebox reconcile stripe` over the double's API and over a report of Stripe's: what is on one side only."""

import csv
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from farebox_collector.cli import app
from harness import Collector, farebox
from stripe_double import StripeDouble, new_shop
from typer.testing import CliRunner

COLUMNS = (
    "balance_transaction_id",
    "created_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
    "customer_facing_amount",
    "customer_facing_currency",
    "payment_intent_id",
)


def reconcile(shop: Collector, double: StripeDouble, *more: str) -> tuple[int, list[dict[str, Any]]]:
    today = datetime.now(UTC)
    days = ("--from", f"{today - timedelta(days=1):%Y-%m-%d}", "--to", f"{today + timedelta(days=1):%Y-%m-%d}")
    command = ["reconcile", "stripe", *days, "--database-url", shop.database_url, "--json", *more]
    done = CliRunner().invoke(app, command, env=double.settings)
    assert done.exit_code in (0, 1), done.output
    told = json.loads(done.stdout)
    assert told["agree"] is not bool(told["differences"])
    return done.exit_code, told["differences"]


def buy(shop: Collector, double: StripeDouble, wallet: str) -> str:
    """Order and pay; the payment."""
    made = shop.api.post(
        f"/v1/wallets/{wallet}/checkout", json={"pack": "starter"}, headers={"Idempotency-Key": wallet}
    )
    double.pay(made.raise_for_status().json()["checkout_url"])
    return str(double.events("payment_intent.succeeded")[-1]["data"]["object"]["id"])


def write_report(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_what_is_on_one_side_only_is_listed(tmp_path: Path) -> None:
    double = StripeDouble()
    shop = new_shop(double, tmp_path)
    try:
        lost = buy(shop, double, "lost")
        assert reconcile(shop, double)[1][0] | {"why": ""} == {
            "where": "only at Stripe",
            "what": "payment",
            "id": lost,
            "payment_intent": lost,
            "amount": "8.00 USD",
            "why": "",
        }
        double.send_to(shop)
        for event in double.events():
            double.post(f"/double/events/{event['id']}/send")
        booked = buy(shop, double, "ada")
        refund = double.post("/v1/refunds", payment_intent=booked, amount=200)
        assert reconcile(shop, double) == (0, [])

        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d %H:%M:%S")
        charge = {"created_utc": now, "currency": "usd", "reporting_category": "charge", "payment_intent_id": booked}
        charge |= {"gross": "8.00", "source_id": "ch_1"}
        given = charge | {"reporting_category": "refund", "source_id": refund["id"], "gross": "-2.00"}
        euros = {"currency": "eur", "gross": "7.11", "customer_facing_amount": "8.00"}
        euros |= {"customer_facing_currency": "usd", "payment_intent_id": lost}
        report = tmp_path / "report.csv"
        write_report(report, [charge, given, charge | euros])
        assert reconcile(shop, double, "--csv", str(report)) == (0, [])

        other = charge | {"payment_intent_id": "pi_of_somebody_else", "gross": "3.50"}
        write_report(
            report, [charge | {"gross": "9.00"}, given, given | {"reporting_category": "refund_failure"}, other]
        )
        status, found = reconcile(shop, double, "--csv", str(report))
        assert status == 1
        assert {(one["where"], one["what"], one["id"], one["amount"]) for one in found} == {
            ("different", "payment", booked, "9.00 USD"),
            ("only at Stripe", "payment", "pi_of_somebody_else", "3.50 USD"),
            ("only in the books", "payment", lost, "8.00 USD"),
            ("only in the books", "refund", refund["id"], "2.00 USD"),
        }
        report.write_text("id,amount\n1,2\n", encoding="utf-8")
        failed = farebox("reconcile", "stripe", "--from", "2026-01-01", "--to", "2026-01-02", "--csv", str(report))
        assert failed.returncode != 0
        assert "reporting_category" in failed.stderr
    finally:
        shop.close()
        double.close()
