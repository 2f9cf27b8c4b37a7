"""Policies: holds never exceed a limit, from any client on any replica; usage beyond it is posted."""

import json
import threading
from calendar import monthrange
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from blank import blank_sqlite
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.cli import app
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.hold_release import expire_holds, void_hold
from farebox_collector.ledger.credits.holds import (
    Held,
    HoldRequest,
    Insufficient,
    take_holds,
)
from farebox_collector.ledger.credits.limit_watch import START, passed_limits
from farebox_collector.ledger.credits.limits import LimitReached
from farebox_collector.ledger.credits.policies import (
    Authorship,
    BadPolicy,
    Terms,
    Validity,
    policies_in_force,
    set_policy,
)
from farebox_collector.ledger.credits.spending import (
    LimitScope,
    Spent,
    Subject,
    spent_of,
)
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.moments import DAY_NS
from farebox_collector.settings import Settings
from harness import Collector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spans import llm_span, protobuf_body
from sqlalchemy import text
from typer.testing import CliRunner

ADA = Subject(LimitScope.WALLET, "ada")
BOB = Subject(LimitScope.USER, "ada", "bob")
SALES = Subject(LimitScope.DEPT, "sales")
LAUNCH = Subject(LimitScope.PROJECT, "launch")
WHY = Authorship("eve", "because")


class Books:
    """Wallets with policies, at a moment that passes when told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ns = START_NS
        self.number = 0

    def allow(self, subject: Subject, terms: Terms, **validity: int) -> int:
        return self.database.transact(
            lambda connection: set_policy(connection, 1, subject, terms, WHY, self.now_ns, Validity(**validity))
        )

    def pay_in(self, amount: int, wallet: str = "ada") -> None:
        self.number += 1
        with self.database.transaction() as connection:
            deposit(connection, 1, wallet, amount, f"pay-{self.number}", self.now_ns)

    def ask(self, amount: int, wallet: str = "ada", action: str = "", strict: bool = False, **who: str) -> Any:
        self.number += 1
        request = HoldRequest(wallet, amount, f"hold-{self.number}", "chat", action, 60, **who)
        return self.database.transact(
            lambda connection: take_holds(connection, 1, [request], self.now_ns, strict=strict)
        )[0]

    def use(self, amount: int, wallet: str = "ada", action: str = "", **who: Any) -> int:
        self.number += 1
        made = call(self.number, trace=self.number, wallet=wallet, start_ns=self.now_ns)
        usage = made.usage._replace(action_id=action, **who)
        with self.database.transaction() as connection:
            record_usage(
                connection, 1, [made._replace(usage=usage, charge_nanocredits=amount)], self.now_ns, TotalLabels()
            )
        return self.number

    def take_back(self, number: int) -> None:
        with self.database.transaction() as connection:
            span = usage_records.c.span_id == number.to_bytes(8, "big")
            (stored,) = stored_calls(connection, usage_query(1).where(span))
            correct(connection, 1, Cause.TWIN, [cover(stored)], self.now_ns, TotalLabels())

    def spent(self, subject: Subject) -> Spent:
        with self.database.reading() as connection:
            assert [str(mismatch) for mismatch in audit(connection)] == []
            return spent_of(connection, 1, [subject], self.now_ns)[subject]


@pytest.fixture
def books(database: Database) -> Books:
    books = Books(database)
    books.pay_in(1000)
    return books


@pytest.mark.parametrize(
    ("subject", "who"),
    [(ADA, {}), (BOB, {"user_id": "bob"}), (SALES, {"dept": "sales"}), (LAUNCH, {"project": "launch"})],
)
def test_a_limit_counts_what_is_spent_and_what_is_held(books: Books, subject: Subject, who: dict[str, Any]) -> None:
    version = books.allow(subject, Terms(day_limit_nano=100))
    held = books.ask(40, action="run", **who)
    assert isinstance(held, Held)
    books.use(30, **who)
    refused = LimitReached(version, subject, "day", 100, 30)
    assert books.ask(31, **who) == refused
    books.use(25, action="run", **who)  # 25 of the 40 on hold
    assert (books.spent(subject), books.ask(31, **who)) == (Spent(55, 55), refused)
    books.database.transact(lambda connection: void_hold(connection, 1, held.hold_id, books.now_ns))
    assert books.ask(46, **who) == refused._replace(left_nano=45)
    wrong = books.use(45, **who)
    assert books.ask(1, **who) == refused._replace(left_nano=0)
    books.take_back(wrong)
    assert isinstance(books.ask(45, **who), Held)
    books.use(500, **who)  # usage that comes anyway is posted, and seen
    assert books.ask(1, **who) == refused._replace(left_nano=-500)


def test_other_wallets_users_and_departments_are_not_in_the_way_of_each_other(books: Books) -> None:
    for subject in (BOB, SALES, LAUNCH):
        books.allow(subject, Terms(day_limit_nano=10))
    assert isinstance(books.ask(20), Held)
    assert isinstance(books.ask(20, user_id="cleo", dept="law", project="other"), Held)
    # Two limits are looked at together, and the nearer one stops.
    assert isinstance(books.ask(10, dept="sales"), Held)
    refused = books.ask(1, user_id="bob", dept="sales", project="launch")
    assert refused.subject == SALES
    assert isinstance(books.ask(10, user_id="bob", project="launch"), Held)


def test_a_star_is_for_each_without_a_policy_of_its_own(books: Books) -> None:
    books.allow(Subject(LimitScope.USER, "ada", "*"), Terms(day_limit_nano=10))
    books.allow(BOB, Terms(day_limit_nano=20))
    books.allow(Subject(LimitScope.WALLET, "*"), Terms(day_limit_nano=15))
    books.allow(ADA, Terms())
    assert isinstance(books.ask(20, user_id="bob"), Held)
    assert books.ask(11, user_id="cleo").subject == BOB._replace(user_id="cleo")
    assert isinstance(books.ask(10, user_id="cleo"), Held)
    assert isinstance(books.ask(10, user_id="dan"), Held)
    books.pay_in(100, "ben")
    assert books.ask(16, "ben").subject == ADA._replace(name="ben")


def test_days_and_months_begin_anew_in_utc(books: Books) -> None:
    version = books.allow(ADA, Terms(day_limit_nano=10, month_limit_nano=25))
    moment = datetime.fromtimestamp(books.now_ns // 10**9, UTC)
    last = monthrange(moment.year, moment.month)[1]
    books.use(10)
    assert books.ask(1) == LimitReached(version, ADA, "day", 10, 0)
    books.now_ns += DAY_NS
    books.use(10)
    books.now_ns += DAY_NS
    assert books.ask(6) == LimitReached(version, ADA, "month", 25, 5)
    assert books.spent(ADA) == Spent(0, 20)
    books.now_ns += (last - moment.day - 2) * DAY_NS
    assert books.ask(6).period == "month"
    books.now_ns += DAY_NS
    assert isinstance(books.ask(10), Held)


def test_a_wallet_without_a_stop_goes_below_zero_and_only_so_far_as_its_limit(books: Books) -> None:
    assert books.ask(1, "new") == Insufficient(0, False)
    books.allow(Subject(LimitScope.WALLET, "*"), Terms(hard_stop=False, month_limit_nano=50))
    assert books.ask(1, "new", strict=True) == Insufficient(0, False)
    assert books.ask(30, "new").available_nanocredits == -30
    assert books.ask(21, "new").left_nano == 20
    assert books.spent(ADA._replace(name="new")) == Spent(0, 0)


def test_soft_limits_are_told_and_stop_nobody(books: Books) -> None:
    version = books.allow(ADA, Terms(soft_day_limit_nano=10, soft_month_limit_nano=30))
    assert books.ask(10).passed == ()
    assert books.ask(5).passed == (LimitReached(version, ADA, "day", 10, 0, soft=True),)
    assert [passed.period for passed in books.ask(20).passed] == ["day", "month"]


def test_the_newest_version_that_is_valid_holds(books: Books) -> None:
    first = books.allow(ADA, Terms(day_limit_nano=10))
    books.allow(ADA, Terms(day_limit_nano=50), from_ns=books.now_ns + 60, to_ns=books.now_ns + 120)
    assert books.ask(11).policy_id == first
    books.now_ns += 60
    assert isinstance(books.ask(11), Held)
    books.now_ns += 60
    assert books.ask(1) == LimitReached(first, ADA, "day", 10, -1)
    books.allow(ADA, Terms())
    assert isinstance(books.ask(500), Held)
    with books.database.reading() as connection:
        (row,) = policies_in_force(connection, 1, books.now_ns)
    assert (row.author, row.reason, row.day_limit_nano) == ("eve", "because", None)
    for subject, terms, validity in (
        (ADA, Terms(day_limit_nano=-1), {}),
        (ADA, Terms(day_limit_nano=2**63), {}),
        (BOB._replace(user_id=""), Terms(), {}),
        (SALES._replace(user_id="bob"), Terms(), {}),
        (SALES, Terms(hard_stop=False), {}),
        (ADA, Terms(), {"from_ns": books.now_ns - 1}),
        (ADA, Terms(), {"to_ns": books.now_ns}),
    ):
        with pytest.raises(BadPolicy):
            books.allow(subject, terms, **validity)


def test_what_was_spent_before_there_were_limits_counts(books: Books) -> None:
    books.use(7, dept="sales", project="launch")
    with books.database.transaction() as connection:
        command.downgrade(alembic_config(connection), "0017")
    with books.database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
    assert [books.spent(subject) for subject in (ADA, SALES, LAUNCH)] == [Spent(7, 7)] * 3


class Model:
    """What a wallet's holds should come to: plain sums over all that happened."""

    def __init__(self, wallet: str, suffix: str, limits: dict[Subject, tuple[int | None, int | None]]) -> None:
        self.wallet, self.suffix = wallet, suffix
        self.limits = {self.named(subject): both for subject, both in limits.items()}
        self.balance = 100
        self.holds: list[tuple[int, str, dict[str, str], int]] = []
        self.spent: list[tuple[datetime, set[Subject], int]] = []

    def named(self, subject: Subject) -> Subject:
        return subject._replace(name=self.wallet if subject.name == "ada" else subject.name + self.suffix)

    def counted(self, who: dict[str, Any]) -> set[Subject]:
        found = {self.named(ADA)}
        if who["user_id"]:
            found.add(self.named(BOB)._replace(user_id=who["user_id"]))
        if who["dept"]:
            found.add(self.named(SALES))
        if who["project"]:
            found.add(self.named(LAUNCH))
        return found

    def use(self, now: datetime, who: dict[str, Any], amount: int) -> None:
        self.balance -= amount
        self.spent.append((now, self.counted(who), amount))

    def grants(self, now: datetime, who: dict[str, Any], amount: int) -> bool:
        room = self.balance - sum(hold[3] for hold in self.holds) >= amount
        for subject in self.counted(who) & self.limits.keys():
            asked = amount + sum(left for _, _, whose, left in self.holds if subject in self.counted(whose))
            mine = [(then, part) for then, whose, part in self.spent if subject in whose]
            day, month = self.limits[subject]
            of_day = asked + sum(part for then, part in mine if then.date() == now.date())
            of_month = asked + sum(part for then, part in mine if (then.year, then.month) == (now.year, now.month))
            room &= (day is None or of_day <= day) and (month is None or of_month <= month)
        return room


WHO = st.tuples(st.sampled_from(["", "bob", "cleo"]), st.sampled_from(["", "sales"]), st.sampled_from(["", "launch"]))
STEP = st.tuples(st.sampled_from(["hold", "hold", "hold", "use", "settle", "void", "wait"]), st.integers(1, 30), WHO)
LIMITS = st.dictionaries(
    st.sampled_from([ADA, BOB, SALES, LAUNCH]),
    st.tuples(st.none() | st.integers(0, 60), st.none() | st.integers(0, 90)),
)
RUNS = count(1)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LIMITS, st.lists(STEP, min_size=1, max_size=12))
def test_a_hold_is_granted_exactly_where_a_plain_model_grants_it(
    database: Database, limits: dict[Subject, tuple[int | None, int | None]], steps: list[Any]
) -> None:
    books = Books(database)
    books.number = 1000 * next(RUNS)
    suffix = f"-{books.number}"
    model = Model(f"ada{suffix}", suffix, limits)
    for subject, (day, month) in model.limits.items():
        books.allow(subject, Terms(day_limit_nano=day, month_limit_nano=month))
    books.pay_in(model.balance, model.wallet)
    for what, amount, (user, dept, project) in steps:
        now = datetime.fromtimestamp(books.now_ns // 10**9, UTC)
        who = {"user_id": user, "dept": dept and dept + suffix, "project": project and project + suffix}
        if what == "hold":
            action = f"run-{books.number}"
            answer = books.ask(amount, model.wallet, action, **who)
            assert isinstance(answer, Held) is model.grants(now, who, amount), answer
            if isinstance(answer, Held):
                model.holds.append((answer.hold_id, action, who, amount))
        elif what == "use":
            books.use(amount, model.wallet, **who)
            model.use(now, who, amount)
        elif what == "settle" and model.holds:
            hold_id, action, whose, left = model.holds.pop()
            books.use(amount, model.wallet, action, **whose)
            model.use(now, whose, amount)
            if left > amount:
                model.holds.append((hold_id, action, whose, left - amount))
        elif what == "void" and model.holds:
            voided = model.holds.pop()[0]
            books.database.transact(partial(void_hold, tenant_id=1, hold_id=voided, at_ns=books.now_ns))
        elif what == "wait":
            books.now_ns += amount * DAY_NS // 4
            books.database.transact(partial(expire_holds, at_ns=books.now_ns))
            model.holds.clear()
    with database.reading() as connection:
        assert [str(mismatch) for mismatch in audit(connection)] == []


CLIENTS, REPLICAS, HOLDS_EACH = 16, 4, 4


def test_many_wallets_of_one_department_never_spend_more_than_its_limit(new_url: Callable[[str], str]) -> None:
    """Four replicas on PostgreSQL, a wallet a client: no wallet's lock orders them, the department's has to."""
    url = new_url("postgresql")
    amount, limit = 7, 7 * 20 + 3
    with closing(assembly.open_books(Settings(database_url=url), lambda: START_NS)) as database:
        books = Books(database)
        books.allow(SALES, Terms(day_limit_nano=limit))
        for client in range(CLIENTS):
            books.pay_in(1000, f"wallet-{client}")
        replicas = [Books(open_database(url)) for _ in range(REPLICAS)]
        granted: list[Held] = []

        def ask(client: int) -> None:
            for number in range(HOLDS_EACH):
                wallet, action = f"wallet-{client}", f"{client}-{number}"
                replica, other = replicas[client % REPLICAS], replicas[(client + 1) % REPLICAS]
                request = HoldRequest(wallet, amount, action, "chat", action, 60, dept="sales")
                (answer,) = replica.database.transact(
                    partial(take_holds, tenant_id=1, wanted=[request], at_ns=START_NS)
                )
                if isinstance(answer, Held):
                    granted.append(answer)
                    if number % 2:
                        made = call(1, trace=client * 10 + number + 1, wallet=wallet)
                        usage = made.usage._replace(action_id=action, dept="sales")
                        calls = [made._replace(usage=usage, charge_nanocredits=amount)]
                        other.database.transact(
                            partial(
                                record_usage, tenant_id=1, calls=calls, received_at_ns=START_NS, labels=TotalLabels()
                            )
                        )

        threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for replica in replicas:
            replica.database.close()
        assert len(granted) == limit // amount
        with database.reading() as connection:
            (held,) = connection.execute(text("SELECT held_nano FROM spenders WHERE scope = 'dept'")).one()
        assert held + books.spent(SALES).day == amount * len(granted)


def test_policies_over_http_stop_holds_and_not_usage(shared_collector: Collector) -> None:
    api = shared_collector.api

    def hold(key: str, **body: Any) -> Any:
        return api.post("/v1/holds", json={"wallet": "team", **body}, headers={"Idempotency-Key": key})

    api.post("/v1/wallets/team/deposits", json={"amount_credits": "10"}, headers={"Idempotency-Key": "team"})
    wanted = {"scope": "user", "name": "team", "user": "bob", "month_credits": "1", "reason": "a trial"}
    made = api.post("/v1/policies", json=wanted)
    assert (made.status_code, made.json()["month_credits"], made.json()["day_credits"]) == (201, "1.000000000", None)
    api.post("/v1/policies", json={"scope": "wallet", "name": "team", "soft_day_credits": "0.5", "reason": "a look"})
    listed = {(row["scope"], row["user"]): row for row in api.get("/v1/policies").json()["items"]}
    assert listed["user", "bob"] == made.json()
    spans = [llm_span(wallet="team", user__id="bob", input_tokens=5_000_000, output_tokens=0)]
    assert shared_collector.export_http(protobuf_body(spans)).status_code == 200
    (record,) = shared_collector.usage(wallet="team")
    assert record["charge_credits"] == "0.750000000"
    refused = hold("t1", amount_credits="0.26", user="bob")
    assert refused.status_code == 402
    assert refused.json()["detail"].startswith(
        "user bob of wallet team may spend 1.000000000 credits a month, and has 0.250000000 left"
    )
    granted = hold("t2", amount_credits="0.25", user="bob")
    assert granted.status_code == 201
    assert granted.json()["passed_limits"] == [
        "wallet team may spend 0.500000000 credits a day, and has -0.250000000 left"
    ]
    again = hold("t2", amount_credits="0.25", user="bob")
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (granted.json(), "true")
    assert hold("t3", amount_credits="0.26", user="cleo").status_code == 201
    standing = api.get("/v1/policies/standing?wallet=team&user=bob&dept=sales").json()["items"]
    shown = [(one["scope"], one["left_month_credits"], one["held_credits"], one["overspent"]) for one in standing]
    assert shown == [
        ("wallet", None, "0.510000000", False),
        ("dept", None, "0.000000000", False),
        ("user", "0.000000000", "0.250000000", False),
    ]
    assert shared_collector.export_http(protobuf_body([spans[0]._replace(span_id=b"again..8")])).status_code == 200
    (bob,) = [one for one in api.get("/v1/policies/standing?wallet=team&user=bob").json()["items"] if one["user"]]
    assert (bob["spent_month_credits"], bob["left_month_credits"], bob["overspent"]) == (
        "1.500000000",
        "-0.750000000",
        True,
    )
    ended = api.post("/v1/policies", json={"scope": "user", "name": "team", "user": "bob", "reason": "trial is over"})
    assert ended.status_code == 201
    assert hold("t4", amount_credits="0.26", user="bob").status_code == 201
    history = api.get("/v1/policies/history?scope=user&name=team&user=bob").json()["items"]
    assert [row["reason"] for row in history] == ["trial is over", "a trial"]
    for bad in (
        {"scope": "user", "name": "team"},
        {"scope": "dept", "name": "sales", "day_credits": "-1"},
        {"scope": "dept", "name": "sales", "day_credits": "NaN"},
        {"scope": "dept", "name": "sales", "day_credits": "0.0000000001"},
        {"scope": "dept", "name": "sales", "hard_stop": False},
        {"scope": "dept", "name": "sales", "valid_from": "2020-01-01T00:00:00Z"},
        {"scope": "planet", "name": "earth"},
    ):
        answer = api.post("/v1/policies", json={"reason": "no", **bad})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), bad


def test_in_strict_mode_only_paying_in_makes_a_wallet(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path), strict_wallets=True)
    try:
        body = {"wallet": "typo", "amount_credits": "1"}
        unknown = [collector.api.post("/v1/holds", json=body, headers={"Idempotency-Key": "a"})]
        for number, kind in enumerate(("adjustment", "withdrawal", "transfer")):
            move = {"type": kind, "amount_credits": "1"} | ({"to_wallet": "ada"} if kind == "transfer" else {})
            path = "/v1/wallets/typo/movements"
            unknown.append(collector.api.post(path, json=move, headers={"Idempotency-Key": f"m{number}"}))
        problems = [
            (answer.status_code, "neither paid into nor charged" in answer.json()["detail"]) for answer in unknown
        ]
        assert problems == [(402, True), *[(404, True)] * 3]
        grant = {"type": "grant", "amount_credits": "1"}
        made = collector.api.post("/v1/wallets/typo/movements", json=grant, headers={"Idempotency-Key": "g"})
        assert made.status_code == 201
        assert collector.api.post("/v1/holds", json=body, headers={"Idempotency-Key": "b"}).status_code == 201
        assert collector.export_http(protobuf_body([llm_span(wallet="new")])).status_code == 200
        assert collector.wallet("new")["balance_credits"].startswith("-")
        assert collector.stop() == 0
    finally:
        collector.close()

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, words, env={"FAREBOX_DATABASE_URL": collector.database_url, "COLUMNS": "160"})
        return done.output if done.exception is None else str(done.exception)

    said = run("policies", "set", "dept", "sales", "--month", "100", "--reason", "budget")
    assert said == "dept sales: 100 credits a month (policy version 1).\n"
    assert "sales" in run("policies", "list")
    assert "scope user" in run("policies", "set", "user", "ada", "--reason", "x")
    assert json.loads(run("policies", "history", "dept", "sales", "--json"))[0]["month_credits"] == "100.000000000"


def walked(books: Books, most: int) -> list[list[tuple[str, str, str]]]:
    """Who is past a limit, by the steps of a whole walk."""
    steps, place = [], START
    while True:
        with books.database.reading() as connection:
            watched = passed_limits(connection, 1, books.now_ns, place, most)
        steps.append([(one.subject.scope.value, one.subject.name, one.subject.user_id) for one in watched.passed])
        assert len(steps) < 50
        if (place := watched.upto) == START:
            return steps


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_a_walk_over_limits_comes_to_everybody_in_bounded_steps(books: Books, most: int) -> None:
    """However few are looked at together, and however many are past their limit all the time."""
    for name in ("a", "c", "e", "g"):
        books.allow(Subject(LimitScope.WALLET, name), Terms(day_limit_nano=5))
    for subject in (
        Subject(LimitScope.WALLET, "*"),
        Subject(LimitScope.USER, "*", "*"),
        Subject(LimitScope.USER, "h", "*"),
        Subject(LimitScope.DEPT, "*"),
    ):
        books.allow(subject, Terms(month_limit_nano=2))
    for number, wallet in enumerate("abcdefgh"):
        made = call(number + 1, trace=number + 1, wallet=wallet, cost_nanousd=1 if wallet == "c" else 2)
        facts: dict[str, Any] = {"user_id": f"u{number}", "dept": f"d{number}", "project": "p"}
        made = made._replace(usage=made.usage._replace(**facts))
        with books.database.transaction() as connection:
            record_usage(connection, 1, [made], books.now_ns, TotalLabels())
    steps = walked(books, most)
    found = [one for step in steps for one in step]
    wallets = [name for scope, name, _ in found if scope == "wallet"]
    # The policy of its own holds for c, however the policy of `*` is looked at; the others may come up twice.
    assert set(wallets) == set("abdefgh")
    assert sorted(user for scope, _, user in found if scope == "user") == [f"u{number}" for number in range(8)]
    assert sorted(name for scope, name, _ in found if scope == "dept") == [f"d{number}" for number in range(8)]
    assert all(len(step) <= most for step in steps)
