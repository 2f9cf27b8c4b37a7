"""What one tenant does must not stop or blind another: alerts, slow questions, huge amounts, metrics, checkouts."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from blank import JANUARY_NS, blank_sqlite
from farebox_collector.insight import incidents as pictures
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.credits.credit_totals import add_credits
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.incidents.incidents import Incident, incidents_of, record_incident
from farebox_collector.ledger.reports import metric_readings
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.model.credentials import new_token
from farebox_collector.model.money import (
    MAX_MOVEMENT_NANO,
    MAX_SUM_NANO,
    NANO,
    AmountError,
)
from farebox_collector.surfaces.api import turns as turns_module
from farebox_collector.surfaces.api.problems import ApiError
from farebox_collector.surfaces.api.turns import (
    SLOW,
    SLOW_OF_TENANT,
    Turn,
    Turns,
)
from harness import Collector
from spans import llm_span, protobuf_body
from sqlalchemy import Connection, update

ADMIN = new_token()


# ---- alerts


def alert(number: int, **labels: str) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "FareboxCostSpike", "severity": "critical", **labels},
        "startsAt": "2026-03-01T10:00:00Z",
        "fingerprint": f"{number:032x}",
    }


def incident(number: int, started_at_ns: int = JANUARY_NS, **labels: str) -> Incident:
    text = json.dumps(labels)
    return Incident(f"{number:x}", started_at_ns, JANUARY_NS, None, "alert", "critical", "", text, "{}", "{}")


def test_a_notification_has_fifty_alerts_at_most(shared_collector: Collector) -> None:
    def notify(count: int) -> Any:
        body = {"alerts": [alert(number, model=f"m-{number}") for number in range(count)]}
        return shared_collector.api.post("/v1/alerts/alertmanager", json=body)

    assert notify(51).status_code == 422
    assert notify(1_000).status_code == 422
    assert notify(50).json() == {"recorded": 50, "known": 0}
    assert notify(50).json() == {"recorded": 0, "known": 50}


def test_only_its_own_scope_sends_alerts(tmp_path_factory: pytest.TempPathFactory) -> None:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("alerts")), key=ADMIN)
    try:
        status = {}
        for scope in ("ingest", "read", "wallets", "alerts"):
            key = collector.api.post("/v1/keys", json={"name": scope, "scopes": [scope]}).json()["key"]
            headers = {"Authorization": f"Bearer {key}"}
            sent = collector.api.post("/v1/alerts/alertmanager", headers=headers, json={"alerts": [alert(1)]})
            status[scope] = sent.status_code
        assert status == {"ingest": 403, "read": 403, "wallets": 403, "alerts": 200}
    finally:
        collector.close()


def test_pictures_are_one_for_each_set_of_labels_and_taken_outside_of_any_writing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[dict[str, str], int]] = []
    writing = threading.Event()

    def snapshot(_c: Connection, _t: int, labels: dict[str, str], started_at_ns: int, _now: int) -> str:
        assert not writing.is_set()
        taken.append((dict(labels), started_at_ns))
        return json.dumps({"labels": labels})

    original = type(database).transaction

    @contextmanager
    def transaction(self: Database) -> Iterator[Connection]:
        with original(self) as connection:
            writing.set()
            try:
                yield connection
            finally:
                writing.clear()

    monkeypatch.setattr(pictures, "snapshot", snapshot)
    monkeypatch.setattr(type(database), "transaction", transaction)
    found = [incident(number, JANUARY_NS + number, model="a", pod=f"p{number}") for number in range(20)]
    found += [incident(100 + number, model=f"m{number}") for number in range(30)]
    made = pictures.with_snapshots(database, 1, found, JANUARY_NS)
    assert len(taken) == pictures.MOST_SNAPSHOTS + 1
    assert taken[0] == ({"model": "a"}, JANUARY_NS), "from the first of them on"
    assert taken[-1][0] == {}, "the rest share one of everything"
    assert [json.loads(one.snapshot)["labels"] for one in made[:20]] == [{"model": "a"}] * 20
    assert json.loads(made[20].snapshot)["labels"] == {"model": "m0"}
    assert json.loads(made[-1].snapshot)["labels"] == {}

    with database.transaction() as connection:
        for one in made:
            record_incident(connection, 1, one)
    taken.clear()
    again = pictures.with_snapshots(database, 1, [*found, incident(999, model="new")], JANUARY_NS)
    assert taken == [({"model": "new"}, JANUARY_NS)], "what is known is not looked at again"
    assert [one.snapshot for one in again[:-1]] == ["{}"] * 50
    with database.reading() as connection:
        assert len(incidents_of(connection, 1)) == 50


def test_spans_are_taken_while_a_notification_is_worked_on(collector: Collector) -> None:
    collector.export_grpc(protobuf_body([llm_span(wallet=f"w-{number}") for number in range(2_000)]))
    ended = threading.Event()

    def notify() -> None:
        for turn in range(4):
            labels = [{"model": "gpt-4o-mini", "region": f"r-{turn}-{number}"} for number in range(50)]
            body = {"alerts": [alert(1000 * turn + number, **one) for number, one in enumerate(labels)]}
            collector.api.post("/v1/alerts/alertmanager", json=body).raise_for_status()
        ended.set()

    thread = threading.Thread(target=notify)
    thread.start()
    sent = 0
    while not ended.is_set() or not sent:
        collector.export_grpc(protobuf_body([llm_span()]))
        sent += 1
    thread.join()
    assert sent > 10, "writing went on beside it"


# ---- turns


def test_slow_questions_of_a_tenant_wait_for_each_other_and_leave_room_for_others() -> None:
    async def run() -> None:
        turns = Turns()
        mine = [Turn(turns) for _ in range(SLOW_OF_TENANT + 1)]
        for turn in mine[:-1]:
            await turn.take(1, slow=True)
        waiting = asyncio.create_task(mine[-1].take(1, slow=True))
        other = Turn(turns)
        await other.take(2, slow=True)
        quick = Turn(turns)
        await quick.take(1, slow=False)
        assert not waiting.done()
        mine[0].end()
        await asyncio.wait_for(waiting, 5)
        for turn in (*mine, other, quick):
            turn.end()
        # Everything was given back.
        everyone = [Turn(turns) for _ in range(SLOW)]
        for number, turn in enumerate(everyone):
            await asyncio.wait_for(turn.take(number, slow=True), 5)

    asyncio.run(run())


def test_a_question_that_waits_too_long_is_refused_and_gives_back_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "WAIT_SECONDS", 0.05)

    async def run() -> None:
        turns = Turns()
        taken = [Turn(turns) for _ in range(SLOW)]
        for number, turn in enumerate(taken):
            await turn.take(number, slow=True)
        late = Turn(turns)
        with pytest.raises(ApiError) as refused:
            await late.take(99, slow=True)
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "5"})
        taken[0].end()
        await asyncio.wait_for(Turn(turns).take(99, slow=True), 5)

    asyncio.run(run())


def test_many_reports_at_once_are_all_answered_and_another_tenant_is_not_held_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("turns")), key=ADMIN)
    try:
        collector.api.post("/v1/tenants", json={"tenant": "busy"}).raise_for_status()
        made = {"name": "busy", "scopes": ["admin", "ingest"], "tenant": "busy"}
        busy = {"Authorization": f"Bearer {collector.api.post('/v1/keys', json=made).json()['key']}"}
        collector.export_http(protobuf_body([llm_span() for _ in range(500)]), **busy)
        with ThreadPoolExecutor(40) as pool:

            def report(number: int) -> int:
                path = ("/v1/reports/usage?format=csv", "/v1/reports/wallets", "/v1/usage?limit=1000")[number % 3]
                return int(collector.api.get(path, headers=busy, timeout=60).status_code)

            begun = [pool.submit(report, number) for number in range(60)]
            for _ in range(10):
                assert collector.api.get("/v1/wallets").status_code == 200
            assert {one.result() for one in begun} <= {200, 429}
        assert collector.stop() == 0
    finally:
        collector.close()


# ---- amounts


def deposit(database: Database, tenant_id: int, wallet: str, amount: int, key: str, price: int = 0) -> None:
    movement = Movement(Kind.DEPOSIT, wallet, amount, price)
    database.transact(lambda connection: move(connection, tenant_id, movement, key, JANUARY_NS))


def test_one_movement_is_bounded_and_so_are_all_together(database: Database) -> None:
    deposit(database, 1, "ada", MAX_MOVEMENT_NANO, "largest", MAX_MOVEMENT_NANO)
    for amount, price in ((MAX_MOVEMENT_NANO + 1, 0), (NANO, MAX_MOVEMENT_NANO + 1)):
        with pytest.raises(AmountError, match="too large"):
            deposit(database, 1, "ada", amount, "over", price)
    made, room = 0, MAX_SUM_NANO - MAX_MOVEMENT_NANO
    while made < room // 10**18:
        deposit(database, 1, f"w-{made}", 10**18, f"again {made}", 10**18)
        made += 1
    with pytest.raises(AmountError, match="out of range"):
        deposit(database, 1, "one more", 10**18, "one more")
    # Credits that cost nothing have a bound of their own.
    with pytest.raises(AmountError, match="out of range"):
        deposit(database, 1, "free", 10**18, "free")


def test_what_ever_came_in_is_bounded_too(database: Database) -> None:
    with database.transaction() as connection:
        add_credits(connection, 1, "grant", MAX_SUM_NANO - 5)
        add_credits(connection, 1, "grant", 5)
        add_credits(connection, 1, "deposit", 5)
    with pytest.raises(AmountError), database.transaction() as connection:
        add_credits(connection, 1, "grant", 1)


def test_an_amount_over_the_bound_is_told_so_over_http(shared_collector: Collector) -> None:
    for amount in ("4611686018", "4611686018.427387905", "9223372036.854775807", "99999999999"):
        answer = shared_collector.api.post(
            "/v1/wallets/rich/deposits", json={"amount_credits": amount}, headers={"Idempotency-Key": amount}
        )
        assert answer.status_code == 422, answer.text
    assert shared_collector.api.get("/v1/wallets/rich").status_code == 404


# ---- metrics


def test_the_metrics_add_up_what_no_column_of_the_database_could_hold(database: Database) -> None:
    """Nine tenants, each with all that its books can hold, and wallets that owe as much."""
    with database.transaction() as connection:
        for number in range(9):
            tenant_id = create_tenant(connection, f"tenant {number}", Decimal(1), JANUARY_NS)
            add_credits(connection, tenant_id, "deposit", MAX_SUM_NANO)
            for place, balance in enumerate((MAX_SUM_NANO, -MAX_SUM_NANO, 7, -7)):
                row = {
                    "tenant_id": tenant_id,
                    "kind": "wallet",
                    "name": f"w-{place}",
                    "commodity": "CREDIT",
                    "balance_nano": balance,
                    "spent_nano": 0,
                    "created_at_ns": JANUARY_NS,
                }
                connection.execute(accounts.insert().values(row))
    with database.reading() as connection:
        found = metric_readings.wallets(connection)
        assert (found.positive_nanocredits, found.negative_nanocredits) == (
            9 * (MAX_SUM_NANO + 7),
            -9 * (MAX_SUM_NANO + 7),
        )
        assert found.wallets == 36
        assert metric_readings.credits_in(connection)["deposit"] == 9 * MAX_SUM_NANO
        metric_readings.wallets_running_dry(connection, JANUARY_NS)
        metric_readings.service_rows(connection)
        metric_readings.correction_rows(connection)
    with database.transaction() as connection:
        connection.execute(update(accounts).values(balance_nano=MAX_SUM_NANO))
    with database.reading() as connection:
        assert metric_readings.wallets(connection).positive_nanocredits >= 36 * MAX_SUM_NANO
