"""Sessions: until when each lasts, and whose they are. Two tenants with people of the same numbers."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.access import sessions
from farebox_collector.ledger.access.people import create_person, set_role
from farebox_collector.ledger.access.sessions import (
    KEPT_NS,
    NoSuchSession,
    Origin,
    SessionOver,
    is_session_token,
)
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.credentials import SCOPES_OF, Role
from farebox_collector.settings import Settings

NOW_NS = 1_767_300_000 * 10**9
IDLE_NS, WHOLE_NS = 100, 1_000
ORIGIN = Origin("password", "192.0.2.1", "Mozilla\n\x00")


class Hall:
    """Ada and Bob of one tenant, and their namesakes of another, who log in."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.other: int = database.transact(lambda connection: create_tenant(connection, "other", Decimal(1), NOW_NS))
        for tenant_id in (1, self.other):
            for login in ("ada", "bob"):
                self.run(create_person, login, Role.FINANCE, NOW_NS, tenant_id=tenant_id)

    def run(self, work: Callable[..., Any], *arguments: Any, tenant_id: int = 1, **more: Any) -> Any:
        return self.database.transact(lambda connection: work(connection, tenant_id, *arguments, **more))

    def enter(self, person: int = 1, *, tenant_id: int = 1, at_ns: int = NOW_NS) -> str:
        made: str = self.run(sessions.start_session, person, ORIGIN, at_ns, WHOLE_NS, tenant_id=tenant_id)
        return made

    def found(self, token: str, at_ns: int = NOW_NS) -> sessions.Found | None:
        with self.database.reading() as connection:
            try:
                return sessions.find_session(connection, token, IDLE_NS, at_ns)
            except SessionOver:
                return None

    def lasting(self, at_ns: int = NOW_NS, person: int | None = None, limit: int = 9, tenant_id: int = 1) -> list[str]:
        rows = self.run(sessions.sessions_of, IDLE_NS, at_ns, person, limit, tenant_id=tenant_id)
        return [row.session_id for row in rows]


@pytest.fixture
def hall(new_books: Callable[[str, Path], str], tmp_path: Path) -> Iterator[Hall]:
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    yield Hall(database)
    database.close()


def id_of(token: str) -> str:
    return token.split("_")[2]


def test_a_session_is_its_persons_with_the_scopes_of_the_role_by_now(hall: Hall) -> None:
    token, other = hall.enter(2), hall.enter(1, tenant_id=hall.other)
    found = hall.found(token)
    assert found is not None
    caller = found.caller
    assert (caller.tenant_id, caller.person, caller.login, caller.session_id) == (1, 2, "bob", id_of(token))
    assert (caller.scopes, caller.wallet, caller.key_id) == (SCOPES_OF[Role.FINANCE], "", "")
    assert (found.name, found.role, found.expires_at_ns) == ("bob", Role.FINANCE, NOW_NS + WHOLE_NS)
    hall.run(set_role, "bob", Role.VIEWER, NOW_NS)
    found, stranger = hall.found(token), hall.found(other)
    assert found is not None
    assert stranger is not None
    assert found.caller.scopes == SCOPES_OF[Role.VIEWER]
    assert (stranger.caller.tenant_id, stranger.caller.login, stranger.role) == (hall.other, "ada", Role.FINANCE)
    assert not is_session_token(token + "A")
    assert is_session_token(token)
    swapped = token.replace("fbs_1_", f"fbs_{hall.other}_")
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert [hall.found(one) for one in (swapped, wrong, "", "fbs_" + "9" * 18 + token[5:])] == [None] * 4


@pytest.mark.parametrize("used_ns", [0, 950])
def test_a_session_ends_by_idleness_and_by_age_at_the_very_moment(hall: Hall, used_ns: int) -> None:
    token = hall.enter()
    for moment in (used_ns, used_ns - 1):  # An older use does not go back.
        hall.run(sessions.touch, id_of(token), NOW_NS + moment)
    ends_ns = NOW_NS + min(used_ns + IDLE_NS, WHOLE_NS)
    for at_ns, lasts in ((ends_ns - 1, True), (ends_ns, False)):
        assert (hall.found(token, at_ns) is not None) is lasts
        assert hall.lasting(at_ns) == ([id_of(token)] if lasts else [])


def test_a_use_is_noted_of_one_session_of_one_tenant(hall: Hall) -> None:
    tokens = hall.enter(), hall.enter(), hall.enter(tenant_id=hall.other)
    hall.run(sessions.touch, id_of(tokens[0]), NOW_NS + 50)
    hall.run(sessions.touch, id_of(tokens[2]), NOW_NS + 50)  # That of the other tenant.
    assert [hall.found(token, NOW_NS + IDLE_NS) is not None for token in tokens] == [True, False, False]


def test_a_session_is_ended_by_its_person_its_tenant_or_with_its_account(hall: Hall) -> None:
    token = hall.enter(1)
    for more in ({"of_person": 2}, {"tenant_id": hall.other}):
        with pytest.raises(NoSuchSession):
            hall.run(sessions.end_session, id_of(token), NOW_NS, **more)
    assert hall.found(token)
    hall.run(sessions.end_session, id_of(token), NOW_NS, of_person=1)
    hall.run(sessions.end_session, id_of(token), NOW_NS + 1)
    assert hall.found(token) is None
    assert hall.lasting() == []
    token = hall.enter(2)
    with hall.database.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE people SET disabled_at_ns = {NOW_NS} WHERE number = 2 AND tenant_id = 1")
    assert hall.found(token) is None


def test_all_sessions_of_one_person_end_together(hall: Hall) -> None:
    first, second, bob, namesake = hall.enter(1), hall.enter(1), hall.enter(2), hall.enter(1, tenant_id=hall.other)
    hall.run(sessions.end_session, id_of(first), NOW_NS)
    assert hall.run(sessions.end_sessions_of, 1, NOW_NS) == 1
    assert hall.run(sessions.end_sessions_of, 1, NOW_NS) == 0
    assert [hall.found(token) is not None for token in (first, second, bob, namesake)] == [False, False, True, True]


def test_sessions_are_listed_newest_first_of_one_tenant(hall: Hall) -> None:
    old, new, bob = hall.enter(at_ns=NOW_NS - 2), hall.enter(at_ns=NOW_NS - 1), hall.enter(2)
    other = hall.enter(tenant_id=hall.other)
    assert hall.lasting() == [id_of(token) for token in (bob, new, old)]
    assert (hall.lasting(limit=1), hall.lasting(person=1)) == ([id_of(bob)], [id_of(new), id_of(old)])
    assert hall.lasting(tenant_id=hall.other) == [id_of(other)]
    (row,) = hall.run(sessions.sessions_of, IDLE_NS, NOW_NS, 2)
    assert (row.login, row.method, row.address, row.user_agent) == ("bob", "password", "192.0.2.1", "Mozilla  ")


@pytest.mark.parametrize(("late_ns", "kept"), [(0, 1), (1, 0)])
def test_sessions_that_were_over_long_ago_are_forgotten(hall: Hall, late_ns: int, kept: int) -> None:
    hall.enter()
    at_ns = NOW_NS + WHOLE_NS + KEPT_NS + late_ns
    hall.database.transact(lambda connection: sessions.purge_sessions(connection, at_ns))
    with hall.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar_one() == kept
