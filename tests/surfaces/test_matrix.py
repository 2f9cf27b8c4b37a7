"""Every operation of the OpenAPI document, tried with every kind of credential. A new route is tried without a change.

Two tenants have the same wallets. Names of the other tenant and of the other wallet are words that appear nowhere else,
so that any answer that tells of them is found by its text.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import (
    Link,
    Scope,
    new_token,
    sign_link,
)
from farebox_collector.surfaces.api.application import KNOWN_BY_OTHER_MEANS, SCOPES, documentation
from farebox_collector.surfaces.api.callers import ONE_WALLET
from harness import Collector
from spans import llm_span, protobuf_body

ADMIN = new_token()
OWN, OTHER, FOREIGN = "ada-the-customer", "bob-the-customer", "zoe-of-the-neighbour"
INCLUDED = {"admin": {"admin", "read", "wallets", "pricing", "alerts", "routes"}}
"""What docs/explanation/security.md says: `admin` has all of these."""
METHODS = ("get", "post", "put", "patch", "delete")


class Operation(NamedTuple):
    method: str
    path: str
    document: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def scopes(self) -> list[set[str]]:
        return [set(together.split()) for together in self.document[SCOPES]]

    def allows(self, scopes: set[str]) -> bool:
        held = set().union(*(INCLUDED.get(scope, {scope}) for scope in scopes))
        return any(together <= held for together in self.scopes)


DOCUMENT = documentation()
OPERATIONS = [
    Operation(method.upper(), path, operations[method])
    for path, operations in DOCUMENT["paths"].items()
    for method in METHODS
    if method in operations and path.startswith("/v1/") and path not in KNOWN_BY_OTHER_MEANS
]


class Door(NamedTuple):
    """A collector with two tenants, and every kind of credential."""

    collector: Collector
    credentials: dict[str, str | None]

    def request(self, operation: Operation, token: str | None, wallet: str) -> httpx2.Response:
        path, query = operation.path, {}
        for parameter in operation.document.get("parameters", ()):
            value = wallet if "wallet" in parameter["name"] else example(parameter["schema"])
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", value)
            elif parameter["in"] == "query" and (parameter.get("required") or "wallet" in parameter["name"]):
                query[parameter["name"]] = value
        assert "{" not in path, operation
        headers = {"Idempotency-Key": f"matrix {operation}"}
        headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
        body = body_of(operation, wallet)
        return self.collector.api.request(operation.method, path, params=query, headers=headers, json=body)


def example(schema: dict[str, Any]) -> str:
    """A value that a parameter takes."""
    schema = resolve(schema)
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("type") == "integer":
        return str(max(1, schema.get("minimum", 1)))
    if schema.get("format") in ("date", "date-time"):
        return "2026-01-02" if schema["format"] == "date" else "2026-01-02T00:00:00Z"
    return "0" * 32


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        else:
            schema = schema["anyOf"][0]
    return schema


def body_of(operation: Operation, wallet: str) -> Any:
    content = operation.document.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    properties = resolve(content["schema"]).get("properties", {})
    return {name: wallet for name in properties if "wallet" in name}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("matrix")), bootstrap_key=ADMIN, audit_seconds=3600)

    def ask(method: str, path: str, token: str = ADMIN, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": path}
        response = collector.api.request(method, path, headers=headers, **options).raise_for_status()
        return response.json() if response.content else None

    def key(*scopes: str, token: str = ADMIN, **fields: Any) -> str:
        return str(ask("POST", "/v1/keys", token, json={"name": "matrix", "scopes": scopes, **fields})["key"])

    ask("POST", "/v1/tenants", json={"tenant": "neighbour"})
    neighbour = key("admin", "ingest", tenant="neighbour")
    for token, wallets in ((ADMIN, (OWN, OTHER)), (neighbour, (OWN, FOREIGN))):
        for wallet in wallets:
            ask("POST", f"/v1/wallets/{wallet}/deposits", token, json={"amount_credits": "5"})
            spans = [llm_span(wallet=wallet, event=f"event-of-{wallet}")]
            sent = collector.export_http(protobuf_body(spans), authorization=f"Bearer {token}")
            assert sent.status_code == 200
    scoped = {f"only {scope}": key(scope) for scope in Scope}
    revoked = key("admin", "ingest")
    ask("DELETE", f"/v1/keys/{revoked.split('_')[1]}")
    link = ask("POST", f"/v1/wallets/{OWN}/links")["token"]
    # The link's own secret signs what the collector would never give out: one that is over.
    with closing(sqlite3.connect(f"file:{collector.database}?mode=ro", uri=True)) as books:
        secret_id, secret = books.execute("SELECT id, secret FROM link_secrets WHERE tenant_id = 1").fetchone()
    credentials: dict[str, str | None] = {
        "none": None,
        "malformed": "fbx_nothing",
        "unknown": new_token(),
        "revoked": revoked,
        "expired link": sign_link(Link(1, secret_id, OWN, 1_000_000_000, 1), secret),
        "another tenant": neighbour,
        "one wallet": key("read", wallet=OWN),
        "link": link,
        "everything": key(*(scope.value for scope in Scope)),
        **scoped,
    }
    # A second is how long a revoked key is remembered.
    while collector.api.get("/v1/usage", headers={"Authorization": f"Bearer {revoked}"}).status_code != 401:
        pass
    yield Door(collector, credentials)
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def test_the_document_has_operations_and_a_few_are_of_one_wallet() -> None:
    assert len(OPERATIONS) > 60
    of_one_wallet = {str(operation) for operation in OPERATIONS if ONE_WALLET in operation.document}
    assert {"GET /v1/wallets/{wallet}", "GET /v1/ledger"} <= of_one_wallet
    assert "GET /v1/wallets" not in of_one_wallet
    assert all(operation.method == "GET" for operation in OPERATIONS if ONE_WALLET in operation.document)


@pytest.mark.parametrize("kind", ["none", "malformed", "unknown", "revoked", "expired link"])
def test_no_operation_answers_without_a_good_credential(door: Door, kind: str) -> None:
    for operation in OPERATIONS:
        response = door.request(operation, door.credentials[kind], OWN)
        assert response.status_code == 401, (str(operation), response.text)
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", ["one wallet", "link"])
def test_a_credential_for_one_wallet_opens_only_what_is_marked_for_it(door: Door, kind: str) -> None:
    token = door.credentials[kind]
    for operation in OPERATIONS:
        for wallet in (OTHER, FOREIGN, ""):
            if not wallet and operation.path.count("{wallet}"):
                continue
            response = door.request(operation, token, wallet)
            assert response.status_code in (403, 405), (str(operation), wallet, response.text)
        response = door.request(operation, token, OWN)
        told = response.text
        assert OTHER not in told, (str(operation), told)
        if ONE_WALLET in operation.document:
            assert response.status_code not in (401, 403), (str(operation), told)
        else:
            assert response.status_code == 403, (str(operation), told)


def test_a_second_wallet_in_the_query_opens_nothing(door: Door) -> None:
    """A filter that a handler ignores, or reads differently, is no way around the check."""
    headers = {"Authorization": f"Bearer {door.credentials['link']}"}
    for operation in OPERATIONS:
        if operation.method != "GET":
            continue
        path = operation.path.replace("{wallet}", OWN).replace("{", "").replace("}", "")
        for query in (f"wallet={OWN}&wallet={OTHER}", f"wallet={OTHER}&wallet={OWN}", f"wallet={OWN}&Wallet={OTHER}"):
            response = door.collector.api.get(f"{path}?{query}", headers=headers)
            assert OTHER not in response.text, (path, query)


def test_another_tenant_sees_and_changes_nothing_here(door: Door) -> None:
    before = books_of_tenant_one(door.collector)
    for wallet in (OWN, OTHER):
        for operation in OPERATIONS:
            response = door.request(operation, door.credentials["another tenant"], wallet)
            # Once it has asked for the other name, it may have a wallet of that name itself.
            secrets = [f"event-of-{OTHER}"] + ([OTHER] if wallet == OWN else [])
            assert not [secret for secret in secrets if secret in response.text], (str(operation), response.text)
            assert response.status_code < 500, (str(operation), response.text)
    assert books_of_tenant_one(door.collector) == before


@pytest.mark.parametrize("scope", [scope.value for scope in Scope])
def test_a_scope_opens_exactly_the_operations_that_name_it(door: Door, scope: str) -> None:
    for operation in OPERATIONS:
        ends_credentials = operation.method == "DELETE" and operation.path.startswith(("/v1/links", "/v1/keys"))
        if ends_credentials and operation.allows({scope}):
            # Tried only where it is refused: it would end the credentials of other tests.
            continue
        response = door.request(operation, door.credentials[f"only {scope}"], OWN)
        if operation.allows({scope}):
            assert response.status_code not in (401, 403), (str(operation), response.text)
        else:
            assert response.status_code == 403, (str(operation), response.text)
        assert response.status_code < 500


def test_the_right_credential_is_let_in_everywhere(door: Door) -> None:
    for operation in OPERATIONS:
        if operation.method == "DELETE" and operation.path.startswith(("/v1/links", "/v1/keys")):
            continue
        response = door.request(operation, door.credentials["everything"], OWN)
        assert response.status_code not in (401, 403), (str(operation), response.text)


def books_of_tenant_one(collector: Collector) -> str:
    """All rows of the first tenant, but for the log of refused attempts and the time at which its keys were used."""
    with closing(sqlite3.connect(f"file:{Path(collector.database)}?mode=ro", uri=True)) as books:
        names = [name for (name,) in books.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = {}
        for name in names:
            columns = [row[1] for row in books.execute(f"PRAGMA table_info({name})")]
            if "tenant_id" in columns and not name.startswith("audit_log"):
                chosen = ", ".join(column for column in columns if column != "last_used_at_ns")
                kept[name] = sorted(map(repr, books.execute(f"SELECT {chosen} FROM {name} WHERE tenant_id = 1")))
    assert any(OTHER in row for row in kept["accounts"])
    return json.dumps(kept)
