"""Which holds are listed, and what a wallet remembers of the longest of its holds."""

import pytest
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.hold_release import HoldState, expire_holds, void_hold
from farebox_collector.ledger.credits.holds import (
    Held,
    HoldRequest,
    hold,
    holds_of,
    take_holds,
)
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts
from sqlalchemy import select

NOW_NS, SECOND_NS = 1_767_300_000 * 10**9, 10**9

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def take(database: Database, key: str, seconds: int, wallet: str = "ada") -> int:
    wanted = [HoldRequest(wallet, 10, key, "chat", "", seconds)]
    (held,) = database.transact(lambda connection: take_holds(connection, 1, wanted, NOW_NS))
    assert isinstance(held, Held), held
    return held.hold_id


@pytest.fixture
def made(database: Database) -> list[int]:
    """Holds of Ada that are open, open for a second, and voided; one of Bob."""
    with database.transaction() as connection:
        for wallet in ("ada", "bob"):
            deposit(connection, 1, wallet, 100, wallet, NOW_NS)
    ids = [take(database, "long", 60), take(database, "short", 1), take(database, "void", 60)]
    ids.append(take(database, "bob", 60, "bob"))
    database.transact(lambda connection: void_hold(connection, 1, ids[2], NOW_NS))
    return ids


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize(
    ("wallet", "state", "after_ns", "found"),
    [
        ("", "", 0, [3, 2, 1, 0]),
        ("ada", "", 0, [2, 1, 0]),
        ("bob", "", 0, [3]),
        ("", HoldState.VOIDED, 0, [2]),
        ("", HoldState.OPEN, SECOND_NS - 1, [3, 1, 0]),
        ("", HoldState.OPEN, SECOND_NS, [3, 0]),
        ("", HoldState.EXPIRED, SECOND_NS - 1, []),
        ("", HoldState.EXPIRED, SECOND_NS, [1]),
        ("bob", HoldState.EXPIRED, SECOND_NS, []),
        ("", HoldState.SETTLED, SECOND_NS, []),
    ],
)
def test_holds_are_listed_newest_first_by_what_they_are_at_that_moment(
    database: Database, made: list[int], wallet: str, state: str, after_ns: int, found: list[int], swept: bool
) -> None:
    at_ns = NOW_NS + after_ns
    if swept:
        database.transact(lambda connection: expire_holds(connection, at_ns))
    with database.reading() as connection:
        rows = holds_of(connection, 1, wallet, state, None, 9, at_ns)
        assert [row.id for row in rows] == [made[place] for place in found]
        assert not holds_of(connection, 2, wallet, state, None, 9, at_ns)


def test_lists_go_on_where_they_ended_and_without_a_moment_tell_what_is_stored(
    database: Database, made: list[int]
) -> None:
    with database.reading() as connection:
        assert [row.id for row in holds_of(connection, 1, "", "", made[3], 2)] == [made[2], made[1]]
        assert [row.id for row in holds_of(connection, 1, "", HoldState.OPEN, None, 9)] == [made[3], made[1], made[0]]
        found = hold(connection, 1, made[1])
        assert found is not None
        assert (found.idempotency_key, hold(connection, 2, made[1])) == ("short", None)


def test_a_voided_hold_stays_as_it_ended(database: Database, made: list[int]) -> None:
    for _ in range(2):
        row = database.transact(lambda connection: void_hold(connection, 1, made[2], NOW_NS + SECOND_NS))
        assert row is not None
        assert (row.state, row.ended_at_ns, row.open_nano) == (HoldState.VOIDED, NOW_NS, 0)
    assert database.transact(lambda connection: void_hold(connection, 2, made[0], NOW_NS)) is None
    with database.reading() as connection:
        held = select(accounts.c.held_nano).where(accounts.c.name == "ada", accounts.c.kind == "wallet")
        assert connection.execute(held).scalar_one() == 20


def test_a_wallet_remembers_when_the_last_of_its_holds_ends(database: Database, made: list[int]) -> None:
    with database.reading() as connection:
        until = select(accounts.c.holds_until_ns).where(accounts.c.kind == "wallet").order_by(accounts.c.name)
        assert list(connection.execute(until).scalars()) == [NOW_NS + 60 * SECOND_NS] * 2
