"""API keys at a real collector's ports: access needs one, it alone determines the tenant, and it expires."""

import base64
import json
import secrets
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx2
import pytest
import trustme
from blank import blank_sqlite
from farebox_collector.cli import app
from farebox_collector.commands.terminal import Stop
from farebox_collector.model.credentials import new_token
from harness import Collector, farebox, unary
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spans import SpanSpec, llm_span, protobuf_body
from typer.testing import CliRunner

ADMIN = new_token()
KEY = f"fbx_{secrets.token_hex(8)}_{secrets.token_hex(32)}"
"""As made with openssl."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector whose first key came with its environment."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("keys")), bootstrap_key=ADMIN)
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def call(collector: Collector, method: str, path: str, token: str = ADMIN, **options: Any) -> httpx2.Response:
    return collector.api.request(method, path, headers=bearer(token) | options.pop("headers", {}), **options)


def make_key(collector: Collector, *scopes: str, token: str = ADMIN, **fields: Any) -> str:
    response = call(collector, "POST", "/v1/keys", token, json={"name": "test", "scopes": scopes, **fields})
    assert response.status_code == 201, response.text
    return str(response.json()["key"])


def key_id(token: str) -> str:
    return token.split("_")[1]


def send_grpc(collector: Collector, spans: list[SpanSpec], *metadata: tuple[str, str]) -> grpc.StatusCode:
    try:
        unary(collector.channel)(protobuf_body(spans), timeout=30, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def send_http(collector: Collector, spans: list[SpanSpec], **headers: str) -> int:
    return collector.export_http(protobuf_body(spans), **headers).status_code


def turned_away(collector: Collector, port: str, reason: str) -> float:
    return collector.metrics(folded=False)[f'farebox_turned_away_requests_total{{port="{port}",reason="{reason}"}}']


def assert_problem(response: httpx2.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


# ---- who gets in


def test_the_same_key_opens_all_three_ports_under_both_headers(guarded: Collector) -> None:
    spans = [llm_span(wallet="all-ports") for _ in range(4)]
    assert send_grpc(guarded, spans[:1], ("authorization", f"Bearer {ADMIN}")) is grpc.StatusCode.OK
    assert send_grpc(guarded, spans[1:2], ("x-api-key", ADMIN)) is grpc.StatusCode.OK
    assert send_http(guarded, spans[2:3], authorization=f"bearer {ADMIN}") == 200
    assert send_http(guarded, spans[3:], x_api_key=ADMIN) == 200
    for headers in (bearer(ADMIN), {"X-API-Key": ADMIN}):
        records = guarded.api.get("/v1/usage", params={"wallet": "all-ports"}, headers=headers).json()["items"]
        assert {record["span_id"] for record in records} == {span.span_id.hex() for span in spans}


def test_without_a_key_nothing_is_taken_and_nothing_is_told(guarded: Collector) -> None:
    before = [turned_away(guarded, port, "missing") for port in ("grpc", "http", "api")]
    assert send_grpc(guarded, [llm_span(wallet="missing")]) is grpc.StatusCode.UNAUTHENTICATED
    response = guarded.export_http(protobuf_body([llm_span(wallet="missing")]))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/v1/wallets", "/v1/wallets/missing", "/v1/usage", "/v1/keys", "/v1/no-such-path"):
        response = guarded.api.get(path)
        assert_problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert_problem(guarded.api.post("/v1/wallets/missing/deposits", json={"amount_credits": "1"}), 401)
    after = [turned_away(guarded, port, "missing") for port in ("grpc", "http", "api")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 6]
    assert call(guarded, "GET", "/v1/wallets/missing").status_code == 404


def test_health_and_documentation_need_no_key(guarded: Collector) -> None:
    for path in ("/readyz", "/openapi.json", "/docs"):
        assert guarded.api.get(path).status_code == 200


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("ingest", {"ingest", "hold"}),
        ("read", {"read"}),
        ("wallets", {"deposit", "hold"}),
        ("admin", {"read", "deposit", "hold", "keys"}),
    ],
)
def test_a_key_may_do_what_its_scope_says_and_nothing_else(guarded: Collector, scope: str, allowed: set[str]) -> None:
    token = make_key(guarded, scope)
    deposit = {"json": {"amount_credits": "1"}, "headers": {"Idempotency-Key": f"scope {scope}"}}
    hold = {"json": {"wallet": "held", "amount_credits": "1"}, "headers": {"Idempotency-Key": f"scope {scope}"}}
    paid_in: dict[str, Any] = {"json": {"amount_credits": "1"}, "headers": {"Idempotency-Key": f"hold {scope}"}}
    assert call(guarded, "POST", "/v1/wallets/held/deposits", **paid_in).status_code == 201
    tried = {
        "hold": call(guarded, "POST", "/v1/holds", token, **hold).status_code,
        "ingest": send_http(guarded, [llm_span()], authorization=f"Bearer {token}"),
        "read": call(guarded, "GET", "/v1/usage", token).status_code,
        "deposit": call(guarded, "POST", "/v1/wallets/scoped/deposits", token, **deposit).status_code,
        "keys": call(guarded, "GET", "/v1/keys", token).status_code,
    }
    assert {what for what, status in tried.items() if status < 300} == allowed
    assert {status for what, status in tried.items() if what not in allowed} == {403}
    code = send_grpc(guarded, [llm_span()], ("authorization", f"Bearer {token}"))
    assert code is (grpc.StatusCode.OK if scope == "ingest" else grpc.StatusCode.PERMISSION_DENIED)


def tampered(token: str) -> list[str]:
    last = "A" if token[-1] != "A" else "B"
    return [
        token[:-1] + last,
        token + "A",
        token[:-1],
        token.upper(),
        f"fbx_{key_id(token)}_{'A' * 43}",
        f"fbx_{'0' * 16}_{token[21:]}",
        token[21:],
        "x",
        "' OR 1=1 --",
        "fbx_%_%",
        "é" * 10,
    ]


def test_a_key_that_is_nearly_right_is_wrong(guarded: Collector) -> None:
    for token in tampered(ADMIN):
        headers = {b"authorization": b"Bearer " + token.encode()}
        assert httpx2.get(f"{guarded.api_url}/v1/usage", headers=headers).status_code == 401, token
        response = httpx2.post(f"{guarded.otlp_url}/v1/traces", content=b"", headers={**headers, b"x-api-key": b"x"})
        assert response.status_code == 401, token


@given(
    header=st.one_of(st.binary(max_size=300), st.text(st.characters(max_codepoint=255), max_size=80).map(str.encode)),
    name=st.sampled_from([b"authorization", b"x-api-key"]),
    start=st.sampled_from([b"", b"Bearer ", b"Bearer fbx_", b"Bearer fbl_", b"Basic "]),
)
@example(header=b"' OR 1=1; DROP TABLE api_keys; --", name=b"authorization", start=b"Bearer ")
@example(header=b"0" * 16 + b"_' OR '1'='1" + b"A" * 40, name=b"authorization", start=b"Bearer fbx_")
@example(header=base64.b64encode(b"[" * 40_000) + b"." + b"A" * 43, name=b"x-api-key", start=b"fbl_")
@settings(max_examples=100, deadline=None)
def test_no_header_opens_a_port_or_breaks_it(guarded: Collector, header: bytes, name: bytes, start: bytes) -> None:
    """A popular proxy ran what stood in this header as SQL, before it knew who sent it."""
    value = start + bytes(byte for byte in header if byte not in b"\r\n")
    for url, line in ((guarded.api_url, b"GET /v1/usage"), (guarded.otlp_url, b"POST /v1/traces")):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
            connection.sendall(b"Content-Length: 0\r\n" + name + b": " + value + b"\r\n\r\n")
            status = connection.makefile("rb").readline()
        assert status.split()[1] in (b"400", b"401", b"431"), status


# ---- a key's life


def test_a_key_is_shown_once_and_kept_as_a_hash(guarded: Collector) -> None:
    token = make_key(guarded, "read", name="shown once")
    listed = call(guarded, "GET", "/v1/keys", params={"limit": 1000}).text
    assert key_id(token) in listed
    assert token[21:] not in listed
    with closing(sqlite3.connect(f"file:{guarded.database}?mode=ro", uri=True)) as books:
        dump = "\n".join(books.iterdump())
    secret = token[21:]
    for kept in (secret, secret.encode().hex(), secret.encode().hex().upper(), ADMIN[21:]):
        assert kept not in dump
    assert secret not in guarded.log.read_text(encoding="utf-8")


def test_a_revoked_key_works_no_longer_than_a_second(guarded: Collector) -> None:
    token = make_key(guarded, "ingest", "read")
    assert send_http(guarded, [llm_span(wallet="revoked")], authorization=f"Bearer {token}") == 200
    assert call(guarded, "DELETE", f"/v1/keys/{key_id(token)}").status_code == 204
    assert call(guarded, "DELETE", f"/v1/keys/{key_id(token)}").status_code == 204, "again changes nothing"
    # Each try is a request, so that no time needs to be waited for: a second is some hundreds of them.
    assert any(call(guarded, "GET", "/v1/usage", token).status_code == 401 for _ in range(5000))
    assert send_grpc(guarded, [llm_span()], ("authorization", f"Bearer {token}")) is grpc.StatusCode.UNAUTHENTICATED
    assert turned_away(guarded, "grpc", "revoked") == 1
    assert_problem(call(guarded, "POST", f"/v1/keys/{key_id(token)}/rotate", json={}), 404)


def test_a_rotated_key_and_its_successor_overlap(guarded: Collector) -> None:
    token = make_key(guarded, "read")
    rotated = call(guarded, "POST", f"/v1/keys/{key_id(token)}/rotate", json={"overlap_hours": 1}).json()
    assert rotated["key"] != token
    for good in (token, rotated["key"]):
        assert call(guarded, "GET", "/v1/usage", good).status_code == 200
    listed = {key["key_id"]: key for key in call(guarded, "GET", "/v1/keys", params={"limit": 1000}).json()["items"]}
    old, new = listed[key_id(token)], listed[rotated["key_id"]]
    assert (old["expires_at"] is None, new["expires_at"]) == (False, None)
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    at_once = call(guarded, "POST", f"/v1/keys/{rotated['key_id']}/rotate", json={"overlap_hours": 0}).json()
    assert call(guarded, "GET", "/v1/usage", at_once["key"]).status_code == 200
    assert any(call(guarded, "GET", "/v1/usage", rotated["key"]).status_code == 401 for _ in range(5000))


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["ingest"], "wallet": "ada"},
        {"scopes": ["read", "admin"], "wallet": "ada"},
        {"scopes": ["read"], "wallet": "a\nb"},
        {"scopes": ["read"], "name": ""},
        {"scopes": ["read"], "expires_at": "1960-01-01T00:00:00Z"},
        {"scopes": ["read"], "expires_at": "tomorrow"},
        {"scopes": ["read"], "token": "fbx_of_my_own"},
    ],
    ids=str,
)
def test_a_key_that_makes_no_sense_is_refused(guarded: Collector, fields: dict[str, Any]) -> None:
    response = call(guarded, "POST", "/v1/keys", json={"name": "nonsense", **fields})
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)
    assert "nonsense" not in call(guarded, "GET", "/v1/keys", params={"limit": 1000}).text


def test_a_key_of_another_tenant_cannot_be_seen_rotated_or_revoked(guarded: Collector) -> None:
    created = call(guarded, "POST", "/v1/tenants", json={"tenant": "neighbour"})
    assert created.status_code == 201, created.text
    assert_problem(call(guarded, "POST", "/v1/tenants", json={"tenant": "neighbour"}), 409)
    other = make_key(guarded, "admin", tenant="neighbour")
    mine = make_key(guarded, "read")
    assert key_id(mine) not in call(guarded, "GET", "/v1/keys", other, params={"limit": 1000}).text
    assert_problem(call(guarded, "DELETE", f"/v1/keys/{key_id(mine)}", other), 404)
    assert_problem(call(guarded, "POST", f"/v1/keys/{key_id(mine)}/rotate", other, json={}), 404)
    assert_problem(call(guarded, "GET", "/v1/tenants", other), 403)
    assert_problem(call(guarded, "POST", "/v1/tenants", other, json={"tenant": "third"}), 403)
    body = {"name": "climb", "scopes": ["admin"], "tenant": "default"}
    assert_problem(call(guarded, "POST", "/v1/keys", other, json=body), 403)
    assert call(guarded, "GET", "/v1/usage", mine).status_code == 200


# ---- whose books


def test_the_key_says_whose_books_they_are_and_nothing_in_a_span_can(guarded: Collector) -> None:
    call(guarded, "POST", "/v1/tenants", json={"tenant": "acme", "usd_per_credit": "0.01"}).raise_for_status()
    acme = make_key(guarded, "ingest", "admin", tenant="acme")
    claims: dict[str, Any] = {
        "farebox__tenant": "default",
        "farebox__tenant_id": 1,
        "tenant": "default",
        "tenant__id": "1",
    }
    span = llm_span(wallet="shared-name", **claims)
    twin = llm_span(wallet="shared-name", trace_id=span.trace_id, span_id=span.span_id)
    assert send_grpc(guarded, [span], ("authorization", f"Bearer {acme}")) is grpc.StatusCode.OK
    assert send_http(guarded, [twin], authorization=f"Bearer {ADMIN}") == 200
    # The same ids in two tenants are two calls: 1,000 × 150 + 200 × 600 nano-USD; acme's credit sells for a cent.
    charged = {
        token: [
            (record["verdict"], record["charge_credits"], record["cost_usd"])
            for record in call(guarded, "GET", "/v1/usage", token, params={"wallet": "shared-name"}).json()["items"]
        ]
        for token in (acme, ADMIN)
    }
    assert charged == {
        acme: [("charged", "0.027000000", "0.000270000")],
        ADMIN: [("charged", "0.000270000", "0.000270000")],
    }
    receipt = f"/v1/usage/{span.trace_id.hex()}/{span.span_id.hex()}/receipt"
    assert call(guarded, "GET", receipt, acme).json()["charge"]["charge_credits"] == "0.027000000"
    deposit = {"json": {"amount_credits": "5"}, "headers": {"Idempotency-Key": "tenants"}}
    call(guarded, "POST", "/v1/wallets/acme-only/deposits", acme, **deposit).raise_for_status()
    assert call(guarded, "GET", "/v1/wallets/acme-only").status_code == 404
    names = {item["wallet"] for item in call(guarded, "GET", "/v1/wallets", acme).json()["items"]}
    assert names == {"acme-only", "shared-name"}
    assert {row["wallet"] for row in call(guarded, "GET", "/v1/ledger", acme).json()["items"]} == names


# ---- one wallet


def test_a_wallet_key_reads_one_wallet_only(guarded: Collector) -> None:
    for name in ("one/wallet", "other"):
        headers = {"Idempotency-Key": f"for {name}"}
        path = f"/v1/wallets/{quote(name, safe='')}/deposits"
        call(guarded, "POST", path, json={"amount_credits": "3"}, headers=headers).raise_for_status()
    token = make_key(guarded, "read", wallet="one/wallet")
    link = call(guarded, "POST", f"/v1/wallets/{quote('one/wallet', safe='')}/links", params={"days": 1}).json()
    for reader in (token, link["token"]):
        assert call(guarded, "GET", "/v1/wallets/one%2Fwallet", reader).json()["balance_credits"] == "3.000000000"
        rows = call(guarded, "GET", "/v1/ledger", reader, params={"wallet": "one/wallet"}).json()["items"]
        assert [row["wallet"] for row in rows] == ["one/wallet"]
        closed = [
            ("GET", "/v1/wallets"),
            ("GET", "/v1/wallets?wallet=one/wallet&wallet=other"),
            ("GET", "/v1/wallets/other"),
            ("GET", "/v1/wallets/other?wallet=one/wallet"),
            ("GET", "/v1/ledger"),
            ("GET", "/v1/ledger?wallet=other"),
            ("GET", "/v1/ledger?wallet=one/wallet&wallet=other"),
            ("GET", "/v1/ledger?wallet=other&wallet=one/wallet"),
            ("GET", "/v1/usage?wallet=one/wallet"),
            ("GET", "/v1/prices"),
            ("GET", "/v1/keys"),
            ("POST", "/v1/wallets/one%2Fwallet/deposits"),
            ("POST", "/v1/wallets/one%2Fwallet/links"),
        ]
        for method, path in closed:
            response = call(guarded, method, path, reader)
            assert response.status_code == 403 or "other" not in response.text, (method, path, response.text)
        code = send_grpc(guarded, [llm_span(wallet="one/wallet")], ("authorization", f"Bearer {reader}"))
        assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_link_is_followed_without_a_header_until_it_is_revoked(guarded: Collector) -> None:
    headers = {"Idempotency-Key": "linked"}
    call(guarded, "POST", "/v1/wallets/linked/deposits", json={"amount_credits": "3"}, headers=headers)
    link = call(guarded, "POST", "/v1/wallets/linked/links").json()
    assert guarded.api.get("/v1/wallets/linked", params={"token": link["token"]}).status_code == 200
    payload, _, signature = link["token"].removeprefix("fbl_").partition(".")
    forged = call(guarded, "POST", "/v1/wallets/other/links").json()["token"].removeprefix("fbl_").partition(".")[0]
    wrong = [f"{forged}.{signature}", f"{payload}.{'A' * 43}", f"{payload}.", ".", payload]
    for token in (f"fbl_{text}" for text in wrong):
        for path in ("/v1/wallets/linked", "/v1/wallets/other"):
            assert_problem(guarded.api.get(path, params={"token": token}), 401)
    assert_problem(guarded.api.post("/v1/wallets/linked/deposits", params={"token": link["token"]}), 401)
    assert call(guarded, "DELETE", "/v1/links").status_code == 204
    seen = (guarded.api.get("/v1/wallets/linked", params={"token": link["token"]}).status_code for _ in range(5000))
    assert any(status == 401 for status in seen)
    fresh = call(guarded, "POST", "/v1/wallets/linked/links").json()["token"]
    assert guarded.api.get("/v1/wallets/linked", params={"token": fresh}).status_code == 200


# ---- from no keys to keys


def test_on_loopback_everybody_is_the_default_tenant_until_the_first_key(collector: Collector) -> None:
    assert send_grpc(collector, [llm_span(wallet="open")]) is grpc.StatusCode.OK
    assert collector.wallet("open")["wallet"] == "open"
    first = {"name": "first", "scopes": ["ingest"]}
    assert_problem(collector.api.post("/v1/keys", json=first), 409)
    admin = collector.api.post("/v1/keys", json={"name": "first", "scopes": ["admin"]}).raise_for_status().json()["key"]
    assert any(collector.api.get("/v1/wallets").status_code == 401 for _ in range(5000))
    assert send_grpc(collector, [llm_span(wallet="open")]) is grpc.StatusCode.UNAUTHENTICATED
    assert call(collector, "GET", "/v1/wallets/open", admin).status_code == 200
    # The last key goes, and the door stays shut.
    assert call(collector, "DELETE", f"/v1/keys/{key_id(admin)}", admin).status_code == 204
    assert any(call(collector, "GET", "/v1/wallets", admin).status_code == 401 for _ in range(5000))
    assert_problem(collector.api.get("/v1/wallets"), 401)


def test_an_address_that_others_reach_works_with_keys_and_answers_to_known_names(tmp_path: Path) -> None:
    class Reachable(Collector):
        def command(self) -> list[str]:
            return [part.replace("127.0.0.1", "0.0.0.0") for part in super().command()]

    reachable = Reachable(tmp_path / "farebox.db", bootstrap_key=KEY, allowed_hosts="farebox.example, other.example")
    try:
        assert "plain text" in reachable.log.read_text(encoding="utf-8")
        for host in ("farebox.example", "OTHER.example:8080", "10.1.2.3:8080", "127.0.0.1"):
            headers = bearer(KEY) | {"host": host}
            assert httpx2.get(f"{reachable.api_url}/v1/usage", headers=headers).status_code == 200, host
        for host in ("evil.example", "farebox.example.evil.example"):
            headers = bearer(KEY) | {"host": host}
            assert httpx2.get(f"{reachable.api_url}/v1/usage", headers=headers).status_code == 400, host
        assert_problem(httpx2.get(reachable.metrics_url), 401)
        assert "farebox_spans_total" in httpx2.get(reachable.metrics_url, headers=bearer(KEY)).text
        other = make_key(reachable, "ingest", token=KEY)
        assert_problem(httpx2.get(reachable.metrics_url, headers=bearer(other)), 403)
        assert reachable.stop() == 0
        # A second start with another key in the environment makes none: it would undo a revocation.
        result = farebox("keys", "list", "--json", "--database-url", reachable.database_url)
        assert [key["name"] for key in json.loads(result.stdout)] == ["bootstrap", "test"]
        again = farebox("serve", "--api-address", "0.0.0.0:-1", "--database-url", reachable.database_url)
        assert again.returncode == 2
    finally:
        reachable.close()


def test_all_ports_speak_tls_and_ask_for_a_client_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("client@example.com")
    files: dict[str, Any] = {name: tmp_path / name for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    server.cert_chain_pems[0].write_to_path(files["tls_certificate"])
    server.private_key_pem.write_to_path(files["tls_key"])
    authority.cert_pem.write_to_path(files["tls_client_ca"])
    root, client_key, chain = (
        pem.bytes() for pem in (authority.cert_pem, client.private_key_pem, client.cert_chain_pems[0])
    )
    collector = Collector(tmp_path / "farebox.db", bootstrap_key=ADMIN, **files)
    try:
        trusted = ssl.create_default_context(cadata=root.decode())
        with pytest.raises(httpx2.TransportError), httpx2.Client(verify=trusted) as stranger:
            stranger.get(f"{collector.api_url}/readyz".replace("http:", "https:"))
        client.configure_cert(trusted)
        answers = {f"{collector.api_url}/v1/usage": 200, f"{collector.otlp_url}/v1/traces": 405}
        answers[collector.metrics_url] = 200
        with httpx2.Client(verify=trusted, headers=bearer(ADMIN)) as known:
            for url, status in answers.items():
                assert known.get(url.replace("http://127.0.0.1", "https://localhost")).status_code == status
        credentials = grpc.ssl_channel_credentials(root, client_key, chain)
        target = collector.grpc_target.replace("127.0.0.1", "localhost")
        with grpc.secure_channel(target, credentials) as channel:
            metadata = (("authorization", f"Bearer {ADMIN}"),)
            unary(channel)(protobuf_body([llm_span()]), timeout=30, metadata=metadata)
        without = grpc.ssl_channel_credentials(root)
        with grpc.secure_channel(target, without) as channel, pytest.raises(grpc.RpcError) as refused:
            unary(channel)(b"", timeout=5, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert collector.stop() == 0
    finally:
        collector.close()


# ---- by command


def test_the_commands_make_list_rotate_and_revoke_keys(tmp_path: Path) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        environment = {"FAREBOX_DATABASE_URL": f"sqlite:///{tmp_path}/farebox.db", "COLUMNS": "120"}
        result = CliRunner().invoke(app, arguments, env=environment)
        assert isinstance(result.exception, Stop) == bool(status), result.output
        return str(result.exception) if status else result.stdout

    run("tenants", "create", "acme", "--usd-per-credit", "0.01")
    token = run("keys", "create", "gateway", "--scope", "ingest", "--scope", "read", "--tenant", "acme").strip()
    (made,) = json.loads(run("keys", "list", "--tenant", "acme", "--json"))
    assert (made["name"], sorted(made["scopes"]), made["revoked_at"]) == ("gateway", ["ingest", "read"], None)
    successor = run("keys", "rotate", key_id(token), "--tenant", "acme").strip()
    old, new = json.loads(run("keys", "list", "--tenant", "acme", "--json"))
    assert key_id(successor) != key_id(token)
    assert (new["name"], sorted(new["scopes"])) == (made["name"], sorted(made["scopes"])), "what the old one may do"
    assert (made["expires_at"], new["expires_at"]) == (None, None)
    assert old["expires_at"] is not None, "the old one ends by itself"
    run("keys", "revoke", key_id(token), "--tenant", "acme")
    listed = json.loads(run("keys", "list", "--tenant", "acme", "--json"))
    assert [key["key_id"] for key in listed] == [key_id(token), key_id(successor)]
    assert [key["revoked_at"] is None for key in listed] == [False, True]
    assert json.loads(run("keys", "list", "--json")) == []
    assert "acme" in run("tenants", "list")
    assert "no tenant" in run("keys", "list", "--tenant", "missing", status=2)
    assert "already" in run("tenants", "create", "acme", status=2)
    assert "scope read only" in " ".join(
        run("keys", "create", "x", "--scope", "admin", "--wallet", "ada", status=2).split()
    )
    assert "no key" in run("keys", "revoke", key_id(token), status=2)
