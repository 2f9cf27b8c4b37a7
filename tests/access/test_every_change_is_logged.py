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


Changes = dict[str, tuple[str, Callable[[], Any]]]
"""Operations by method and path: the action that the audit log has of each, and how it is called."""


class Operations:
    """Calls each operation so that it changes something. Later calls use what earlier ones made."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._ask = shop.ask
        self._endpoint: dict[str, Any] = {}
        self._link: dict[str, Any] = {}
        self._checkout_url = ""

    def all(self) -> Changes:
        """Every operation but those of keys, in the order in which they can be called."""
        parts = (
            self._wallets(),
            self._payments(),
            self._tariffs(),
            self._webhooks(),
            self._people(),
            self._approvals(),
        )
        return {operation: call for part in parts for operation, call in part.items()}

    def _wallets(self) -> Changes:
        ask = self._ask
        grant = {"type": "grant", "amount_credits": "1"}
        return {
            "POST /v1/wallets/{wallet}/deposits": (
                "movement.deposit",
                lambda: ask("POST", "/v1/wallets/ada/deposits", {"amount_credits": "9"}, **{"Idempotency-Key": "k"}),
            ),
            "POST /v1/wallets/{wallet}/movements": (
                "movement.grant",
                lambda: ask("POST", "/v1/wallets/ada/movements", grant, **{"Idempotency-Key": "g"}),
            ),
            "POST /v1/wallets/{wallet}/links": ("link.create", self._create_link),
            "DELETE /v1/links/{link_id}": (
                "link.revoke",
                lambda: ask("DELETE", f"/v1/links/{self._link['link_id']}"),
            ),
            "DELETE /v1/links": ("links.revoke", lambda: ask("DELETE", "/v1/links")),
        }

    def _payments(self) -> Changes:
        ask = self._ask
        pack = {"credits": "20", "price": {"value": "9.00"}, "reason": "r"}
        topup = {"pack": "starter", "month_cap": {"value": "8.00"}, "reason": "r"}
        return {
            "PUT /v1/packs/{pack}": ("pack.set", lambda: ask("PUT", "/v1/packs/large", pack)),
            "DELETE /v1/packs/{pack}": ("pack.withdraw", lambda: ask("DELETE", "/v1/packs/large")),
            "POST /v1/wallets/{wallet}/checkout": ("topup.order", self._check_out),
            "POST /v1/webhooks/stripe": ("movement.topup", self._pay),
            "PUT /v1/wallets/{wallet}/auto-topup": (
                "auto_topup.set",
                lambda: ask("PUT", "/v1/wallets/ada/auto-topup", topup),
            ),
        }

    def _tariffs(self) -> Changes:
        ask = self._ask
        rule = {"event": "e", "kind": "flat", "flat_credits": "1", "reason": "r"}
        price = {"provider": "openai", "model": "gpt-4o", "unit": "output", "price_per_1k": "0.1"}
        policy = {"scope": "wallet", "name": "ada", "day_credits": "5", "reason": "r"}
        starts_at = "2026-01-02T00:00:00Z"
        alert = {"status": "firing", "labels": {"alertname": "A"}, "fingerprint": "f", "startsAt": starts_at}
        return {
            "POST /v1/prices": ("price.set", lambda: ask("POST", "/v1/prices", price)),
            "POST /v1/rules": ("rule.set", lambda: ask("POST", "/v1/rules", rule)),
            "PUT /v1/budgets/{dept}": (
                "budget.set",
                lambda: ask("PUT", "/v1/budgets/sales", {"usd_per_month": "5", "reason": "r"}),
            ),
            "PUT /v1/agent-plans": (
                "agent_plan.set",
                lambda: ask(
                    "PUT", "/v1/agent-plans", {"tool": "codex_cli", "account": "ada", "plan": "plus", "reason": "r"}
                ),
            ),
            "POST /v1/policies": ("policy.set", lambda: ask("POST", "/v1/policies", policy)),
            "POST /v1/alerts/alertmanager": (
                "incident.open",
                lambda: ask("POST", "/v1/alerts/alertmanager", {"alerts": [alert]}),
            ),
            "POST /v1/replays": ("replay.post", self._replay),
        }

    def _webhooks(self) -> Changes:
        ask = self._ask
        path = "/v1/webhook-endpoints"
        thresholds = {"wallet": "ada", "below_credits": ["1"], "reason": "r"}
        return {
            "POST /v1/webhook-endpoints": ("webhook.add", self._add_endpoint),
            "POST /v1/webhook-endpoints/{endpoint_id}/rotate": (
                "webhook.rotate",
                lambda: ask("POST", f"{path}/{self._endpoint['endpoint_id']}/rotate", {}),
            ),
            "POST /v1/webhook-endpoints/{endpoint_id}/ping": (
                "webhook.ping",
                lambda: ask("POST", f"{path}/{self._endpoint['endpoint_id']}/ping"),
            ),
            "POST /v1/webhook-messages/{message_id}/retry": ("webhook.retry", self._retry_message),
            "DELETE /v1/webhook-endpoints/{endpoint_id}": (
                "webhook.remove",
                lambda: ask("DELETE", f"{path}/{self._endpoint['endpoint_id']}"),
            ),
            "POST /v1/balance-thresholds": (
                "thresholds.set",
                lambda: ask("POST", "/v1/balance-thresholds", thresholds),
            ),
        }

    def _people(self) -> Changes:
        ask = self._ask
        return {
            "POST /v1/people": ("person.create", self._add_people),
            "PATCH /v1/people/{login}": ("person.name", lambda: ask("PATCH", "/v1/people/ada", {"name": "Ada"})),
            "POST /v1/people/{login}/password": (
                "person.password",
                lambda: ask("POST", "/v1/people/bob/password", {"password": PASSWORD}),
            ),
            "DELETE /v1/sessions/{session_id}": ("session.end", self._end_session),
        }

    def _approvals(self) -> Changes:
        ask = self._ask
        return {
            "PUT /v1/approval-policy": (
                "approval.policy",
                lambda: ask("PUT", "/v1/approval-policy", {"reason": "nothing waits"}),
            ),
            "POST /v1/approvals/{approval_id}/approve": ("approval.execute", lambda: self._decide("approve")),
            "POST /v1/approvals/{approval_id}/refuse": ("approval.refuse", lambda: self._decide("refuse")),
            "POST /v1/tenants": ("tenant.create", lambda: ask("POST", "/v1/tenants", {"tenant": "acme"})),
        }

    def _create_link(self) -> None:
        self._link = self._ask("POST", "/v1/wallets/ada/links")

    def _check_out(self) -> None:
        body = {"pack": "starter", "save_payment_method": True}
        made = self._ask("POST", "/v1/wallets/ada/checkout", body, **{"Idempotency-Key": "1"})
        self._checkout_url = made["checkout_url"]

    def _pay(self) -> None:
        self._shop.double.pay(self._checkout_url)
        until = time.monotonic() + 20
        while not any(entry["action"] == "movement.topup" for entry in self._shop.log()):
            assert time.monotonic() < until
            time.sleep(0.05)

    def _replay(self) -> None:
        self._shop.collector.export_grpc(protobuf_body([llm_span(wallet="ada", model="gpt-4o")]))
        price = {"provider": "openai", "model": "gpt-4o", "unit": "input", "price_per_1k": "0.5"}
        self._ask("POST", "/v1/prices", {**price, "valid_from": "2026-01-02T00:00:00Z"})
        scope = {"from": "2026-01-02T00:00:00Z", "to": "2099-01-01T00:00:00Z"}
        self._ask("POST", "/v1/replays", {**scope, "dry_run": False})

    def _add_endpoint(self) -> None:
        self._endpoint = self._ask("POST", "/v1/webhook-endpoints", {"url": "https://hooks.example/x"})

    def _retry_message(self) -> None:
        message = self._ask("GET", "/v1/webhook-messages")["items"][0]
        self._ask("POST", f"/v1/webhook-messages/{message['message_id']}/retry")

    def _add_people(self) -> None:
        for login in ("ada", "bob"):
            self._ask("POST", "/v1/people", {"login": login, "role": "admin", "password": PASSWORD})

    def _person(self, login: str) -> Person:
        return Person(House(self._shop.collector), login)

    def _end_session(self) -> None:
        self._person("ada")
        session = self._ask("GET", "/v1/sessions")["items"][0]["session_id"]
        self._ask("DELETE", f"/v1/sessions/{session}")

    def _decide(self, decision: str) -> None:
        self._ask("PUT", "/v1/approval-policy", {"movements_from_credits": "50", "reason": "test"})
        movement = {"type": "grant", "amount_credits": "60"}
        proposed = self._ask("POST", "/v1/wallets/ada/movements", movement, **{"Idempotency-Key": decision})
        number = proposed["approval_id"]
        ada, bob = self._person("ada"), self._person("bob")
        body = {"reason": "no"} if decision == "refuse" else None
        assert ada.post(f"/v1/approvals/{number}/{decision}", body).status_code == 200
        if decision == "approve":
            # The proposer is any caller on loopback, so two persons have to approve.
            assert bob.post(f"/v1/approvals/{number}/{decision}").json()["state"] == "executed"


def test_every_operation_that_changes_something_is_in_the_audit_log(shop: Shop) -> None:
    changing = {
        f"{method.upper()} {path}"
        for path, by_method in documentation()["paths"].items()
        for method in by_method
        if method in ("post", "put", "patch", "delete")
    }
    tried = Operations(shop).all()
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
        "agent-plans set": ("agent_plan.set", "codex_cli ada plus --seat 20 --reason r"),
        "agent-plans end": ("agent_plan.set", "codex_cli ada --reason r"),
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
