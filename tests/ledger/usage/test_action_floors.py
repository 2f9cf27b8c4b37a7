"""What an action costs depends on the call that started first, in any order of arrival."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import permutations, product

import pytest
from booked import used
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariff, Tariffs
from farebox_collector.ledger.audit.audit_runs import RECENT, Audited, note_audit
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.corrections import corrections
from farebox_collector.ledger.tariffs.rules import (
    RuleAuthorship,
    load_rules,
    rules_edition,
    set_rule,
)
from farebox_collector.ledger.usage import action_joins
from farebox_collector.model.money import NANO
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.price import price_at
from farebox_collector.pricing.rules import (
    COST_PLUS,
    FLAT,
    PER_1K_TOKENS,
    RuleBook,
    RuleTerms,
)
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from living_books import SECOND_NS, LivingBooks
from sqlalchemy import select, text

PER_1K = RuleTerms(PER_1K_TOKENS, input_credits_per_1k=Decimal(1))
FLAT_5 = RuleTerms(FLAT, flat_credits=Decimal(5))
FLAT_2 = RuleTerms(FLAT, flat_credits=Decimal(2))
AT_LEAST_5 = RuleTerms(COST_PLUS, multiplier=Decimal(1000), minimum_credits=Decimal(5))
COST_TIMES_1000 = RuleTerms(COST_PLUS, multiplier=Decimal(1000))
RULES = {"per 1k": PER_1K, "flat 5": FLAT_5, "flat 2": FLAT_2, "at least 5": AT_LEAST_5, "plain": COST_TIMES_1000}
SHARES = {"per 1k": NANO, "flat 5": 0, "flat 2": 0, "at least 5": 150_000_000, "plain": 150_000_000}
FLOORS = {"per 1k": 0, "flat 5": 5 * NANO, "flat 2": 2 * NANO, "at least 5": 5 * NANO, "plain": 0}
MINUTE_NS = 60 * SECOND_NS


@pytest.fixture
def books(database: Database) -> LivingBooks:
    return LivingBooks(database)


LIST_PRICES: list[PriceBook] = []


TARIFFS: dict[tuple[int, int], Tariff] = {}


def tariff_of(books: LivingBooks) -> Tariff:
    """The rules of the books, with the list prices: reading these takes longer than everything else here."""
    if not LIST_PRICES:
        LIST_PRICES.append(Tariffs(books.database, lambda: books.now_ns).of(1).book)
    with books.database.reading() as connection:
        key = id(books.database), rules_edition(connection)
        if key not in TARIFFS:
            TARIFFS.clear()
            TARIFFS[key] = Tariff(LIST_PRICES[0], RuleBook(load_rules(connection, 1)))
        return TARIFFS[key]


def set_rules(books: LivingBooks, names: Sequence[str], event: str = "run") -> None:
    """One rule after another, a minute each, from now on."""
    for place, name in enumerate(names):
        start_ns = books.now_ns + place * MINUTE_NS
        why = RuleAuthorship("eve", "because")
        with books.database.transaction() as connection:
            set_rule(connection, 1, event, RULES[name], why, books.now_ns, start_ns, start_ns + MINUTE_NS)


def of_action(
    books: LivingBooks, number: int, at_ns: int, action: str = "a", event: str = "run", wallet: str = "ada"
) -> PricedUsage:
    """A call of 1,000 tokens, 0.00015 USD, priced by the rules of the books."""
    usage = used(number, event=event, action_id=action, started_at_ns=at_ns, wallet=wallet)
    usage = usage._replace(buckets=Buckets(input=1000, output=0), trace_id=number.to_bytes(16, "big"))
    tariff = tariff_of(books)
    return price_at(usage, at_ns, tariff.book, tariff.rules)


def charged(books: LivingBooks, wallet: str = "ada") -> int:
    books.check()
    return -books.balance(wallet)


def test_the_rule_of_the_call_that_started_first_says_the_floor(books: LivingBooks) -> None:
    """Any two rules, both orders of arrival, in one batch and in two, with the same answer."""
    number = 0
    for first, second in product(RULES, repeat=2):
        event = f"{first}, {second}"
        set_rules(books, [first, second], event)
        for order, together in product((1, -1), (False, True)):
            wallet = f"{event} {order} {together}"
            calls = []
            for at_ns in (books.at(30), books.at(90)):
                number += 1
                calls.append(of_action(books, number, at_ns, event=event, wallet=wallet))
            for batch in [calls[::order]] if together else [[call] for call in calls[::order]]:
                assert books.record(*batch) == [Verdict.CHARGED] * len(batch)
                assert books.record(*batch) == [Verdict.DUPLICATE] * len(batch), "what comes again changes nothing"
            expected = max(FLOORS[first], SHARES[first] + SHARES[second])
            assert -books.balance(wallet) == expected, wallet
    books.check()


def test_any_order_of_three_calls_under_three_rules_comes_to_the_same(books: LivingBooks) -> None:
    set_rules(books, ["flat 2", "at least 5", "per 1k"])
    expected = max(FLOORS["flat 2"], SHARES["flat 2"] + SHARES["at least 5"] + SHARES["per 1k"])
    for number, order in enumerate(permutations(range(3))):
        wallet = f"wallet{number}"
        for place in order:
            books.record(of_action(books, number * 10 + place + 1, books.at(place * 60 + 1), wallet=wallet))
        assert charged(books, wallet) == expected


CALL = st.tuples(st.integers(0, 2), st.integers(0, 59), st.sampled_from("ab"))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(sorted(RULES)), min_size=3, max_size=3),
    calls=st.lists(CALL, min_size=1, max_size=6, unique_by=lambda one: one[:2]),
    data=st.data(),
)
def test_no_order_batching_or_repetition_makes_a_difference(
    database: Database, names: list[str], calls: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    """An oracle that knows the sentence of the documentation, and nothing of how calls came."""
    books = LivingBooks(database)
    EXAMPLES[0] += 1
    event, wallet = f"run{EXAMPLES[0]}", f"wallet{EXAMPLES[0]}"
    set_rules(books, names, event)
    priced = []
    for number, (minute, second, action) in enumerate(calls):
        at_ns = books.at(minute * 60 + second)
        priced.append(of_action(books, EXAMPLES[0] * 100 + number, at_ns, action, event, wallet))
    arrivals = data.draw(st.permutations([*priced, *data.draw(st.lists(st.sampled_from(priced), max_size=3))]))
    while arrivals:
        size = data.draw(st.integers(1, len(arrivals)))
        # What comes again is as much as the first, and not the same object.
        books.record(*(call._replace() for call in arrivals[:size]))
        arrivals = arrivals[size:]
    expected = 0
    for action in "ab":
        mine = sorted(one for one in calls if one[2] == action)
        if mine:
            expected += max(FLOORS[names[mine[0][0]]], sum(SHARES[names[minute]] for minute, _, _ in mine))
    assert charged(books, wallet) == expected


EXAMPLES = [0]


def test_an_earlier_call_moves_what_the_others_carry_by_a_correction(books: LivingBooks) -> None:
    """The example of docs/explanation/credits.md."""
    books.move(Kind.DEPOSIT, 20 * NANO)
    set_rules(books, ["per 1k", "flat 5"])
    books.ask(10 * NANO, action="a", seconds=3600)
    books.record(of_action(books, 1, books.at(70)))
    assert (books.balance(), books.held()) == (15 * NANO, 5 * NANO)
    books.record(of_action(books, 2, books.at(10)))
    # The first call has no floor: the flat call adds nothing any more, the other adds its share.
    assert (books.balance(), books.held()) == (19 * NANO, 9 * NANO)
    with books.database.reading() as connection:
        (found,) = connection.execute(select(corrections)).all()
        assert (found.cause, found.charge_nanocredits_before, found.charge_nanocredits_after) == ("action", 5 * NANO, 0)
    books.check()


def test_when_the_first_call_is_taken_back_the_next_one_says_the_floor(books: LivingBooks) -> None:
    set_rules(books, ["flat 5", "flat 2", "per 1k"])
    for number, second in ((1, 10), (2, 70), (3, 130)):
        books.record(of_action(books, number, books.at(second)))
    assert charged(books) == 5 * NANO
    books.correct(1, None)
    assert charged(books) == 2 * NANO
    books.correct(2, None)
    assert charged(books) == NANO
    books.correct(3, None)
    assert charged(books) == 0
    books.record(of_action(books, 4, books.at(80)))
    assert charged(books) == 2 * NANO, "an action without calls begins anew"


def test_a_call_that_gets_its_price_late_can_be_the_first(books: LivingBooks) -> None:
    set_rules(books, ["flat 5", "per 1k"])
    late = of_action(books, 1, books.at(10))
    books.record(late._replace(verdict=Verdict.UNPRICED, reason="no price", charge_nanocredits=None, cost_nanousd=None))
    books.record(of_action(books, 2, books.at(70)))
    assert charged(books) == NANO
    books.wait(600)
    tariffs = Tariffs(books.database, lambda: books.now_ns)
    Settling(Settings(database_url="sqlite:///unused"), books.database, tariffs, lambda: books.now_ns).round()
    assert charged(books) == 5 * NANO


def test_calls_from_before_there_was_any_floor_take_part(books: LivingBooks) -> None:
    """The default rule has none: the first call was recorded when no rule of the event ever had one."""
    first = of_action(books, 1, books.at(0))
    assert first.action_floor_nanocredits is None
    books.record(first)
    before = charged(books)
    books.wait(60)
    set_rules(books, ["flat 5"])
    books.wait(10)
    books.record(of_action(books, 2, books.now_ns))
    assert charged(books) == before, "the first call's rule has no floor"
    books.record(of_action(books, 3, books.now_ns, action="b"))
    assert charged(books) == before + 5 * NANO


def test_a_floor_for_all_events_takes_their_calls_in(books: LivingBooks) -> None:
    books.record(of_action(books, 1, books.at(0), event="run"), of_action(books, 2, books.at(0), event="walk"))
    before = charged(books)
    books.wait(60)
    with books.database.transaction() as connection:
        connection.execute(text("UPDATE charge_rules SET valid_to_ns = :now"), {"now": books.now_ns})
        set_rule(connection, 1, "*", FLAT_5, RuleAuthorship("eve", "because"), books.now_ns)
    books.wait(1)
    books.record(of_action(books, 3, books.now_ns, event="run"), of_action(books, 4, books.now_ns, event="walk"))
    assert charged(books) == before


@pytest.mark.parametrize(("longest_s", "most", "joined"), [(86_400, 100, [1, 2]), (30, 100, [2]), (86_400, 1, [2])])
def test_only_calls_of_actions_that_may_be_going_on_are_taken_in(
    books: LivingBooks, monkeypatch: pytest.MonkeyPatch, longest_s: int, most: int, joined: list[int]
) -> None:
    monkeypatch.setattr(action_joins, "LONGEST_NS", longest_s * SECOND_NS)
    monkeypatch.setattr(action_joins, "MOST_CALLS", most)
    books.record(of_action(books, 1, books.at(0)), of_action(books, 2, books.at(50), "b"))
    books.record(of_action(books, 3, books.at(50), ""), of_action(books, 4, books.at(50), "a", event="other"))
    books.wait(60)
    set_rules(books, ["flat 5"])
    with books.database.reading() as connection:
        table = usage_records.c
        found = connection.execute(select(table.id).where(table.action_share_nanocredits.is_not(None)))
        assert sorted(found.scalars()) == joined
    books.check()


def test_while_corrections_are_frozen_the_floor_stays(books: LivingBooks) -> None:
    set_rules(books, ["per 1k", "flat 5"])
    books.record(of_action(books, 1, books.at(70)))
    with books.database.transaction() as connection:
        note_audit(connection, Audited(RECENT, books.now_ns, 1, 1))
    assert books.record(of_action(books, 2, books.at(10))) == [Verdict.CHARGED]
    assert charged(books) == 5 * NANO


def test_calls_that_started_at_one_moment_have_an_order_of_their_own(books: LivingBooks) -> None:
    """Of two rules that cannot hold at once this does not matter; of two calls of one moment one is the first."""
    set_rules(books, ["flat 5"])
    for wallet, order in (("ada", (1, 2)), ("ben", (4, 3))):
        for number in order:
            books.record(of_action(books, number, books.at(5), wallet=wallet))
    with books.database.reading() as connection:
        firsts = connection.execute(text("SELECT wallet, first_span FROM charged_actions ORDER BY wallet")).all()
    assert [(wallet, int(span[-16:], 16)) for wallet, span in firsts] == [("ada", 1), ("ben", 3)]


def test_the_floor_that_the_audit_recomputes_is_that_of_the_first_call(books: LivingBooks) -> None:
    set_rules(books, ["flat 5", "per 1k"])
    books.record(of_action(books, 1, books.at(10)), of_action(books, 2, books.at(70)))
    books.check()
    with books.database.transaction() as connection:
        connection.execute(text("UPDATE charged_actions SET floor_nanocredits = floor_nanocredits - 1"))
    with books.database.reading() as connection:
        assert {mismatch.check for mismatch in audit(connection)} == {"actions", "floors"}
