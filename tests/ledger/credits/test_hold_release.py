"""Holds follow the net charge of their action, and block nothing from the moment they end."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.credits.hold_fast_path import take_plain_holds
from farebox_collector.ledger.credits.hold_release import HoldState, standing_of
from farebox_collector.ledger.credits.holds import (
    AlreadyHeld,
    Held,
    HoldEnded,
    HoldRequest,
    Insufficient,
    KeyReused,
    holds_of,
    take_holds,
)
from farebox_collector.ledger.credits.limits import LimitReached
from farebox_collector.ledger.credits.movements import Kind, NotEnough
from farebox_collector.ledger.credits.policies import Terms
from farebox_collector.ledger.credits.spending import LimitScope, Subject, held_of
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.corrections import Cause
from farebox_collector.model.records import Buckets
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from harness import Collector
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from living_books import LivingBooks

BOB, SALES, LAUNCH = (
    Subject(LimitScope.USER, "ada", "bob"),
    Subject(LimitScope.DEPT, "sales"),
    Subject(LimitScope.PROJECT, "launch"),
)


@pytest.fixture
def books(database: Database) -> LivingBooks:
    books = LivingBooks(database)
    books.move(Kind.DEPOSIT, 100)
    return books


def test_what_a_correction_gives_back_is_held_again(books: LivingBooks) -> None:
    taken = books.ask(60, action="run")
    first = books.use(25, action_id="run")
    assert books.held() == 35
    books.correct(first, None)
    assert (books.balance(), books.held()) == (100, 60)
    books.use(25, action_id="run")
    assert (books.balance(), books.held()) == (75, 35)
    row = books.hold(taken.hold_id)
    assert (row.state, row.open_nano, row.settled_nano) == ("open", 35, 25)
    books.check()


def test_the_example_of_the_documentation(books: LivingBooks) -> None:
    """The table under "Before an action" in docs/explanation/credits.md, line by line."""
    books.ask(60, action="run")
    figures = []

    def note() -> None:
        figures.append((books.balance(), books.held()))

    first = books.use(25, action_id="run")
    note()
    books.correct(first, None)
    note()
    books.use(25, action_id="run")
    note()
    other = books.use(50, action_id="run")
    note()
    books.correct(other, 20, Cause.REPLAY)
    note()
    books.wait(60)
    books.sweep()
    note()
    text = (Path(__file__).parents[3] / "docs" / "explanation" / "credits.md").read_text()
    table = text.partition("60 are held for the action `run`:")[2].strip().split("\n\n")[0].splitlines()[2:]
    assert [tuple(map(int, line.split("|")[2:4])) for line in table] == figures


def test_a_correction_that_charges_settles_the_hold(books: LivingBooks) -> None:
    taken = books.ask(60, action="run")
    waiting = call(900, trace=900, verdict=Verdict.UNPRICED, start_ns=books.now_ns)
    books.record(waiting._replace(usage=waiting.usage._replace(action_id="run")))
    assert books.held() == 60
    books.correct(900, 70, Cause.LATE_PRICE)
    assert (books.balance(), books.held(), books.hold(taken.hold_id).state) == (30, 0, "settled")
    books.correct(900, 20, Cause.REPLAY)
    row = books.hold(taken.hold_id)
    assert (books.balance(), books.held(), row.state, row.ended_at_ns) == (80, 40, "open", None)
    books.check()


def test_an_agent_that_is_charged_after_its_quiet_time_settles_its_hold(books: LivingBooks) -> None:
    taken = books.ask(60, action="run", seconds=3600)
    tariffs = Tariffs(books.database, lambda: books.now_ns)
    asked = call(7, trace=7, start_ns=books.now_ns, model="gpt-4o-mini", buckets=Buckets(input=100, output=0))
    usage = asked.usage._replace(action_id="run", provider="openai", summary=True)
    agent = call(7, trace=7, verdict=Verdict.DEFERRED, start_ns=books.now_ns)._replace(usage=usage)
    books.record(agent)
    books.wait(400)
    Settling(Settings(database_url="sqlite:///unused"), books.database, tariffs, lambda: books.now_ns).round()
    charged = 100 - books.balance()
    assert charged > 0
    assert (books.held(), books.hold(taken.hold_id).settled_nano) == (max(0, 60 - charged), charged)
    books.check()


def test_what_an_action_is_charged_past_its_hold_counts_when_some_is_given_back(books: LivingBooks) -> None:
    """A settled hold goes on counting: of 20 too much the hold sees nothing until they are gone."""
    taken = books.ask(50, action="run")
    books.use(50, action_id="run")
    extra = books.use(20, action_id="run")
    assert (books.held(), books.hold(taken.hold_id).settled_nano) == (0, 70)
    books.correct(extra, None)
    assert (books.held(), books.hold(taken.hold_id).state) == (0, "settled")
    books.check()


@pytest.mark.parametrize("how", ["voided", "expired", "expired, not swept"])
def test_a_hold_that_has_ended_is_not_opened_by_a_correction(books: LivingBooks, how: str) -> None:
    taken = books.ask(60, action="run")
    first = books.use(25, action_id="run")
    if how == "voided":
        books.void(taken.hold_id)
    else:
        books.wait(60)
        if how == "expired":
            assert books.sweep() == 1
    books.correct(first, None)
    assert (books.balance(), books.ask(100, key="other").available_nanocredits) == (100, 0)
    books.check()


def test_calls_that_were_charged_before_the_hold_are_not_counted_for_it(books: LivingBooks) -> None:
    earlier = books.use(10, action_id="run")
    taken = books.ask(60, action="run")
    assert books.held() == 60
    books.correct(earlier, None)
    assert (books.held(), books.hold(taken.hold_id).settled_nano) == (60, -10), "never more than its amount"
    books.use(10, action_id="run")
    assert books.held() == 60
    books.check()


def test_the_event_of_a_hold_is_not_compared_with_that_of_its_calls(books: LivingBooks) -> None:
    books.ask(60, action="run")
    books.use(10, action_id="run", event="tool.use")
    assert books.held() == 50


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("use"), st.integers(0, 60), st.booleans()),
            st.tuples(st.just("take back"), st.integers(0, 9), st.booleans()),
            st.tuples(st.just("change"), st.integers(0, 9), st.integers(0, 60)),
        ),
        max_size=10,
    )
)
@example([("use", 60, True), ("use", 20, True), ("take back", 0, True), ("take back", 0, True)])
def test_an_open_hold_is_always_its_amount_less_the_net_charge(
    database: Database, steps: list[tuple[str, int, int]]
) -> None:
    books = LivingBooks(database)
    books.number = database_number(database)
    wallet = f"wallet-{books.number}"
    books.move(Kind.DEPOSIT, 1000, wallet)
    books.ask(50, wallet, action="run")
    charged: dict[int, int] = {}
    for what, number, more in steps:
        if what == "use":
            made = books.use(number, wallet, action_id="run" if more else "walk")
            charged |= {made: number} if more else {}
        elif charged:
            span = sorted(charged)[number % len(charged)]
            if what == "change" and charged[span]:
                books.correct(span, int(more), Cause.REPLAY)
                charged[span] = int(more)
            elif what == "take back":
                books.correct(span, None)
                del charged[span]
        assert books.held(wallet) == max(0, 50 - sum(charged.values()))
    books.check()


def database_number(database: Database) -> int:
    """A number beyond all that earlier examples used in the same books."""
    NUMBERS[0] += 1
    return NUMBERS[0] * 1_000


NUMBERS = [0]


@pytest.mark.parametrize("kind", [Kind.WITHDRAWAL, Kind.REFUND, Kind.TRANSFER])
def test_an_ended_hold_stops_no_movement(books: LivingBooks, kind: Kind) -> None:
    books.ask(60, seconds=5)
    facts = {"lot_id": 1} if kind is Kind.REFUND else {"to_wallet": "ben"} if kind is Kind.TRANSFER else {}
    with pytest.raises(NotEnough):
        books.move(kind, 50, **facts)
    books.wait(5)
    assert books.move(kind, 100, **facts).amount_nanocredits == -100
    books.check()


@pytest.mark.parametrize(
    ("subject", "who"), [(BOB, {"user_id": "bob"}), (SALES, {"dept": "sales"}), (LAUNCH, {"project": "launch"})]
)
@pytest.mark.parametrize("other", ["ada", "ben"])
def test_an_ended_hold_counts_for_no_limit(
    books: LivingBooks, subject: Subject, who: dict[str, Any], other: str
) -> None:
    """The same user, department or project asks for another hold: of the same wallet, or of another one."""
    if subject is BOB and other == "ben":
        other = "ada"
    books.move(Kind.DEPOSIT, 100, "ben")
    books.limit(subject, Terms(day_limit_nano=60, soft_day_limit_nano=60))
    books.ask(60, seconds=5, **who)
    refused = books.ask(1, other, **who)
    assert isinstance(refused, LimitReached)
    assert refused.left_nano == 0
    books.wait(5)
    with books.database.reading() as connection:
        assert held_of(connection, 1, [subject, Subject(LimitScope.WALLET, "ada")], books.now_ns) == {
            subject: 0,
            Subject(LimitScope.WALLET, "ada"): 0,
        }
    granted = books.ask(60, other, **who)
    assert isinstance(granted, Held)
    assert granted.passed == (), "what has ended is not counted for the soft limit either"
    books.sweep()
    with books.database.reading() as connection:
        assert held_of(connection, 1, [subject], books.now_ns) == {subject: 60}
    books.check()


def test_what_is_available_counts_no_ended_hold(books: LivingBooks) -> None:
    for number in range(3):
        books.ask(20, key=f"short-{number}", seconds=5 + number)
    books.wait(6)
    assert books.ask(10).available_nanocredits == 100 - 20 - 10
    assert books.ask(71) == Insufficient(70, True)
    books.check()


@pytest.mark.parametrize("how", ["voided", "expired", "settled"])
def test_a_request_that_comes_again_after_its_hold_ended_says_so(books: LivingBooks, how: str) -> None:
    taken = books.ask(60, key="k", action="run", seconds=30)
    assert books.ask(60, key="k", action="run", seconds=30) == taken._replace(repeated=True)
    books.wait(10)
    ended_ns = books.now_ns
    if how == "voided":
        books.void(taken.hold_id)
    elif how == "settled":
        books.use(60, action_id="run")
    else:
        ended_ns = books.at(30)
    books.wait(25)
    expected = HoldEnded(taken.hold_id, HoldState(how), ended_ns)
    assert books.ask(60, key="k", action="run", seconds=30) == expected
    books.sweep()
    assert books.ask(60, key="k", action="run", seconds=30) == expected, "a sweep changes nothing"
    assert books.ask(5, key="other", action="run") == AlreadyHeld(taken.hold_id)
    assert books.held() == 0


def test_a_hold_ended_when_its_time_was_up_whenever_a_sweep_came(books: LivingBooks) -> None:
    taken = books.ask(60, seconds=5)
    books.wait(4)
    assert standing_of(books.hold(taken.hold_id), books.now_ns) == (HoldState.OPEN, 60, None)
    books.wait(1)
    before = standing_of(books.hold(taken.hold_id), books.now_ns)
    assert before == (HoldState.EXPIRED, 0, books.at(5))
    books.wait(100)
    assert books.void(taken.hold_id).state == "expired", "it cannot be voided any more"
    books.sweep()
    assert standing_of(books.hold(taken.hold_id), books.now_ns) == before


def test_lists_of_holds_go_by_what_has_become_of_them_at_that_moment(books: LivingBooks) -> None:
    short, long = (books.ask(10, seconds=seconds).hold_id for seconds in (5, 50))
    other = books.move(Kind.DEPOSIT, 10, "ben") and books.ask(1, "ben", seconds=50).hold_id
    voided = books.ask(1).hold_id
    books.void(voided)
    books.wait(10)

    def listed(wallet: str, state: str, before: int | None = None, limit: int = 10) -> list[int]:
        with books.database.reading() as connection:
            return [row.id for row in holds_of(connection, 1, wallet, state, before, limit, books.now_ns)]

    assert listed("", "") == [voided, other, long, short], "newest first"
    assert listed("ada", "open") == [long]
    assert listed("", "open") == [other, long]
    assert listed("", "expired") == [short]
    assert listed("", "voided") == [voided]
    assert listed("ada", "") == [voided, long, short]
    assert listed("", "", before=other) == [long, short]
    assert listed("", "", limit=2) == [voided, other]
    books.sweep()
    assert (listed("", "expired"), listed("", "open")) == ([short], [other, long])


def test_a_sweep_ends_what_is_over_and_nothing_else(books: LivingBooks) -> None:
    over = books.ask(10, seconds=5).hold_id
    lasting = books.ask(10, seconds=50).hold_id
    voided = books.ask(10, seconds=5).hold_id
    books.void(voided)
    settled = books.ask(10, action="run", seconds=5).hold_id
    books.use(10, action_id="run")
    books.wait(5)
    assert (books.sweep(), books.sweep()) == (1, 0)
    states = [books.hold(hold_id).state for hold_id in (over, lasting, voided, settled)]
    assert states == ["expired", "open", "voided", "settled"]
    assert books.held() == 10
    books.check()


@pytest.mark.parametrize("named", [{"user_id": "bob"}, {"dept": "sales"}, {"project": "launch"}])
def test_the_same_key_for_somebody_else_is_another_request(books: LivingBooks, named: dict[str, Any]) -> None:
    books.ask(10, key="k", **named)
    (field,) = named
    others: tuple[dict[str, Any], ...] = ({}, {field: "other"})
    for other in others:
        assert books.ask(10, key="k", **other) == KeyReused()
    assert books.ask(10, key="k", **named).repeated
    assert books.held() == 10


def test_two_tenants_with_the_same_names_hold_apart(books: LivingBooks) -> None:
    """The same wallet, key, action, user and department in two tenants."""
    tenant = books.database.transact(lambda connection: create_tenant(connection, "other", Decimal(1), START_NS))
    other = LivingBooks(books.database, tenant)
    other.number = 10_000
    other.move(Kind.DEPOSIT, 70)
    for each, amount in ((books, 60), (other, 50)):
        each.limit(SALES, Terms(day_limit_nano=amount))
        taken = each.ask(amount, key="k", action="run", seconds=5, user_id="bob", dept="sales")
        assert isinstance(taken, Held)
        assert isinstance(each.ask(1, dept="sales"), LimitReached)
    other.use(20, action_id="run")
    assert (books.held(), other.held()) == (60, 30)
    with books.database.reading() as connection:
        assert [row.open_nano for row in holds_of(connection, tenant, "ada", "", None, 10)] == [30]
        assert held_of(connection, tenant, [SALES], START_NS) == {SALES: 30}
    books.wait(5)
    other.wait(5)
    assert isinstance(books.ask(60, dept="sales"), Held)
    assert other.held() == 30, "the sweep of one tenant's wallet leaves the other's alone"
    books.check()


def test_many_holds_that_ended_at_once_are_all_let_go_of(books: LivingBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox_collector.ledger.credits.hold_release.MOST_EXPIRED_AT_ONCE", 2)
    requests = [HoldRequest("ada", 10, f"many-{number}", "chat", "", 5) for number in range(7)]
    books.run(take_holds, wanted=requests)
    books.wait(5)
    assert isinstance(books.ask(100), Held)
    books.check()


def test_one_statement_takes_no_hold_beside_one_that_ended(books: LivingBooks) -> None:
    """On PostgreSQL; elsewhere every hold is taken the long way, and comes to the same."""
    books.ask(10, seconds=5)
    books.wait(5)
    wanted = [HoldRequest("ada", 10, "quick", "chat", "run", 60)]
    if books.database.changes_with:
        quick = books.database.transact_at_once(lambda c: take_plain_holds(c, 1, wanted, books.now_ns))
        assert quick is None
        books.sweep()
        answers = books.database.transact_at_once(lambda c: take_plain_holds(c, 1, wanted, books.now_ns))
        assert answers is not None
        (held,) = answers
        books.use(4, action_id="run")
        assert books.hold(held.hold_id).settled_nano == 4, "the call found the hold"
    assert books.run(take_holds, wanted=wanted)[0].available_nanocredits in (86, 90)
    books.check()


def test_repeating_a_hold_that_ended_over_http(shared_collector: Collector) -> None:
    api = shared_collector.api
    api.post("/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers={"Idempotency-Key": "pay"})
    body = {"wallet": "ada", "amount_credits": "5", "event": "agent.run", "action_id": "run"}
    taken = api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h"}).json()
    voided = api.post(f"/v1/holds/{taken['hold_id']}/void").json()
    assert (voided["state"], voided["charged_credits"]) == ("voided", "0.000000000")
    again = api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h"})
    told = again.json()
    assert (again.status_code, told["state"], told["hold_id"]) == (409, "voided", taken["hold_id"])
    assert told["ended_at"] == voided["ended_at"]
    assert "new key" in told["detail"]


@pytest.mark.parametrize(("after_s", "settled"), [(59, 25), (60, 0)])
def test_a_charge_at_the_moment_of_the_end_settles_nothing(books: LivingBooks, after_s: int, settled: int) -> None:
    books.ask(1, seconds=120)  # The wallet still has a hold then.
    taken = books.ask(60, action="run")
    books.wait(after_s)
    books.use(25, action_id="run")
    row = books.hold(taken.hold_id)
    assert (row.settled_nano, row.open_nano) == (settled, 60 - settled)


def test_a_settled_hold_keeps_the_moment_of_its_end_until_it_is_open_again(books: LivingBooks) -> None:
    taken = books.ask(60, action="run")
    books.wait(1)
    first = books.use(60, action_id="run")
    ended_at_ns = books.now_ns
    for _ in range(2):
        books.wait(1)
        books.use(5, action_id="run")
        row = books.hold(taken.hold_id)
        assert (row.state, row.ended_at_ns, row.settled_nano > 60) == ("settled", ended_at_ns, True)
    books.correct(first, None)
    assert books.hold(taken.hold_id).ended_at_ns is None
    books.use(60, action_id="run")
    assert books.hold(taken.hold_id).ended_at_ns == books.now_ns
