"""Every operation and every command that changes something writes into the audit log: a new one fails until it does.

What has to be tried comes from the OpenAPI document and from the list of commands, not from this file.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from access.conftest import PASSWORD, House
from access.test_approvals import Person
from blank import blank_sqlite
from farebox_collector.cli import app
from farebox_collector.surfaces.api.application import documentation
from harness import Collector
from spans import llm_span, protobuf_body
from stripe_double import StripeDouble, new_shop
from typer.testing import CliRunner

CHANGES_NOTHING = {
    "POST /v1/rules/simulate": "reads",
    "POST /v1/holds": "an application sets credits aside for a call; the hold itself is the record",
    "POST /v1/holds/{hold_id}/void": "the same",
}
READING_COMMANDS = {
    "serve",
    "stakes",
    "check-recordings",
    "audit",
    "audit-log",
    "backup",
    "charges",
    "costs",
    "receipt",
    "report",
    "reconcile stripe",
    "stripe-double",
    "keys generate",
    "secrets generate",
    "privacy export",
    "privacy pseudonym",
    "migrate",
    "prices check",
    "rules simulate",
    "wallets lots",
    "wallets show",
    "deadletters show",
    "incidents show",
    "rules history",
    "policies history",
    "webhooks endpoints",
    "webhooks thresholds",
}
"""Commands that change nothing of a tenant; every `list` is one, too."""
SHOP_COMMANDS = {"wallets auto-topup": "auto_topup.set"}
"""Commands that need a payment provider: the operation of the API that does the same is tried."""


class Shop(NamedTuple):
    """A collector without keys that sells packs through a double of Stripe."""

    collector: Collector
    double: StripeDouble

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        response = self.collector.api.request(method, path, json=body, headers=headers).raise_for_status()
        return response.json() if response.content else None

    def log(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", "/v1/audit-log?limit=1000")["items"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    double = StripeDouble()
    collector = new_shop(double, tmp_path_factory.mktemp("shop"), audit_seconds=3600, settle_seconds=3600)
    double.send_to(collector)
    yield Shop(collector, double)
    assert collector.stop() == 0
    collector.audit()
    collector.close()
    double.close()


def operations(shop: Shop) -> dict[str, tuple[str, Callable[[], Any]]]:
    """How each operation is called so that it changes something, and its action in the log; in this order."""
    ask = shop.ask
    made: dict[str, Any] = {}

    def keep(name: str, value: Any) -> Any:
        made[name] = value
        return value

    def replay() -> None:
        shop.collector.export_grpc(protobuf_body([llm_span(wallet="ada", model="gpt-4o")]))
        price = {"provider": "openai", "model": "gpt-4o", "unit": "input", "price_per_1k": "0.5"}
        ask("POST", "/v1/prices", {**price, "valid_from": "2026-01-02T00:00:00Z"})
        ask("POST", "/v1/replays", {"from": "2026-01-02T00:00:00Z", "to": "2099-01-01T00:00:00Z", "dry_run": False})

    def checkout() -> None:
        body = {"pack": "starter", "save_payment_method": True}
        url = ask("POST", "/v1/wallets/ada/checkout", body, **{"Idempotency-Key": "1"})["checkout_url"]
        keep("checkout", url)

    def pay() -> None:
        shop.double.pay(made["checkout"])
        until = time.monotonic() + 20
        while not any(entry["action"] == "movement.topup" for entry in shop.log()):
            assert time.monotonic() < until
            time.sleep(0.05)

    def propose(key: str) -> int:
        ask("PUT", "/v1/approval-policy", {"movements_from_credits": "50", "reason": "test"})
        body = {"type": "grant", "amount_credits": "60"}
        return int(ask("POST", "/v1/wallets/ada/movements", body, **{"Idempotency-Key": key})["approval_id"])

    def person(login: str) -> Person:
        return Person(House(shop.collector), login)

    def decide(what: str) -> None:
        number = propose(what)
        ada, bob = person("ada"), person("bob")
        body = {"reason": "no"} if what == "refuse" else None
        assert ada.post(f"/v1/approvals/{number}/{what}", body).status_code == 200
        if what == "approve":
            # The proposer is everyone on loopback: two persons have to approve.
            assert bob.post(f"/v1/approvals/{number}/{what}").json()["state"] == "executed"

    def add_person(login: str) -> Any:
        return ask("POST", "/v1/people", {"login": login, "role": "admin", "password": PASSWORD})

    def end_session() -> None:
        person("ada")
        session = ask("GET", "/v1/sessions")["items"][0]["session_id"]
        ask("DELETE", f"/v1/sessions/{session}")

    def endpoint() -> int:
        return int(
            keep("endpoint", ask("POST", "/v1/webhook-endpoints", {"url": "https://hooks.example/x"}))["endpoint_id"]
        )

    def retry() -> None:
        message = ask("GET", "/v1/webhook-messages")["items"][0]
        ask("POST", f"/v1/webhook-messages/{message['message_id']}/retry")

    rule = {"event": "e", "kind": "flat", "flat_credits": "1", "reason": "r"}
    price = {"provider": "openai", "model": "gpt-4o", "unit": "output", "price_per_1k": "0.1"}
    alert = {"status": "firing", "labels": {"alertname": "A"}, "fingerprint": "f", "startsAt": "2026-01-02T00:00:00Z"}
    key = {"Idempotency-Key": "k"}
    link = "/v1/wallets/ada/links"
    pack = {"credits": "20", "price": {"value": "9.00"}, "reason": "r"}
    topup = {"pack": "starter", "month_cap": {"value": "8.00"}, "reason": "r"}
    hooks = "/v1/webhook-endpoints"
    return {
        "POST /v1/wallets/{wallet}/deposits": (
            "movement.deposit",
            lambda: ask("POST", "/v1/wallets/ada/deposits", {"amount_credits": "9"}, **key),
        ),
        "POST /v1/wallets/{wallet}/movements": (
            "movement.grant",
            lambda: ask(
                "POST",
                "/v1/wallets/ada/movements",
                {"type": "grant", "amount_credits": "1"},
                **{"Idempotency-Key": "g"},
            ),
        ),
        "POST /v1/wallets/{wallet}/links": ("link.create", lambda: keep("link", ask("POST", link))),
        "DELETE /v1/links/{link_id}": ("link.revoke", lambda: ask("DELETE", f"/v1/links/{made['link']['link_id']}")),
        "DELETE /v1/links": ("links.revoke", lambda: ask("DELETE", "/v1/links")),
        "PUT /v1/packs/{pack}": ("pack.set", lambda: ask("PUT", "/v1/packs/large", pack)),
        "DELETE /v1/packs/{pack}": (
            "pack.withdraw",
            lambda: ask("DELETE", "/v1/packs/large"),
        ),
        "POST /v1/wallets/{wallet}/checkout": ("topup.order", checkout),
        "POST /v1/webhooks/stripe": ("movement.topup", pay),
        "PUT /v1/wallets/{wallet}/auto-topup": (
            "auto_topup.set",
            lambda: ask("PUT", "/v1/wallets/ada/auto-topup", topup),
        ),
        "POST /v1/prices": ("price.set", lambda: ask("POST", "/v1/prices", price)),
        "POST /v1/rules": ("rule.set", lambda: ask("POST", "/v1/rules", rule)),
        "PUT /v1/budgets/{dept}": (
            "budget.set",
            lambda: ask("PUT", "/v1/budgets/sales", {"usd_per_month": "5", "reason": "r"}),
        ),
        "POST /v1/policies": (
            "policy.set",
            lambda: ask("POST", "/v1/policies", {"scope": "wallet", "name": "ada", "day_credits": "5", "reason": "r"}),
        ),
        "POST /v1/alerts/alertmanager": (
            "incident.open",
            lambda: ask("POST", "/v1/alerts/alertmanager", {"alerts": [alert]}),
        ),
        "POST /v1/replays": ("replay.post", replay),
        "POST /v1/webhook-endpoints": ("webhook.add", endpoint),
        "POST /v1/webhook-endpoints/{endpoint_id}/rotate": (
            "webhook.rotate",
            lambda: ask("POST", f"{hooks}/{made['endpoint']['endpoint_id']}/rotate", {}),
        ),
        "POST /v1/webhook-endpoints/{endpoint_id}/ping": (
            "webhook.ping",
            lambda: ask("POST", f"{hooks}/{made['endpoint']['endpoint_id']}/ping"),
        ),
        "POST /v1/webhook-messages/{message_id}/retry": ("webhook.retry", retry),
        "DELETE /v1/webhook-endpoints/{endpoint_id}": (
            "webhook.remove",
            lambda: ask("DELETE", f"{hooks}/{made['endpoint']['endpoint_id']}"),
        ),
        "POST /v1/balance-thresholds": (
            "thresholds.set",
            lambda: ask("POST", "/v1/balance-thresholds", {"wallet": "ada", "below_credits": ["1"], "reason": "r"}),
        ),
        "POST /v1/people": ("person.create", lambda: [add_person(login) for login in ("ada", "bob")]),
        "PATCH /v1/people/{login}": ("person.name", lambda: ask("PATCH", "/v1/people/ada", {"name": "Ada"})),
        "POST /v1/people/{login}/password": (
            "person.password",
            lambda: ask("POST", "/v1/people/bob/password", {"password": PASSWORD}),
        ),
        "DELETE /v1/sessions/{session_id}": ("session.end", end_session),
        "PUT /v1/approval-policy": (
            "approval.policy",
            lambda: ask("PUT", "/v1/approval-policy", {"reason": "nothing waits"}),
        ),
        "POST /v1/approvals/{approval_id}/approve": ("approval.execute", lambda: decide("approve")),
        "POST /v1/approvals/{approval_id}/refuse": ("approval.refuse", lambda: decide("refuse")),
        "POST /v1/tenants": ("tenant.create", lambda: ask("POST", "/v1/tenants", {"tenant": "acme"})),
    }


def test_every_operation_that_changes_something_is_in_the_audit_log(shop: Shop) -> None:
    changing = {
        f"{method.upper()} {path}"
        for path, by_method in documentation()["paths"].items()
        for method in by_method
        if method in ("post", "put", "patch", "delete")
    }
    tried = operations(shop)
    keys = {"POST /v1/keys", "POST /v1/keys/{key_id}/rotate", "DELETE /v1/keys/{key_id}"}
    assert changing - CHANGES_NOTHING.keys() == tried.keys() | keys, "say here how a new operation is called"
    for operation, (action, call) in tried.items():
        before = len(shop.log())
        call()
        fresh = shop.log()[: len(shop.log()) - before]
        assert action in {entry["action"] for entry in fresh}, (operation, [entry["action"] for entry in fresh])
        assert all(entry["actor"] for entry in fresh), operation
    log = shop.log()
    assert {entry["actor"].partition(":")[0] for entry in log} == {"local", "person", "system"}
    assert {entry["address"] for entry in log if entry["actor"] != "system"} == {"127.0.0.1"}
    # Keys last: from the first one on, requests need one.
    admin = shop.ask("POST", "/v1/keys", {"name": "a", "scopes": ["admin"]})["key"]
    bearer = {"Authorization": f"Bearer {admin}"}
    rotated = shop.ask("POST", f"/v1/keys/{admin.split('_')[1]}/rotate", {}, **bearer)
    shop.ask("DELETE", f"/v1/keys/{rotated['key_id']}", **bearer)
    found = shop.ask("GET", "/v1/audit-log?action=key", **bearer)["items"]
    assert [entry["action"] for entry in found] == ["key.revoke", "key.create", "key.rotate", "key.create"]
    assert [entry["actor"] for entry in found] == [f"key:{admin.split('_')[1]}"] * 3 + ["local"]
    assert not re.search(r"fbx_[0-9a-f]{16}_|whsec_|\$argon2", json.dumps(log + found)), "a secret is in the log"


def leaves(command: Any, prefix: str = "") -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from leaves(child, f"{prefix} {name}".strip())
    else:
        yield prefix


def commands(books: Path) -> dict[str, tuple[str, str]]:
    """How each command that changes something is called, and the action that the log has of it; in this order."""
    prices = books / "prices.csv"
    prices.write_text("provider,model,unit,price_per_1k\nopenai,gpt-x,input,0.5\n", encoding="utf-8")
    return {
        "prices import": ("price.import", f"--from csv --apply {prices}"),
        "prices set": ("price.set", "openai gpt-y input 0.25"),
        "prices rate set": ("exchange_rate.set", "EUR 1.1"),
        "wallets deposit": ("movement.deposit", "ada 5 --key d"),
        "wallets move": ("movement.grant", "ada grant --credits 5 --key g"),
        "packs set": ("pack.set", "starter 10 8.00"),
        "packs withdraw": ("pack.withdraw", "starter"),
        "rules set": ("rule.set", "e --flat 1 --reason r"),
        "budgets set": ("budget.set", "sales 5 --reason r"),
        "policies set": ("policy.set", "wallet ada --day 5 --reason r"),
        "tenants create": ("tenant.create", "acme"),
        "people create": ("person.create", "ada --role viewer"),
        "people role": ("person.role", "ada admin"),
        "people password": ("person.password", "ada"),
        "people disable": ("person.disable", "ada"),
        "people enable": ("person.enable", "ada"),
        "people unlock": ("person.unlock", "ada"),
        "people identity": ("person.identity", "ada --issuer https://id.example --subject 7"),
        "approvals policy": ("approval.policy", "--rules"),
        "webhooks add": ("webhook.add", "https://hooks.example/x"),
        "webhooks rotate": ("webhook.rotate", "1"),
        "webhooks warn": ("thresholds.set", "ada --below 5 --reason r"),
        "webhooks remove": ("webhook.remove", "1"),
        "deadletters purge": ("dead_letters.purge", ""),
        "maintain": ("records.retire", "--before 2026-01-02"),
        "privacy erase": ("privacy.erase", "ada --yes"),
        "keys create": ("key.create", "gateway --scope admin"),
    }


TRIED_OVER_HTTP = {
    "holds void",
    "people end-sessions",
    "approvals approve",
    "approvals refuse",
    "webhooks retry",
    "replay",
    "deadletters retry",
    "keys rotate",
    "keys revoke",
    *SHOP_COMMANDS,
}
"""Commands that need something which only a collector makes: they call what the API's operations call."""

TRIED_WITH_KEYS = {"secrets rotate"}
"""Commands that need keys of secrets: `test_stored_secrets.py` looks at their entries."""


def test_every_command_that_changes_something_is_in_the_audit_log(tmp_path: Path) -> None:
    every = set(leaves(typer.main.get_command(app)))
    url = blank_sqlite(tmp_path)
    tried = commands(tmp_path)
    listing = {name for name in every if name.endswith(" list")}
    known = tried.keys() | TRIED_OVER_HTTP | TRIED_WITH_KEYS | READING_COMMANDS | listing
    assert every == known, "say here how a new command is called, or that it reads"
    for command, (action, arguments) in tried.items():
        result = CliRunner().invoke(app, [*command.split(), *arguments.split(), "--database-url", url])
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert newest(url, action), (command, action)
    assert {entry["actor"].partition(":")[0] for entry in newest(url, "")} <= {"cli", "system"}


def newest(url: str, action: str) -> list[dict[str, Any]]:
    """Entries of an action that a command wrote."""
    arguments = ["audit-log", "--json", "--limit", "1000", "--database-url", url]
    result = CliRunner().invoke(app, [*arguments, *(["--action", action] if action else [])])
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return [entry for entry in found if not action or entry["actor"].startswith("cli:")]
