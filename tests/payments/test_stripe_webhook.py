"""What must not be booked: each a clear problem document, and the books unchanged. And what comes out of order."""

import copy
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.payments.packs import PackTerms, pack_in_force, set_pack
from farebox_collector.ledger.payments.payment_facts import Event, Paid, Returned
from farebox_collector.ledger.payments.provider_events import REPEATED, book_event
from farebox_collector.ledger.payments.topups import Order, order
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.credentials import new_token
from farebox_collector.settings import Settings
from farebox_collector.stripe_double.delivery import sign
from harness import Collector

SECRET = "whsec_of_the_tests"
NOW_NS = 1_767_300_000 * 10**9


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector behind keys, with a live key for an unreachable Stripe: only the webhook is tested."""
    settings: dict[str, Any] = {
        "stripe_api_key": "sk_live_x",
        "stripe_webhook_secret": SECRET,
        "topup_return_url": "https://a.example",
    }
    admin = new_token()
    collector = Collector(
        blank_sqlite(tmp_path_factory.mktemp("offline")),
        **settings,
        stripe_api_base="http://127.0.0.1:9",
        bootstrap_key=admin,
        metrics_without_key=True,
    )
    collector.api.headers["Authorization"] = f"Bearer {admin}"
    collector.api.put("/v1/packs/starter", json={"credits": "10", "price": {"value": "8.00"}}).raise_for_status()
    yield collector
    assert collector.stop() == 0
    collector.audit()
    log = collector.log.read_text(encoding="utf-8")
    assert "sk_live_x" not in log
    assert SECRET not in log
    collector.close()


@pytest.fixture(scope="module")
def key(offline: Collector) -> str:
    """A top-up that waits for its payment; Stripe could not be told of it."""
    answer = offline.api.post(
        "/v1/wallets/ada/checkout", json={"pack": "starter"}, headers={"Idempotency-Key": "order"}, timeout=60
    )
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    (row,) = offline.api.get("/v1/wallets/ada/topups").json()["items"]
    assert row["state"] == "open"
    return str(row["topup_id"])


def paid_event(key: str, **changes: Any) -> dict[str, Any]:
    session = {
        "id": "cs_live_1",
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "currency": "usd",
        "amount_total": 800,
        "metadata": {"farebox_topup": key},
    }
    event = {"id": f"evt_{secrets.token_hex(8)}", "type": "checkout.session.completed", "livemode": True}
    session |= {name: value for name, value in changes.items() if name in session}
    event |= {name: value for name, value in changes.items() if name in event}
    return {**event, "created": int(time.time()), "data": {"object": session}}


def send(collector: Collector, event: Any, late_s: int = 0, secret: str = SECRET, **more: str) -> Any:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    headers = {"Stripe-Signature": sign(body, secret, int(time.time()) - late_s), **more}
    # Stripe has no key of ours.
    return httpx2.post(f"{collector.api_url}/v1/webhooks/stripe", content=body, headers=headers)


BAD: list[tuple[str, Callable[[Collector, str], Any], int, str]] = [
    ("forged", lambda c, key: send(c, paid_event(key), secret="whsec_other"), 400, "signature"),
    ("stale", lambda c, key: send(c, paid_event(key), late_s=310), 400, "seconds ago"),
    ("of the future", lambda c, key: send(c, paid_event(key), late_s=-310), 400, "ahead of this machine"),
    ("in another currency", lambda c, key: send(c, paid_event(key, currency="eur")), 422, "payment is in EUR"),
    ("of a test in live mode", lambda c, key: send(c, paid_event(key, livemode=False)), 422, "test mode"),
    ("of too little", lambda c, key: send(c, paid_event(key, amount_total=799)), 422, "799"),
    ("of too much", lambda c, key: send(c, paid_event(key, amount_total=8000)), 422, "8000"),
    ("of a negative amount", lambda c, key: send(c, paid_event(key, amount_total=-800)), 400, "not an event"),
    ("of a fraction", lambda c, key: send(c, paid_event(key, amount_total=800.5)), 400, "not an event"),
    ("not JSON", lambda c, key: send(c, b"\xff{"), 400, "signature"),
    ("not an event", lambda c, key: send(c, [1]), 400, "not an event"),
    ("without a type", lambda c, key: send(c, {"id": "evt_1", "data": {"object": {}}}), 400, "not an event"),
    ("deep", lambda c, key: send(c, b"[" * 100_000), 400, "not an event"),
    (
        "without a signature",
        lambda c, key: c.api.post("/v1/webhooks/stripe", json=paid_event(key)),
        400,
        "header is missing",
    ),
    ("too large", lambda c, key: send(c, b" " * (2**20 + 1)), 413, "bytes"),
]


def test_bad_webhooks_leave_the_books_as_they_are(offline: Collector, key: str) -> None:
    for what, post, status, words in BAD:
        answer = post(offline, key)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), what
        assert words in answer.json()["detail"], what
    headers = {b"Stripe-Signature": b"t=1,v1=\xe4"}
    assert offline.api.post("/v1/webhooks/stripe", content=b"{}", headers=headers).status_code == 400
    # A body that was changed on its way, and one whose signature is from another's.
    body = json.dumps(paid_event(key)).encode()
    signature = {"Stripe-Signature": sign(body, SECRET, int(time.time()))}
    changed = offline.api.post("/v1/webhooks/stripe", content=body.replace(b"800", b"801"), headers=signature)
    assert changed.status_code == 400
    assert offline.api.get("/v1/wallets/ada").status_code == 404
    assert offline.api.get("/v1/ledger").json()["items"] == []
    metrics = offline.metrics()
    assert metrics['farebox_payment_events_total{outcome="forged"}'] >= 10
    assert metrics['farebox_payment_events_total{outcome="refused"}'] == 4


def test_a_replayed_webhook_is_booked_once_and_another_content_is_a_conflict(offline: Collector, key: str) -> None:
    event = paid_event(key)
    body = json.dumps(event).encode()
    headers = {"Stripe-Signature": sign(body, SECRET, int(time.time()))}
    answers = [offline.api.post("/v1/webhooks/stripe", content=body, headers=headers).json() for _ in range(3)]
    assert [answer["outcome"] for answer in answers] == ["paid", "repeated", "repeated"]
    # Stripe counts down how many endpoints it has still to tell: that is no other content.
    assert send(offline, {**event, "pending_webhooks": 0}).json() == {"outcome": "repeated"}
    other = copy.deepcopy(event)
    other["data"]["object"]["amount_total"] = 900
    assert send(offline, other).status_code == 409
    again = send(offline, paid_event(key, payment_intent="pi_other"))
    assert (again.status_code, "paid by pi_1" in again.json()["detail"]) == (422, True)
    assert send(offline, paid_event(key)).json() == {"outcome": "known"}
    assert send(offline, paid_event("topup_of_somebody_else")).json() == {"outcome": "not a top-up of Farebox"}
    assert offline.wallet("ada")["balance_credits"] == "10.000000000"


def ordered(database: Database, wallet: str = "ada", key: str = "topup_1") -> None:
    with database.transaction() as connection:
        if pack_in_force(connection, 1, "starter") is None:
            set_pack(connection, 1, PackTerms("starter", 1_000, "USD", 800), "test", "", NOW_NS)
        pack = pack_in_force(connection, 1, "starter")
        assert pack is not None
        order(connection, 1, Order(key, key, wallet, pack, False), NOW_NS)


def event_of(fact: Any, number: int) -> Event:
    return Event(f"evt_{number}", "some", False, NOW_NS, b"%d" % number, fact)


def book(database: Database, fact: Any, number: int) -> str:
    return database.transact(
        partial(book_event, tenant_id=1, event=event_of(fact, number), livemode=False, at_ns=NOW_NS)
    )


def left(database: Database, wallet: str = "ada") -> int:
    with database.reading() as connection:
        assert [str(mismatch) for mismatch in audit(connection)] == []
        return balance(connection, 1, wallet_account(wallet))


PAID = Paid("topup_1", "pi_1", "USD", 800, NOW_NS)
REFUND = Returned("re_1", "refund", "pi_1", "USD", 200, 1, True, NOW_NS)


def test_refunds_and_disputes_that_come_before_their_payment_wait_for_it(database: Database) -> None:
    ordered(database)
    assert book(database, REFUND, 1) == "kept until its payment is known"
    assert book(database, REFUND._replace(return_id="re_2", amount_minor=100), 2) == "kept until its payment is known"
    # This order had failed before the payment was known.
    assert book(database, REFUND._replace(return_id="re_2", progress=2, taken=False), 3)
    assert book(database, PAID, 4) == "paid"
    assert left(database) == 750
    assert book(database, REFUND, 5) == "known"
    won = Returned("du_1", "dispute", "pi_1", "USD", 800, 2, False, NOW_NS)
    assert book(database, won, 6) == "dispute: noted"
    # How it began comes last: it has been won already.
    assert book(database, won._replace(progress=1, taken=True), 7) == "known"
    assert left(database) == 750


def test_a_refund_and_a_dispute_together_take_no_more_than_was_bought(database: Database) -> None:
    ordered(database)
    book(database, PAID, 1)
    book(database, REFUND, 2)
    dispute = Returned("du_1", "dispute", "pi_1", "USD", 800, 1, True, NOW_NS)
    book(database, dispute, 3)
    assert left(database) == 0
    book(database, dispute._replace(progress=2, taken=False), 4)
    assert left(database) == 750


def test_an_event_is_booked_once_however_many_try_at_once(database: Database) -> None:
    """Eight threads, and on PostgreSQL two replicas, book the same payment, told by several events, and its refund."""
    ordered(database)
    replicas = [database]
    if type(database).__name__ == "PostgresqlDatabase":
        url = str(database._engine.url.render_as_string(hide_password=False))  # type: ignore[attr-defined]
        replicas.append(assembly.open_books(Settings(database_url=url)))
    facts = [(PAID, 1), (PAID, 2), (REFUND, 3), (REFUND, 4)]
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for step in range(len(facts)):
            fact, event = facts[(step + number) % len(facts)]
            outcomes.append(book(replicas[number % len(replicas)], fact, event))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in replicas[1:]:
        other.close()
    assert outcomes.count(REPEATED) == 32 - 4
    assert outcomes.count("paid") == 1
    assert left(database) == 750
