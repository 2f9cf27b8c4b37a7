"""Accounts of two tenants with the same logins and numbers, and texts in which a name may stand."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.access import people
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.privacy.erasure import may_name
from farebox_collector.model.credentials import Role
from farebox_collector.settings import Settings
from sqlalchemy import create_engine, literal, select

NOW_NS = 1_767_300_000 * 10**9

Run = Callable[..., Any]


@pytest.fixture
def run(new_books: Callable[[str, Path], str], tmp_path: Path) -> Iterator[Run]:
    """Does something in the books of a tenant, 1 or 2; both have Ada, Bob and Eve."""
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    other = database.transact(lambda connection: create_tenant(connection, "other", Decimal(1), NOW_NS))

    def run(work: Callable[..., Any], *arguments: Any, tenant: int = 1, **more: Any) -> Any:
        tenant_id = 1 if tenant == 1 else other
        return database.transact(lambda connection: work(connection, tenant_id, *arguments, **more))

    for tenant in (1, 2):
        for login in ("ada", "bob", "eve"):
            run(people.create_person, login, Role.VIEWER, NOW_NS, tenant=tenant, name=f"{login} of {tenant}")
    yield run
    database.close()


def test_an_account_is_found_by_number_and_login_in_its_tenant(run: Run) -> None:
    for tenant in (1, 2):
        found = [run(people.person_of, number, tenant=tenant) for number in (1, 2, 3)]
        assert [row.name for row in found] == [f"{login} of {tenant}" for login in ("ada", "bob", "eve")]
        assert run(people.person_by_login, " Bob ", tenant=tenant).name == f"bob of {tenant}"
        assert run(people.logins_of, tenant=tenant) == {1: "ada", 2: "bob", 3: "eve"}
    assert run(people.person_of, 4) is None
    assert run(people.person_by_login, "joe") is None
    with pytest.raises(people.NoSuchPerson, match="joe"):
        run(people.require_person, "joe")


def test_accounts_are_listed_by_number_page_by_page(run: Run) -> None:
    run(people.create_person, "joe", Role.VIEWER, NOW_NS, tenant=2)
    assert [row.login for row in run(people.people_of)] == ["ada", "bob", "eve"]
    assert [row.login for row in run(people.people_of, 1, 2, tenant=2)] == ["bob", "eve"]
    assert [row.number for row in run(people.people_of, 3, 2, tenant=2)] == [4]


@pytest.mark.parametrize(("login", "good"), [("a" * 200, True), ("a" * 201, False), ("", False), ("-a", False)])
def test_a_login_is_bounded_and_taken_once(run: Run, login: str, good: bool) -> None:
    if not good:
        with pytest.raises(people.BadPerson):
            run(people.create_person, login, Role.VIEWER, NOW_NS)
        return
    assert run(people.create_person, login, Role.VIEWER, NOW_NS) == 4
    with pytest.raises(people.PersonExists):
        run(people.create_person, login.upper(), Role.VIEWER, NOW_NS)
    assert run(people.create_person, login, Role.VIEWER, NOW_NS, tenant=2) == 4


def test_a_role_is_given_to_one_account_of_one_tenant(run: Run) -> None:
    run(people.set_role, "bob", Role.ADMIN, NOW_NS)
    roles = [[row.role for row in run(people.people_of, tenant=tenant)] for tenant in (1, 2)]
    assert roles == [["viewer", "admin", "viewer"], ["viewer"] * 3]


@pytest.mark.parametrize("name", ["zoë of sales", 'zoë\'s "quoted" name', "plain wallet", "ab"])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_text_may_have_a_name_in_it_however_json_writes_it(name: str, ascii_only: bool) -> None:
    texts = {name: True, json.dumps({"wallet": name}, ensure_ascii=ascii_only): True, "another": False}
    with create_engine("sqlite://").connect() as connection:
        for text, found in texts.items():
            assert bool(connection.execute(select(may_name(literal(text), name))).scalar()) is found
