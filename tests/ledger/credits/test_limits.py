"""What limits say to one hold, without books: day before month, the nearest subject first, up to the very limit."""

import pytest
from farebox_collector.ledger.credits.limits import LimitReached, Limits, Wanted
from farebox_collector.ledger.credits.policies import Policy, Terms
from farebox_collector.ledger.credits.spending import LimitScope, Spent, Subject

ADA, SALES = Subject(LimitScope.WALLET, "ada"), Subject(LimitScope.DEPT, "sales")
BOB = Subject(LimitScope.USER, "ada", "bob")


def limits(spent: Spent, held: int, **terms: Terms) -> Limits:
    """Policies of `ada`, `sales` and `bob`, each with the same spent and held."""
    subjects = {"ada": ADA, "sales": SALES, "bob": BOB}
    chosen = {name: subjects[name] for name in terms}
    policies = {subject: Policy(number, subject, terms[name]) for number, (name, subject) in enumerate(chosen.items())}
    return Limits(policies, dict.fromkeys(chosen.values(), spent), dict.fromkeys(chosen.values(), held))


def wanted(amount: int) -> Wanted:
    return Wanted("ada", amount, "bob", "sales", "")


@pytest.mark.parametrize(
    ("day", "month", "amount", "found"),
    [
        (100, None, 60, None),
        (100, None, 61, ("day", 100, 60)),
        (None, 100, 50, None),
        (None, 100, 51, ("month", 100, 50)),
        (100, 100, 51, ("month", 100, 50)),
        (100, 100, 61, ("day", 100, 60)),  # Both are reached: the day is told.
        (0, 0, 1, ("day", 0, -40)),
        (None, None, 10**18, None),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_a_limit_is_reached_by_what_would_go_past_it(
    day: int | None, month: int | None, amount: int, found: tuple[str, int, int] | None, soft: bool
) -> None:
    """30 were spent today, 40 this month, 10 are held."""
    terms = Terms(True, None, None, day, month) if soft else Terms(True, day, month)
    told = limits(Spent(30, 40), 10, sales=terms)
    reached, passed = told.reached(wanted(amount)), told.passed(wanted(amount))
    expected = None if found is None else LimitReached(0, SALES, *found, soft)  # type: ignore[arg-type]
    assert reached == (None if soft else expected)
    assert passed[:1] == ((expected,) if soft and expected else ())
    both = day is not None and month is not None and found is not None and found[0] == "day"
    assert len(passed) == (0 if not soft or found is None else 2 if both else 1)


def test_what_is_held_already_is_not_counted_twice_and_what_is_taken_is() -> None:
    told = limits(Spent(0, 0), 60, sales=Terms(True, 100, None, 100))
    assert told.reached(wanted(41)) is not None
    assert told.passed(wanted(60), counted_nano=60) == ()
    assert told.passed(wanted(101), counted_nano=60)[0].left_nano == 100
    told.take(wanted(40))
    assert told.reached(wanted(1)) == LimitReached(0, SALES, "day", 100, 0)
    assert told._more == {SALES: 40, BOB: 40}


def test_the_wallet_is_asked_first_and_all_are_told_what_they_pass() -> None:
    hard = Terms(True, 10)
    told = limits(Spent(0, 0), 0, ada=hard, sales=hard, bob=hard)
    reached = told.reached(wanted(11))
    assert reached is not None
    assert reached.subject == ADA
    soft = Terms(True, None, None, 10)
    told = limits(Spent(0, 0), 0, bob=soft, sales=soft, ada=soft)
    assert {one.subject for one in told.passed(wanted(11))} == {ADA, SALES, BOB}
    assert told.reached(wanted(11)) is None


@pytest.mark.parametrize(("terms", "stops"), [(None, True), (Terms(), True), (Terms(hard_stop=False), False)])
def test_a_wallet_stops_at_its_balance_unless_its_policy_says_otherwise(terms: Terms | None, stops: bool) -> None:
    told = Limits.none() if terms is None else limits(Spent(0, 0), 0, ada=terms)
    assert told.stops_at_the_balance("ada") is stops
    assert told.stops_at_the_balance("bob")
