"""Rules and prices over HTTP: set, listed, tried out beforehand, charged by; and refused where they cannot be."""

import itertools
import time
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from harness import Collector, farebox
from spans import llm_span, protobuf_body

FLAT = {"event": "chat.reply", "kind": "flat", "flat_credits": "2", "reason": "a reply costs two"}
PRICE = {"provider": "openai", "model": "gpt-4o-mini", "unit": "input", "price_per_1k": "0.3"}


def post(collector: Collector, path: str, body: dict[str, Any], key: str = "") -> httpx2.Response:
    return collector.api.post(path, json=body, headers={"Authorization": f"Bearer {key}"} if key else {})


def test_a_rule_is_tried_out_set_and_charged_by(collector: Collector) -> None:
    now_ns = time.time_ns()
    collector.export_grpc(
        protobuf_body([llm_span(wallet=name, event="chat.reply", start_ns=now_ns - 10**9) for name in ("ada", "bob")])
    )
    tried = post(collector, "/v1/rules/simulate", {"event": "chat.reply", "kind": "flat", "flat_credits": "2"}).json()
    (outcome,) = tried["by_event"]
    charged = sum(Decimal(record["charge_credits"]) for record in collector.usage())
    assert (outcome["name"], outcome["calls"], outcome["proposed_credits"]) == ("chat.reply", 2, "4.000000000")
    assert Decimal(outcome["charged_credits"]) == charged
    assert {row["name"] for row in tried["by_wallet"]} == {"ada", "bob"}
    assert [rule["event"] for rule in collector.pages("/v1/rules")] == ["*"], "nothing was set"

    made = post(collector, "/v1/rules", FLAT)
    assert made.status_code == 201, made.text
    assert (made.json()["terms"], made.json()["author"]) == ("2 credits per action", "local")
    assert [rule["event"] for rule in collector.pages("/v1/rules", limit=1)] == ["*", "chat.reply"]
    tokens = {"kind": "per_1k_tokens", "input_credits_per_1k": "0.5", "output_credits_per_1k": "1"}
    later = post(collector, "/v1/rules", FLAT | tokens | {"flat_credits": "", "author": "ada"}).json()
    assert later["cached_credits_per_1k"] == "0.5"
    versions = collector.pages("/v1/rules/history", event="chat.reply", limit=1)
    assert [version["version_id"] for version in versions] == [made.json()["version_id"], later["version_id"]]
    assert versions[0]["valid_to"] == versions[1]["valid_from"]
    (old,) = collector.pages("/v1/rules", at="2020-01-01T00:00:00Z")
    assert old["event"] == "*"

    # A collector looks for new rules once a second.
    deadline = time.monotonic() + 20
    for number in itertools.count():
        assert time.monotonic() < deadline, "the rule was never charged by"
        collector.export_grpc(protobuf_body([llm_span(wallet=f"late-{number}", event="chat.reply")]))
        (record,) = collector.usage(wallet=f"late-{number}")
        if Decimal(record["charge_credits"]) == Decimal("0.7"):  # 1,000 in, 200 out
            break
    assert collector.stop() == 0
    collector.audit()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (FLAT | {"flat_credits": "-1"}, 422),
        (FLAT | {"flat_credits": "NaN"}, 422),
        (FLAT | {"flat_credits": "0.0000000001"}, 422),
        (FLAT | {"flat_credits": ""}, 422),
        (FLAT | {"multiplier": "2"}, 422),
        (FLAT | {"kind": "free"}, 422),
        (FLAT | {"reason": ""}, 422),
        (FLAT | {"event": ""}, 422),
        (FLAT | {"surprise": 1}, 422),
        (FLAT | {"valid_from": "2020-01-01T00:00:00Z"}, 422),
        (FLAT | {"valid_from": "2090-01-01T00:00:00Z", "valid_to": "2089-01-01T00:00:00Z"}, 422),
        ({"event": "e", "kind": "cost_plus", "minimum_credits": "1", "reason": "r"}, 422),
    ],
)
def test_a_rule_that_cannot_be_is_refused(shared_collector: Collector, body: dict[str, Any], status: int) -> None:
    refused(post(shared_collector, "/v1/rules", body), status)
    assert [rule["event"] for rule in shared_collector.pages("/v1/rules/history")] == ["*"]


def refused(response: httpx2.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_overlapping_rules_are_a_conflict(collector: Collector) -> None:
    ahead = FLAT | {"valid_from": "2090-01-01T00:00:00Z", "valid_to": "2090-02-01T00:00:00Z"}
    assert post(collector, "/v1/rules", ahead).status_code == 201
    refused(post(collector, "/v1/rules", FLAT | {"valid_from": "2090-01-15T00:00:00Z"}), 409)
    assert len(collector.pages("/v1/rules/history", event="chat.reply")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"price_per_1k": "0"},
        {"price_per_1k": "-1"},
        {"price_per_1k": "NaN"},
        {"unit": "smiles"},
        {"currency": "EUR"},
        {"hours": "25:00-26:00"},
        {"hours": "10:00-10:00"},
        {"model": ""},
        {"model": "a\nb"},
        {"valid_from": "1960-01-01T00:00:00Z"},
    ],
)
def test_a_price_that_cannot_be_is_refused(shared_collector: Collector, change: dict[str, Any]) -> None:
    response = post(shared_collector, "/v1/prices", PRICE | change)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_keys_decide_whose_rules_and_prices_are_set(tmp_path: Any) -> None:
    key = new_token()
    collector = Collector(blank_sqlite(tmp_path), bootstrap_key=key)
    try:
        assert post(collector, "/v1/tenants", {"tenant": "acme"}, key).status_code == 201
        keys = {
            name: post(collector, "/v1/keys", {"name": name, "scopes": [scope], "tenant": "acme"}, key).json()["key"]
            for name, scope in (("owner", "admin"), ("reader", "read"))
        }
        refused(post(collector, "/v1/rules", FLAT, keys["reader"]), 403)
        refused(post(collector, "/v1/prices", PRICE, keys["reader"]), 403)
        refused(post(collector, "/v1/prices", PRICE, keys["owner"]), 403)
        tried = post(
            collector, "/v1/rules/simulate", {"event": "e", "kind": "flat", "flat_credits": "2"}, keys["reader"]
        )
        assert tried.status_code == 200, "it changes nothing, so reading is enough"
        assert post(collector, "/v1/rules", FLAT, keys["owner"]).status_code == 201
        mine = post(collector, "/v1/prices", PRICE | {"negotiated": True}, keys["owner"])
        assert mine.json() == {"added": 1, "closed": 0, "source": f"manual key:{keys['owner'].split('_')[1]}"}
        for token, scope, price in ((keys["reader"], "negotiated", "0.3"), (key, "list", "0.00015")):
            header = {"Authorization": f"Bearer {token}"}
            answer = collector.api.get("/v1/prices", params={"model": "gpt-4o-mini"}, headers=header).json()["items"]
            (shown,) = [row for row in answer if row["unit"] == "input" and row["condition"] == "standard"]
            assert (shown["scope"], shown["usd_per_1k"]) == (scope, price)
        listed = farebox("rules", "list", "--tenant", "acme", "--database-url", collector.database_url)
        assert "chat.reply" in listed.stdout, listed.stderr
        assert "chat.reply" not in farebox("rules", "list", "--database-url", collector.database_url).stdout
    finally:
        collector.close()
