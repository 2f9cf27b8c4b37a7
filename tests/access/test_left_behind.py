"""What is refused leaves an entry, and what a disabled person left behind is listed and revoked."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from access.conftest import House
from blank import blank_sqlite
from farebox_collector import assembly
from farebox_collector.ledger.access import keys, links, people
from farebox_collector.ledger.access.actors import Actor, acting_as
from farebox_collector.ledger.access.erased import NameErased
from farebox_collector.ledger.access.login_failures import MOST_OF_ACCOUNT
from farebox_collector.ledger.access.person_credentials import credentials_of, revoke_credentials
from farebox_collector.ledger.access.refusals import Refusals
from farebox_collector.ledger.access.sessions import Lifetime, Origin
from farebox_collector.ledger.credits import holds, policies
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.movements import NoSuchWallet
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.journal import low_balances
from farebox_collector.ledger.payments import auto_topups
from farebox_collector.ledger.privacy import erasure
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.credentials import Role, Scope, new_token
from farebox_collector.receivers.grpc import _address
from farebox_collector.settings import Settings
from farebox_collector.surfaces.login_desk import LoginDesk, LoginRefused
from harness import Collector, farebox, unary
from prometheus_client import CollectorRegistry
from spans import llm_span, protobuf_body
from sqlalchemy import select

NOW_NS = 1_790_000_000 * 10**9
DAY_NS = 86_400 * 10**9
STRANGER = new_token()


def test_refused_exports_are_in_the_audit_log(house: House) -> None:
    """Of an unknown key in the log of the installation; of a known key without the scope in its tenant's, by name."""
    made = house.ask("POST", "/v1/keys", json={"name": "reader", "scopes": ["read"]})
    body = protobuf_body([llm_span()])
    collector = house.collector
    for token in (STRANGER, made["key"]):
        headers = {"authorization": f"Bearer {token}", "content-type": "application/x-protobuf"}
        answer = httpx2.post(f"{collector.otlp_url}/v1/traces", content=body, headers=headers)
        assert answer.status_code == (401 if token == STRANGER else 403)
        with pytest.raises(grpc.RpcError):
            unary(collector.channel)(body, timeout=30, metadata=(("authorization", f"Bearer {token}"),))
    actors = ("unknown", f"key:{made['key_id']}")
    wanted = {(who, f"report usage over {port}") for who in actors for port in ("http", "grpc")}
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    ends = time.monotonic() + 20
    while set(entries) != wanted and time.monotonic() < ends:
        for entry in house.log(action="access", outcome="refused"):
            if entry["subject"].startswith("report usage"):
                entries[entry["actor"], entry["subject"]] = entry
    assert set(entries) == wanted
    assert {tuple(entry["after"]["addresses"]) for entry in entries.values()} == {("127.0.0.1",)}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[::1]:5", "::1"),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_read_as_grpc_writes_it(peer: str, address: str) -> None:
    assert _address(peer) == address


def test_refused_logins_are_counted_by_reason(database: Database) -> None:
    registry = CollectorRegistry()
    desk = LoginDesk(database, Refusals(database, lambda: NOW_NS), Lifetime(1, 1), lambda: NOW_NS, Meters(registry, 1))
    with database.transaction() as connection:
        people.create_person(connection, 1, "ada", Role.VIEWER, NOW_NS)
    for _ in range(MOST_OF_ACCOUNT + 3):
        with pytest.raises(LoginRefused):
            desk.with_password("default", "ada", "a wrong password", Origin("password", "192.0.2.1", ""))
    counted = {
        reason: registry.get_sample_value("farebox_refused_logins_total", {"reason": reason})
        for reason in ("wrong", "locked", "disabled", "no_role")
    }
    assert counted == {"wrong": float(MOST_OF_ACCOUNT), "locked": 3.0, "disabled": 0.0, "no_role": 0.0}


def erase(database: Database, name: str) -> None:
    """As far as the name is known to be erased."""
    with database.transaction() as connection:
        deposit(connection, 1, name, 10**9, f"paid {name}", NOW_NS)
    begun = database.transact(lambda connection: erasure.begin(connection, 1, name, NOW_NS))
    database.transact(lambda connection: erasure.rename(connection, begun, NOW_NS))


def test_no_door_lets_an_erased_name_in_again(database: Database) -> None:
    erase(database, "ada")
    whole, limit = (policies.Terms(hard_stop, 10**12, None, None, None) for hard_stop in (False, True))
    written = policies.Authorship("ada's friend", "why")
    hold = holds.HoldRequest("ada", 10**9, "held", "chat.reply", "", 60, "byron", "support")
    until_ns = NOW_NS + DAY_NS
    with database.transaction() as connection:
        # By this policy every wallet that is new may spend what it has not got.
        policies.set_policy(connection, 1, Subject(LimitScope.WALLET, "*"), whole, written, NOW_NS)
        with pytest.raises(NoSuchWallet, match="was erased"):
            deposit(connection, 1, "ada", 1, "again", NOW_NS)
        for subject in (Subject(LimitScope.WALLET, "ada"), Subject(LimitScope.USER, "ada", "byron")):
            with pytest.raises(policies.BadPolicy, match="was erased"):
                policies.set_policy(connection, 1, subject, limit, written, NOW_NS)
        with pytest.raises(low_balances.BadThreshold, match="was erased"):
            low_balances.set_thresholds(connection, 1, "ada", [1], "a", "b", NOW_NS)
        with pytest.raises(ValueError, match="was erased"):
            keys.create_key(connection, 1, "theirs", [Scope.READ], NOW_NS, wallet="ada")
        with pytest.raises(NameErased, match="was erased"):
            links.mint(connection, 1, "ada", "", until_ns, NOW_NS)
        terms = auto_topups.AutoTerms("ada", False, "p", 0, "usd", 0)
        with pytest.raises(auto_topups.BadAutoTopup, match="was erased"):
            auto_topups.set_auto_topup(connection, 1, terms, "a", "b", NOW_NS)
        refused, taken = holds.take_holds(
            connection, 1, [hold, hold._replace(wallet="grace", idempotency_key="hers")], NOW_NS
        )
        assert refused == holds.WalletErased()
        assert isinstance(taken, holds.Held)
        # A department of that name is no person.
        policies.set_policy(connection, 1, Subject(LimitScope.DEPT, "ada"), limit, written, NOW_NS)
        named = set(connection.execute(select(accounts.c.name).where(accounts.c.kind == "wallet")).scalars())
    assert "ada" not in named
    assert "grace" in named


def test_over_http_a_hold_on_an_erased_name_is_a_404(tmp_path: Path) -> None:
    url = blank_sqlite(tmp_path)
    with closing(assembly.open_books(Settings(database_url=url))) as database:
        erase(database, "ada")
    with closing(Collector(url, tmp_path / "log")) as collector:
        hold = {"wallet": "ada", "amount_credits": "1"}
        answers = [
            collector.api.post("/v1/holds", json=hold, headers={"Idempotency-Key": "one"}),
            collector.api.post("/v1/wallets/ada/links"),
        ]
        assert [(answer.status_code, "was erased" in answer.text) for answer in answers] == [(404, True)] * 2
        limit = {"scope": "wallet", "name": "ada", "day_credits": "1", "reason": "r"}
        assert collector.api.post("/v1/policies", json=limit).status_code == 422


def test_keys_and_links_of_a_person_are_listed_and_revoked_by_request_only(database: Database) -> None:
    with database.transaction() as connection:
        people.create_person(connection, 1, "ada", Role.ADMIN, NOW_NS)
        people.create_person(connection, 1, "grace", Role.ADMIN, NOW_NS)
        ada, grace = (people.require_person(connection, 1, login).number for login in ("ada", "grace"))
        of_ada, of_grace = (Actor(f"person:{number}", "", number) for number in (ada, grace))
        with acting_as(of_ada):
            mine = keys.create_key(connection, 1, "gateway", [Scope.INGEST], NOW_NS)
            over = keys.create_key(connection, 1, "old", [Scope.READ], NOW_NS, expires_at_ns=NOW_NS + 1)
            gone = keys.create_key(connection, 1, "gone", [Scope.READ], NOW_NS)
            keys.revoke_key(connection, 1, gone.key_id, NOW_NS)
        with acting_as(of_grace):
            hers = keys.create_key(connection, 1, "hers", [Scope.READ], NOW_NS)
        for minted_by in (f"person:{ada}", f"person:{ada}", f"person:{grace}"):
            links.mint(connection, 1, "w", minted_by, NOW_NS + DAY_NS, NOW_NS)
        links.mint(connection, 1, "w", f"person:{ada}", NOW_NS + 10**9, NOW_NS)
        at_ns = NOW_NS + 2 * 10**9
        people.set_disabled(connection, 1, "ada", at_ns, disabled=True)
        assert credentials_of(connection, 1, ada, at_ns) == ((mine.key_id,), 2)
        assert credentials_of(connection, 2, ada, at_ns) == ((), 0)
        assert revoke_credentials(connection, 1, ada, at_ns) == ((mine.key_id,), 2)
        assert credentials_of(connection, 1, ada, at_ns) == ((), 0)
        assert credentials_of(connection, 1, grace, at_ns) == ((hers.key_id,), 1)
        assert over.key_id != mine.key_id


def test_disabling_a_person_says_what_still_works(house: House) -> None:
    house.add("leaver", "admin")
    kept = house.ask("PATCH", "/v1/people/leaver", json={"disabled": True})
    assert (kept["disabled"], kept["working_keys"], kept["working_links"]) == (True, [], 0)
    with pytest.raises(httpx2.HTTPStatusError) as refused:
        house.ask("PATCH", "/v1/people/viewer", json={"revoke": True})
    assert refused.value.response.status_code == 422
    assert "not disabled" in refused.value.response.text
    assert house.ask("PATCH", "/v1/people/leaver", json={"revoke": True})["working_keys"] == []


def test_the_command_says_what_still_works_and_revokes_it(tmp_path: Path) -> None:
    url = blank_sqlite(tmp_path)
    with closing(assembly.open_books(Settings(database_url=url))) as database, database.transaction() as connection:
        people.create_person(connection, 1, "ada", Role.ADMIN, NOW_NS)
        number = people.require_person(connection, 1, "ada").number
        with acting_as(Actor("person:1", "", number)):
            made = keys.create_key(connection, 1, "gateway", [Scope.INGEST], NOW_NS)
    told = farebox("people", "disable", "ada", database_url=url).stdout
    assert "Still working" in told
    assert made.key_id in told
    assert (
        f"Revoked: keys {made.key_id}; links: 0."
        in farebox("people", "disable", "ada", "--revoke", database_url=url).stdout
    )
    listed = json.loads(farebox("keys", "list", "--json", database_url=url).stdout)
    assert [(key["person"], bool(key["revoked_at"])) for key in listed] == [(number, True)]
