"""Webhooks: told once for what happened, signed, sent until it arrives, and only where it may go."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from blank import blank_sqlite
from calls import START_NS, call
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.background.webhook_destinations import (
    BadDestination,
    Destination,
    is_public,
    read_url,
)
from farebox_collector.background.webhook_sender import PAUSES_S, WebhookSender
from farebox_collector.cli import app
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.credits.policies import Authorship, Terms, set_policy
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.journal.low_balances import BadThreshold, set_thresholds
from farebox_collector.ledger.journal.outbox import (
    KEPT_NS,
    MessageState,
    add_endpoint,
    messages_of,
    purge_messages,
    remove_endpoint,
    retry,
    rotate_secret,
    take_due,
)
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.settings import Settings
from harness import Collector
from httpx2 import create_ssl_context
from sqlalchemy import Connection
from typer.testing import CliRunner

SECOND_NS, HOUR_NS = 10**9, 3600 * 10**9


class Got(NamedTuple):
    """A request as the receiver saw it."""

    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(self.body)
        return payload

    def is_signed_by(self, secret: bytes) -> bool:
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    """A real HTTP server that answers as it is told, 204 by default."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.got: list[Got] = []
        self.answers: list[int] = []
        self.arrived = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(Got({key.lower(): value for key, value in self.headers.items()}, body))
                status = receiver.answers.pop(0) if receiver.answers else 204
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.arrived.set()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(tls)
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Books:
    """Books with an endpoint, and the rounds of a collector on them."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.now_ns = START_NS
        self.number = 0
        self.endpoint, self.secret = database.transact(lambda connection: add_endpoint(connection, 1, url, self.now_ns))
        self.sender = WebhookSender(database, ("127.0.0.1", "localhost"), lambda: self.now_ns)

    def warn(self, wallet: str, *bounds: int) -> None:
        self.database.transact(lambda c: set_thresholds(c, 1, wallet, bounds, "eve", "why", self.now_ns))

    def pay_in(self, amount: int, wallet: str = "ada") -> None:
        self.number += 1
        with self.database.transaction() as connection:
            deposit(connection, 1, wallet, amount, f"pay-{self.number}", self.now_ns)

    def use(self, amount: int, *wallets: str) -> None:
        calls = []
        for wallet in wallets or ("ada",):
            self.number += 1
            calls.append(call(self.number, trace=self.number, wallet=wallet)._replace(charge_nanocredits=amount))
        with self.database.transaction() as connection:
            record_usage(connection, 1, calls, self.now_ns, TotalLabels())

    def messages(self, state: str = "") -> list[Any]:
        with self.database.reading() as connection:
            return list(reversed(messages_of(connection, 1, state)))

    def told(self) -> list[tuple[str, str, str]]:
        """(wallet, threshold, balance) of all messages, in nanocredits, oldest first."""
        data = [json.loads(row.body)["data"] for row in self.messages()]
        return [(d["wallet"], d["threshold_credits"][-3:], d["balance_credits"][-3:].lstrip("0")) for d in data]


@pytest.fixture
def books(database: Database, receiver: Receiver) -> Books:
    return Books(database, f"http://127.0.0.1:{receiver.port}/hook")


def test_each_fall_below_a_threshold_is_told_once(books: Books) -> None:
    books.pay_in(100)
    books.use(95)
    assert books.told() == []
    books.pay_in(95)
    books.warn("ada", 50, 10)
    books.use(50)  # 50 are left, which is not below 50
    assert books.told() == []
    books.use(1, "ada", "ada")
    books.use(1)
    assert books.told() == [("ada", "050", "48")]
    books.use(40)
    books.pay_in(100)
    books.use(100)
    assert books.told() == [("ada", "050", "48"), ("ada", "010", "7"), ("ada", "050", "7"), ("ada", "010", "7")]
    books.warn("ada")
    books.pay_in(100)
    books.use(100)
    assert len(books.told()) == 4


def test_a_star_is_for_each_wallet_without_thresholds_of_its_own(books: Books) -> None:
    books.warn("*", 20)
    books.warn("ben", 10)
    for wallet in ("ada", "ben", "cleo"):
        books.pay_in(25, wallet)
    books.use(10, "ada", "ben")
    assert books.told() == [("ada", "020", "15")]
    books.use(10, "ben", "cleo", "new")
    assert sorted(books.told()) == [("ada", "020", "15"), ("ben", "010", "5"), ("cleo", "020", "15")]
    for bounds in ([2**63], list(range(11))):
        with pytest.raises(BadThreshold):
            books.warn("ada", *bounds)


def test_what_is_not_committed_is_not_told(books: Books) -> None:
    books.warn("ada", 50)
    books.pay_in(60)

    def fail(connection: Connection) -> None:
        record_usage(connection, 1, [call(9, trace=9)._replace(charge_nanocredits=20)], books.now_ns, TotalLabels())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        books.database.transact(fail)
    assert books.messages() == []


def test_a_message_is_signed_and_sent_until_it_arrives(books: Books, receiver: Receiver) -> None:
    books.warn("ada", 50)
    books.pay_in(60)
    books.use(20)
    receiver.answers = [500, 302]
    books.sender.round()
    books.sender.round()
    assert len(receiver.got) == 1  # not before its time
    for _ in range(3):
        books.now_ns += 100 * SECOND_NS
        books.sender.round()
    assert len(receiver.got) == 3
    (row,) = books.messages()
    assert (row.state, row.attempts, row.last_status) == (MessageState.DELIVERED, 3, 204)
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert all(got.is_signed_by(books.secret) for got in receiver.got)
    assert not receiver.got[0].is_signed_by(b"another")
    assert receiver.got[2].headers["webhook-timestamp"] == str(START_NS // SECOND_NS + 200)
    message = receiver.got[0].message
    assert (message["type"], message["data"]["wallet"]) == ("wallet.balance_low", "ada")
    assert books.secret not in receiver.got[0].body


def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(books: Books, receiver: Receiver) -> None:
    books.warn("ada", 50)
    signed = []
    new = books.database.transact(lambda c: rotate_secret(c, 1, books.endpoint, books.now_ns, HOUR_NS))
    assert new is not None
    for _ in range(2):
        books.pay_in(60)
        books.use(60)
        books.sender.round()
        signed.append([receiver.got[-1].is_signed_by(secret) for secret in (books.secret, new)])
        books.now_ns += HOUR_NS
    assert signed == [[True, True], [False, True]]


def test_hope_ends_and_comes_back_when_somebody_says_so(books: Books, receiver: Receiver) -> None:
    books.warn("ada", 50)
    books.pay_in(60)
    books.use(20)
    receiver.answers = [503] * (len(PAUSES_S) + 1)
    due = []
    for pause_s in (*PAUSES_S, 0):
        books.sender.round()
        (row,) = books.messages()
        due.append((row.next_attempt_ns - books.now_ns) / SECOND_NS / (pause_s or 1))
        books.now_ns = row.next_attempt_ns
    assert all(0.8 <= share <= 1.2 for share in due[:-1])
    assert len(set(due)) > 5  # none in step with another
    assert (row.state, row.attempts) == (MessageState.GIVEN_UP, len(PAUSES_S) + 1)
    assert books.database.transact(lambda c: retry(c, 1, row.message_id, books.now_ns)) == 1
    books.sender.round()
    assert [message.state for message in books.messages()] == [MessageState.DELIVERED]
    assert books.database.transact(lambda c: retry(c, 1, row.message_id, books.now_ns)) == 0
    books.database.transact(lambda c: purge_messages(c, books.now_ns + KEPT_NS - 1))
    assert books.messages()
    books.database.transact(lambda c: purge_messages(c, books.now_ns + KEPT_NS + 1))
    assert not books.messages()


def test_one_that_is_gone_is_given_up_at_once_and_one_that_is_removed_gets_nothing(
    books: Books, receiver: Receiver
) -> None:
    books.warn("ada", 50)
    receiver.answers = [410]
    books.pay_in(60)
    books.use(60)
    books.sender.round()
    assert [row.state for row in books.messages()] == [MessageState.GIVEN_UP]
    books.pay_in(60)
    books.use(60)
    assert books.database.transact(lambda c: remove_endpoint(c, 1, books.endpoint, books.now_ns))
    books.sender.round()
    books.pay_in(60)
    books.use(60)
    assert [row.state for row in books.messages()] == [MessageState.GIVEN_UP] * 2
    assert len(receiver.got) == 1


def test_replicas_take_up_different_messages_and_a_dead_one_s_come_back(books: Books, receiver: Receiver) -> None:
    books.warn("*", 50)
    wallets = [f"wallet-{number}" for number in range(6)]
    for wallet in wallets:
        books.pay_in(60, wallet)
    books.use(60, *wallets)
    first = books.database.transact(partial(take_due, at_ns=books.now_ns, limit=4))
    books.sender.round()
    assert len(receiver.got) == 2
    books.now_ns += 121 * SECOND_NS  # the first has died with what it took up
    books.sender.round()
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 6
    assert {one.message_id for one in first} < {got.headers["webhook-id"] for got in receiver.got}


def test_who_cannot_be_reached_holds_up_nobody_else(books: Books, receiver: Receiver) -> None:
    closed = Receiver()
    closed.close()
    books.database.transact(lambda c: add_endpoint(c, 1, f"http://localhost:{closed.port}/", books.now_ns))
    books.warn("*", 50)
    for wallet in ("ada", "ben"):
        books.pay_in(60, wallet)
    books.use(60, "ada", "ben")
    books.sender.round()
    assert len(receiver.got) == 2
    assert [(row.attempts, row.last_error) for row in books.messages("pending")] == [(1, "ConnectError"), (0, "")]


def test_a_passed_limit_is_told_once_a_period_by_a_hold_or_by_usage(books: Books) -> None:
    ada, sales = Subject(LimitScope.WALLET, "ada"), Subject(LimitScope.DEPT, "*")
    for subject, terms in ((ada, Terms(soft_day_limit_nano=10)), (sales, Terms(month_limit_nano=30))):
        books.database.transact(
            partial(
                set_policy,
                tenant_id=1,
                subject=subject,
                terms=terms,
                at_ns=books.now_ns,
                authorship=Authorship("eve", "why"),
            )
        )
    books.pay_in(1000)

    def hold(key: str, amount: int) -> None:
        request = HoldRequest("ada", amount, key, "chat", "", 60)
        books.database.transact(partial(take_holds, tenant_id=1, wanted=[request], at_ns=books.now_ns))

    def round_of_upkeep() -> list[tuple[str, ...]]:
        settings = Settings(database_url="sqlite:///unused.db")
        Upkeep(settings, books.database, lambda: books.now_ns).round()
        data = [json.loads(row.body)["data"] for row in books.messages()]
        return [(one["scope"], one["name"], one["limit"], one["period"]) for one in data]

    hold("a", 10)
    assert round_of_upkeep() == []
    hold("b", 1)
    hold("c", 1)
    expected = [("wallet", "ada", "soft", "2026-01-01")]
    assert round_of_upkeep() == expected
    books.number += 1
    made = call(books.number, trace=books.number)
    usage = made.usage._replace(dept="sales")
    with books.database.transaction() as connection:
        calls = [made._replace(usage=usage, charge_nanocredits=31)]
        record_usage(connection, 1, calls, books.now_ns, TotalLabels())
    expected.append(("dept", "sales", "hard", "2026-01"))
    assert round_of_upkeep() == expected
    assert round_of_upkeep() == expected
    with books.database.reading() as connection:
        assert list(audit(connection)) == []


def test_over_tls_the_name_is_checked_though_the_address_is_called(database: Database) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    trusting = create_ssl_context(verify=False)
    trusting.check_hostname, trusting.verify_mode = True, ssl.CERT_REQUIRED
    authority.configure_trust(trusting)
    with receiving(tls) as receiver:
        books = Books(database, f"https://localhost:{receiver.port}/hook")
        books.database.transact(lambda c: add_endpoint(c, 1, f"https://127.0.0.1:{receiver.port}/", books.now_ns))
        books.sender.__dict__["_tls"] = trusting
        books.warn("ada", 50)
        books.pay_in(60)
        books.use(60)
        books.sender.round()
        assert [got.headers["host"] for got in receiver.got] == [f"localhost:{receiver.port}"]
        assert [row.last_error for row in books.messages("pending")] == ["ConnectError"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::808:808",
        "fec0::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2620:4f:8000::1",
        "3fff::1",
        "5f00::1",
        "4000::1",
        "ff0e::1",
        "::808:808",
        "::ffff:0:808:808",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_only_addresses_of_the_open_internet_are_called(address: str) -> None:
    assert not is_public(ip_address(address))
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(BadDestination, match="not public"):
        read_url(f"https://{literal}/hook", ())


def test_names_that_stand_for_our_own_network_are_not_called(books: Books, receiver: Receiver) -> None:
    assert Destination(read_url("https://XN--bcher-kva.example/", ()), "8.8.8.8").name == "xn--bcher-kva.example"
    assert is_public(ip_address("8.8.8.8"))
    assert is_public(ip_address("2606:4700::1111"))
    assert is_public(ip_address("::ffff:8.8.8.8"))
    books.sender = WebhookSender(books.database, (), lambda: books.now_ns)
    url = f"https://localhost:{receiver.port}/"
    books.database.transact(lambda c: add_endpoint(c, 1, url, books.now_ns))
    books.warn("ada", 50)
    books.pay_in(60)
    books.use(60)
    books.sender.round()
    said = [row.last_error for row in books.messages("pending")]
    assert [error.partition("is not")[0] + "…" for error in said] == [
        "use an https URL; http is only for hosts in FAREBOX_WEBHOOK_PRIVATE_HOSTS…",
        "the host name resolves to an address that …",
    ]
    assert receiver.got == []
    for bad in ("http://example.com/", "ftp://example.com/", "https://", "https://me:secret@example.com/", "x" * 3000):
        with pytest.raises(BadDestination):
            read_url(bad, ())


def test_webhooks_from_end_to_end(tmp_path: Path, receiver: Receiver) -> None:
    collector = Collector(blank_sqlite(tmp_path), webhook_private_hosts="127.0.0.1")
    api = collector.api
    try:
        url = f"http://127.0.0.1:{receiver.port}/hook?who=us"
        made = api.post("/v1/webhook-endpoints", json={"url": url})
        assert made.status_code == 201
        secret = base64.b64decode(made.json()["secret"].removeprefix("whsec_"))
        wanted = {"wallet": "*", "below_credits": ["5", "0.5"], "reason": "call them"}
        assert api.post("/v1/balance-thresholds", json=wanted).json()["below_credits"] == ["5.000000000", "0.500000000"]
        pay: dict[str, Any] = {"json": {"amount_credits": "10"}, "headers": {"Idempotency-Key": "pay"}}
        api.post("/v1/wallets/ada/deposits", **pay)
        take: dict[str, Any] = {
            "json": {"type": "adjustment", "amount_credits": "-6"},
            "headers": {"Idempotency-Key": "take"},
        }
        assert api.post("/v1/wallets/ada/movements", **take).status_code == 201
        assert receiver.arrived.wait(20)
        assert receiver.got[0].is_signed_by(secret)
        assert receiver.got[0].message["data"]["balance_credits"] == "4.000000000"
        for bad in ("http://10.0.0.1/", "https://10.0.0.1/", "https://user@example.com/", "not a url"):
            answer = api.post("/v1/webhook-endpoints", json={"url": bad})
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), bad
        unfit = {"wallet": "ada", "below_credits": ["NaN"]}
        assert api.post("/v1/balance-thresholds", json=unfit).status_code == 422
        (endpoint,) = api.get("/v1/webhook-endpoints").json()["items"]
        path = f"/v1/webhook-endpoints/{endpoint['endpoint_id']}"
        assert "secret" not in endpoint
        assert api.post(f"{path}/rotate", json={}).json()["secret"] != made.json()["secret"]
        receiver.arrived.clear()
        assert api.post(f"{path}/ping").status_code == 202
        assert receiver.arrived.wait(20)
        assert [got.message["type"] for got in receiver.got] == ["wallet.balance_low", "ping"]
        assert api.post("/v1/webhook-messages/msg_none/retry").status_code == 404
        assert api.delete(path).status_code == 204
        assert [api.delete(each).status_code for each in (path, "/v1/webhook-endpoints/x")] == [404, 404]
        assert collector.stop() == 0
        assert made.json()["secret"] not in collector.log.read_text(encoding="utf-8")
        collector.audit()
    finally:
        collector.close()

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, words, env={"FAREBOX_DATABASE_URL": collector.database_url, "COLUMNS": "160"})
        return done.output if done.exception is None else str(done.exception)

    assert {row["state"] for row in json.loads(run("webhooks", "list", "--json"))} == {"delivered"}
    assert run("webhooks", "warn", "ben", "--below", "3") == "ben: a message below 3.000000000 credits.\n"
    assert "not public" in run("webhooks", "add", "https://10.0.0.1/")
    assert "whsec_" in run("webhooks", "add", "https://example.com/")
    assert "https://example.com/" in run("webhooks", "endpoints")
    assert "whsec_" in run("webhooks", "rotate", "2")
    assert "is removed" in run("webhooks", "remove", "2")
    assert "ben" in run("webhooks", "thresholds")
    assert "there is no undelivered message" in run("webhooks", "retry", "msg_none")
