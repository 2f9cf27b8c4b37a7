"""Which of several policies holds: the nearest name, the newest version, and never that of another tenant or user."""

import pytest
from farebox_collector.ledger.credits.policies import (
    EACH,
    Authorship,
    BadPolicy,
    Terms,
    Validity,
    policies_in_force,
    policies_of,
    policy_history,
    set_policy,
)
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import MAX_SUM_NANO

NOW_NS = 1_767_300_000 * 10**9
BOB, SALES = Subject(LimitScope.USER, "ada", "bob"), Subject(LimitScope.DEPT, "sales")
NEAREST = [BOB, Subject(LimitScope.USER, "ada", EACH), Subject(LimitScope.USER, EACH, "bob")]
NEAREST.append(Subject(LimitScope.USER, EACH, EACH))
"""Under which names a policy for Bob may be set, the nearest first, as docs/explanation/credits.md says."""

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def allow(
    database: Database, subject: Subject, limit: int, from_ns: int = NOW_NS, to_ns: int | None = None, tenant: int = 1
) -> int:
    terms, validity = Terms(day_limit_nano=limit), Validity(from_ns, to_ns)
    return database.transact(
        lambda connection: set_policy(connection, tenant, subject, terms, Authorship("a", "r"), NOW_NS, validity)
    )


def limit_of(database: Database, subject: Subject, at_ns: int = NOW_NS) -> int | None:
    with database.reading() as connection:
        found = policies_of(connection, 1, [subject, SALES], at_ns).get(subject)
        return None if found is None else found.terms.day_limit_nano


@pytest.mark.parametrize("nearest", range(4))
@pytest.mark.parametrize("backwards", [False, True])
def test_the_nearest_name_holds_whichever_was_set_first(database: Database, nearest: int, backwards: bool) -> None:
    names = list(enumerate(NEAREST))[nearest:]
    for number, subject in reversed(names) if backwards else names:
        allow(database, subject, number)
    # None of these is for Bob.
    for other in (SALES, Subject(LimitScope.USER, "ada", "eve"), Subject(LimitScope.USER, "joe", "bob")):
        allow(database, other, 99)
    assert limit_of(database, BOB) == nearest


def test_a_department_has_its_own_policy_or_that_of_each(database: Database) -> None:
    allow(database, Subject(LimitScope.DEPT, EACH), 5)
    allow(database, Subject(LimitScope.PROJECT, "sales"), 6)
    assert limit_of(database, SALES) == 5
    allow(database, SALES, 7)
    assert (limit_of(database, SALES), limit_of(database, Subject(LimitScope.DEPT, "law"))) == (7, 5)


@pytest.mark.parametrize(("after_ns", "limit"), [(0, 1), (9, 1), (10, 2), (19, 2), (20, 1)])
def test_a_version_holds_from_its_first_moment_and_not_at_its_last(
    database: Database, after_ns: int, limit: int
) -> None:
    allow(database, BOB, 1)
    allow(database, BOB, 2, NOW_NS + 10, NOW_NS + 20)
    assert limit_of(database, BOB, NOW_NS + after_ns) == limit
    with database.reading() as connection:
        (row,) = policies_in_force(connection, 1, NOW_NS + after_ns)
        assert row.day_limit_nano == limit
        assert limit_of(database, BOB, NOW_NS - 1) is None


def test_histories_are_of_one_policy_and_lists_of_one_tenant(database: Database) -> None:
    eve = BOB._replace(user_id="eve")
    first, of_eve, second = allow(database, BOB, 1), allow(database, eve, 2), allow(database, BOB, 3)
    other = allow(database, BOB, 4, tenant=2)
    allow(database, SALES, 5)
    with database.reading() as connection:
        assert [row.id for row in policy_history(connection, 1, BOB)] == [second, first]
        assert [row.id for row in policy_history(connection, 1, BOB, second)] == [first]
        assert [row.id for row in policy_history(connection, 1, BOB, None, 1)] == [second]
        assert [row.id for row in policy_history(connection, 1, eve)] == [of_eve]
        assert [row.id for row in policy_history(connection, 2, BOB)] == [other]
        holding = policies_in_force(connection, 1, NOW_NS)
        assert [row.day_limit_nano for row in holding] == [2, 3, 5]
        assert [row.id for row in policies_in_force(connection, 1, NOW_NS, of_eve, 1)] == [second]


@pytest.mark.parametrize("limit", [0, MAX_SUM_NANO])
def test_the_least_and_the_most_that_a_limit_may_be(database: Database, limit: int) -> None:
    allow(database, BOB, limit, NOW_NS, NOW_NS + 1)
    assert limit_of(database, BOB) == limit
    for wrong in (-1, MAX_SUM_NANO + 1):
        with pytest.raises(BadPolicy, match="must be 0 to"):
            allow(database, BOB, wrong)
