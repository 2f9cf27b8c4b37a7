"""Holds: never more than the wallet has, on any number of replicas; settled by charges, voided, expired."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.hold_fast_path import are_plain, take_plain_holds
from farebox_collector.ledger.credits.hold_release import expire_holds, void_hold
from farebox_collector.ledger.credits.holds import (
    AlreadyHeld,
    Held,
    HoldRequest,
    Insufficient,
    KeyReused,
    hold,
    take_holds,
)
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.credits.policies import Authorship, Terms, set_policy
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.journal.journal import wallet_account
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.settings import Settings
from farebox_collector.surfaces.hold_desk import HoldDesk
from harness import Collector
from sqlalchemy import func, select

SECOND_NS = 10**9


def asked(key: str, amount: int, action: str = "", wallet: str = "ada") -> HoldRequest:
    return HoldRequest(wallet, amount, key, "chat", action, 60)


def take(database: Database, *requests: HoldRequest, at_ns: int = START_NS) -> list[Any]:
    return database.transact(lambda connection: take_holds(connection, 1, requests, at_ns))


def pay_in(database: Database, amount: int, wallet: str = "ada") -> None:
    with database.transaction() as connection:
        deposit(connection, 1, wallet, amount, f"{wallet}-{amount}", START_NS)


def charge(database: Database, number: int, action: str, amount: int) -> None:
    made = call(number, trace=number)
    usage = made.usage._replace(action_id=action)
    with database.transaction() as connection:
        calls = [made._replace(usage=usage, charge_nanocredits=amount)]
        record_usage(connection, 1, calls, START_NS, TotalLabels())


def state(database: Database, wallet: str = "ada") -> tuple[int, int]:
    """Balance and what is held; the books must be clean."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        kind, name, _ = wallet_account(wallet)
        query = select(accounts.c.balance_nano, accounts.c.held_nano).where(
            accounts.c.kind == kind, accounts.c.name == name
        )
        balance, held = connection.execute(query).one()
    return balance, held


def test_a_wallet_sets_aside_what_it_has_and_no_more(database: Database) -> None:
    pay_in(database, 100)
    first, second, third = take(database, asked("a", 60), asked("b", 41), asked("c", 40))
    assert (first.available_nanocredits, second, third.available_nanocredits) == (40, Insufficient(40, True), 0)
    assert take(database, asked("d", 1)) == [Insufficient(0, True)]
    assert take(database, asked("e", 1, wallet="missing")) == [Insufficient(0, False)]
    assert state(database) == (100, 100)


def test_the_same_request_again_is_the_same_hold_and_another_is_refused(database: Database) -> None:
    pay_in(database, 100)
    first, again, other, same_action = take(
        database, asked("a", 60, "run"), asked("a", 60, "run"), asked("a", 61, "run"), asked("b", 10, "run")
    )
    assert isinstance(first, Held)
    assert again == first._replace(repeated=True)
    assert other == KeyReused()
    assert same_action == AlreadyHeld(first.hold_id)
    later = take(database, asked("a", 60, "run"), asked("a", 61), asked("b", 10, "run"))
    assert later == [first._replace(repeated=True), KeyReused(), AlreadyHeld(first.hold_id)]
    assert state(database) == (100, 60)


def test_charges_of_the_action_settle_its_hold_and_those_of_others_do_not(database: Database) -> None:
    pay_in(database, 100)
    (held,) = take(database, asked("a", 60, "run"))
    charge(database, 1, "walk", 5)
    assert state(database) == (95, 60)
    charge(database, 2, "run", 25)
    assert state(database) == (70, 35)
    charge(database, 2, "run", 25)  # the same span again
    assert state(database) == (70, 35)
    charge(database, 3, "run", 50)
    assert state(database) == (20, 0)
    with database.reading() as connection:
        settled = hold(connection, 1, held.hold_id)
    assert settled is not None
    assert (settled.state, settled.open_nano) == ("settled", 0)


def test_what_was_not_needed_is_given_back_once(database: Database) -> None:
    pay_in(database, 100)
    (held,) = take(database, asked("a", 60, "run"))
    for _ in range(2):
        voided = database.transact(lambda connection: void_hold(connection, 1, held.hold_id, START_NS))
        assert voided is not None
        assert voided.state == "voided"
        assert state(database) == (100, 0)
    charge(database, 1, "run", 10)
    assert state(database) == (90, 0)
    assert database.transact(lambda connection: void_hold(connection, 1, 10**9, START_NS)) is None


@pytest.mark.parametrize("by_upkeep", [True, False])
def test_a_hold_whose_time_is_up_is_in_nobodys_way(database: Database, by_upkeep: bool) -> None:
    pay_in(database, 100)
    take(database, asked("a", 60), asked("b", 30))
    later_ns = START_NS + 61 * SECOND_NS
    if by_upkeep:
        assert database.transact(lambda connection: expire_holds(connection, START_NS)) == 0
        assert database.transact(lambda connection: expire_holds(connection, later_ns)) == 2
        assert state(database) == (100, 0)
    (held,) = take(database, asked("c", 100), at_ns=later_ns)
    assert isinstance(held, Held)
    assert state(database) == (100, 100)


def test_usage_that_comes_anyway_is_posted(database: Database) -> None:
    pay_in(database, 10)
    take(database, asked("a", 10, "run"))
    charge(database, 1, "other", 25)
    assert state(database) == (-15, 10)
    assert take(database, asked("b", 1)) == [Insufficient(-25, True)]


@pytest.mark.parametrize("by_desk", [True, False])
def test_expired_credits_are_not_set_aside_however_late_upkeep_comes(database: Database, by_desk: bool) -> None:
    end_ns, key = START_NS + 10 * SECOND_NS, "expires"
    movement = Movement(Kind.PROMOTION, "ada", 100, expires_at_ns=end_ns)
    database.transact(lambda connection: move(connection, 1, movement, key, START_NS))
    pay_in(database, 5)
    if by_desk:
        with closing(HoldDesk(database, lambda: end_ns)) as desk:
            answers = [asyncio.run(desk.take(1, asked(name, amount))) for name, amount in (("a", 6), ("b", 5))]
    else:
        answers = take(database, asked("a", 6), asked("b", 5), at_ns=end_ns)
    assert answers[0] == Insufficient(5, True)
    assert isinstance(answers[1], Held)
    assert state(database) == (5, 5)


CLIENTS, REPLICAS, HOLDS_EACH = 64, 4, 4


def test_many_clients_of_many_replicas_never_hold_more_than_there_is(new_url: Callable[[str], str]) -> None:
    """64 clients, four replicas on PostgreSQL, one wallet: held + spent is never more than was paid in."""
    url = new_url("postgresql")
    paid_in, amount = 50 * 7, 7
    with closing(assembly.open_books(Settings(database_url=url), lambda: START_NS)) as books:
        pay_in(books, paid_in)
        replicas = [open_database(url) for _ in range(REPLICAS)]
        answers: list[tuple[int, int, Any]] = []
        watched: list[tuple[int, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                with books.reading() as connection:
                    query = select(accounts.c.balance_nano, accounts.c.held_nano).where(accounts.c.name == "ada")
                    watched.append(tuple(connection.execute(query).one()))

        def ask(client: int) -> None:
            for number in range(HOLDS_EACH):
                action = f"{client}-{number}"
                (answer,) = take(replicas[client % REPLICAS], asked(action, amount, action))
                answers.append((client, number, answer))
                if isinstance(answer, Held) and number % 2:
                    charge(replicas[(client + 1) % REPLICAS], client * 10 + number + 1, action, amount)

        watcher = threading.Thread(target=watch)
        clients = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
        watcher.start()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        done.set()
        watcher.join()
        for replica in replicas:
            replica.close()
        granted = [answer for _, _, answer in answers if isinstance(answer, Held)]
        assert len(answers) == CLIENTS * HOLDS_EACH
        assert len(granted) == paid_in // amount
        assert watched
        assert all(0 <= held <= balance for balance, held in watched)
        balance, held = state(books)
        assert (
            balance
            == held
            == paid_in - amount * sum(isinstance(answer, Held) and number % 2 for _, number, answer in answers)
        )


def test_desks_of_many_replicas_never_hold_more_than_there_is(new_url: Callable[[str], str]) -> None:
    """The same by the desks that requests come to, which take plain holds in one statement."""
    url = new_url("postgresql")
    paid_in, amount = 50 * 7 + 3, 7
    with closing(assembly.open_books(Settings(database_url=url), lambda: START_NS)) as books:
        pay_in(books, paid_in)
        replicas = [open_database(url) for _ in range(REPLICAS)]
        desks = [HoldDesk(replica, lambda: START_NS) for replica in replicas]
        watched: list[tuple[int, int]] = []

        async def ask(client: int) -> list[Any]:
            answers = []
            for number in range(HOLDS_EACH):
                action = f"{client}-{number}"
                request = asked(action, amount, action)
                # The same request reaches two replicas at once, as when a client gives up on the first too early.
                both = await asyncio.gather(*(desks[(client + n) % REPLICAS].take(1, request) for n in range(2)))
                answers += both
                granted = [answer for answer in both if isinstance(answer, Held)]
                if len(granted) == 2:
                    assert granted[0].hold_id == granted[1].hold_id
                    if number % 2:
                        await asyncio.to_thread(
                            charge, replicas[client % REPLICAS], client * 10 + number + 1, action, 7
                        )
            return answers

        async def watch(done: asyncio.Event) -> None:
            while not done.is_set():
                with books.reading() as connection:
                    query = select(accounts.c.balance_nano, accounts.c.held_nano).where(accounts.c.name == "ada")
                    watched.append(tuple(connection.execute(query).one()))
                await asyncio.sleep(0)

        async def run() -> list[list[Any]]:
            done = asyncio.Event()
            watcher = asyncio.create_task(watch(done))
            answers = await asyncio.gather(*(ask(client) for client in range(CLIENTS)))
            done.set()
            await watcher
            return answers

        answers = [answer for each in asyncio.run(run()) for answer in each]
        for desk, replica in zip(desks, replicas, strict=True):
            desk.close()
            replica.close()
        granted = {answer.hold_id for answer in answers if isinstance(answer, Held)}
        assert len(granted) == paid_in // amount
        assert all(0 <= held <= balance for balance, held in watched)
        balance, held = state(books)
        with books.reading() as connection:
            settled = connection.execute(select(func.count()).where(holds.c.state == "settled")).scalar_one()
        assert (balance, held) == (paid_in - amount * settled, amount * (len(granted) - settled))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_plain_holds_are_answered_as_all_others_are(database: Database) -> None:
    """What one statement takes, or leaves to the others, comes to the same. SQLite takes every hold in one way."""
    assert database.changes_with
    pay_in(database, 100)

    def quick(*requests: HoldRequest) -> list[Held] | None:
        assert are_plain(requests)
        return database.transact_at_once(lambda c: take_plain_holds(c, 1, requests, START_NS))

    answers = quick(asked("a", 30, "run"), asked("b", 40))
    assert answers is not None
    first, second = answers
    assert (first.available_nanocredits, second.available_nanocredits, second.repeated) == (70, 30, False)
    assert state(database) == (100, 70)
    assert take(database, asked("a", 30, "run")) == [first._replace(repeated=True, available_nanocredits=30)]
    for refused in (
        [asked("c", 31)],
        [asked("c", 1), asked("a", 30, "run")],
        [asked("c", 1, "run")],
        [asked("c", 1, wallet="missing")],
    ):
        assert quick(*refused) is None
    assert state(database) == (100, 70)
    for scope, name, unhindered in ((LimitScope.DEPT, "sales", True), (LimitScope.WALLET, "*", False)):
        with database.transaction() as connection:
            terms = Terms(month_limit_nano=100)
            set_policy(connection, 1, Subject(scope, name), terms, Authorship("eve", "why"), START_NS)
        assert (quick(asked(f"c-{scope}", 15)) is not None) is unhindered
    assert isinstance(take(database, asked("e", 15))[0], Held)
    assert state(database) == (100, 100)


def test_what_is_plain() -> None:
    assert are_plain([asked("a", 1)])
    assert are_plain([asked("a", 1, "run"), asked("b", 2, "walk"), asked("c", 3)])
    assert not are_plain([asked("d", 1), asked("d", 1)])
    assert not are_plain([asked("d", 1, "run"), asked("e", 1, "run")])
    assert not are_plain([asked("d", 1), asked("e", 1, wallet="ben")])
    some_facts: tuple[dict[str, Any], ...] = ({"user_id": "bob"}, {"dept": "sales"}, {"project": "launch"})
    for named in some_facts:
        assert not are_plain([asked("d", 1)._replace(**named)])
        assert not are_plain([asked("d", 1), asked("e", 1)._replace(**named)]), "one of several is enough"


def test_holds_over_http(shared_collector: Collector) -> None:
    api = shared_collector.api
    api.post("/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers={"Idempotency-Key": "pay"})
    body = {"wallet": "ada", "amount_credits": "5", "event": "agent.run", "action_id": "run", "expires_in_seconds": 60}
    taken = api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h1"})
    assert taken.status_code == 201
    assert (taken.json()["wallet"], taken.json()["amount_credits"]) == ("ada", "5.000000000")
    assert taken.json()["available_credits"] == "5.000000000"
    again = api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h1"})
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (201, taken.json(), "true")
    on_a_hold = api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h2"})
    other_body = api.post("/v1/holds", json=body | {"amount_credits": "1"}, headers={"Idempotency-Key": "h1"})
    assert (on_a_hold.status_code, other_body.status_code) == (409, 409)
    too_much = api.post(
        "/v1/holds", json=body | {"amount_credits": "6", "action_id": "b"}, headers={"Idempotency-Key": "h3"}
    )
    assert too_much.status_code == 402
    assert too_much.headers["content-type"] == "application/problem+json"
    assert "5.000000000 credits available" in too_much.json()["detail"]
    for amount in ("0", "-1", "NaN", "1e3", "0.0000000001", "99999999999", ""):
        bad = api.post("/v1/holds", json=body | {"amount_credits": amount}, headers={"Idempotency-Key": "h4"})
        assert bad.status_code == 422, amount
    for seconds in (0, -1, 10**9):
        assert (
            api.post(
                "/v1/holds", json=body | {"expires_in_seconds": seconds}, headers={"Idempotency-Key": "h4"}
            ).status_code
            == 422
        )
    hold_id = taken.json()["hold_id"]
    assert api.get(f"/v1/holds/{hold_id}").json()["state"] == "open"
    assert [row["hold_id"] for row in api.get("/v1/holds?wallet=ada&state=open").json()["items"]] == [hold_id]
    voided = api.post(f"/v1/holds/{hold_id}/void", json={})
    assert (voided.json()["state"], voided.json()["open_credits"]) == ("voided", "0.000000000")
    assert api.post(f"/v1/holds/{hold_id}/void").json()["state"] == "voided"
    for path in ("0", "x", "9" * 30):
        assert api.post(f"/v1/holds/{path}/void").status_code == 404
