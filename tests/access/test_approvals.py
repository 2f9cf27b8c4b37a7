"""Two-person approval: what waits is done once, exactly as proposed, when a second person agrees."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest
from access.conftest import PASSWORD, House, log_in, new_house
from farebox_collector.ledger.access.actors import Actor, acting_as
from farebox_collector.ledger.access.audit_log import LogFilter, entries_of
from farebox_collector.ledger.approvals import proposals
from farebox_collector.ledger.approvals.changes import execute, movement_proposal
from farebox_collector.ledger.approvals.proposals import (
    CannotDecide,
    MustWait,
    NotPending,
    Policy,
    Proposal,
    ProposalKind,
)
from farebox_collector.ledger.credits.movements import Kind as MovementKind
from farebox_collector.ledger.credits.movements import Movement
from farebox_collector.ledger.journal.journal import balance, wallet_account
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.effective_times import AHEAD_NS
from farebox_collector.model.money import NANO
from playwright.sync_api import Browser, expect

NOW_NS = 1_780_000_000 * 10**9
ADA, BOB, EVE = (Actor(f"person:{number}", "", number, login) for number, login in ((1, "ada"), (2, "bob"), (3, "eve")))
ADAS_KEY = Actor("key:00000000000000aa", "", 1)
MACHINE = Actor("key:00000000000000bb")
GRANT = Movement(MovementKind.GRANT, "wallet", 100 * NANO)


def propose(database: Database, actor: Actor, key: str = "k", movement: Movement = GRANT) -> int:
    proposal = movement_proposal(movement, movement.amount_nanocredits, key)
    with database.transaction() as connection, acting_as(actor):
        return int(proposals.propose(connection, 1, proposal, NOW_NS).number)


def approve(database: Database, actor: Actor, number: int, at_ns: int = NOW_NS) -> str:
    with acting_as(actor):
        return str(
            database.transact(
                lambda connection: proposals.approve(
                    connection, 1, number, at_ns, lambda row: execute(connection, row, at_ns)
                )
            ).state
        )


def credits(database: Database) -> int:
    with database.reading() as connection:
        return balance(connection, 1, wallet_account("wallet")) // NANO


def actions(database: Database) -> list[tuple[str, str]]:
    with database.reading() as connection:
        found = entries_of(connection, 1, LogFilter(action="approval"))
        return [(entry.action.partition(".")[2], entry.actor) for entry in reversed(found)]


def test_by_default_nothing_waits(database: Database) -> None:
    with database.transaction() as connection, acting_as(ADA):
        for kind in ProposalKind:
            proposals.require_approval(connection, 1, Proposal(kind, "", {}, size_nanocredits=10**18))


@pytest.mark.parametrize(
    ("actor", "size", "waits"),
    [
        (ADA, 100, True),
        (ADA, 99, False),
        (MACHINE, 100, True),
        (Actor("cli:root"), 100, False),
        (Actor("local"), 100, True),
    ],
)
def test_a_threshold_is_reached_by_what_equals_it(database: Database, actor: Actor, size: int, waits: bool) -> None:
    with database.transaction() as connection, acting_as(actor):
        proposals.set_policy(connection, 1, Policy(100), "", "test", NOW_NS)
        proposal = Proposal(ProposalKind.MOVEMENT, "", {}, size_nanocredits=size)
        if waits:
            with pytest.raises(MustWait):
                proposals.require_approval(connection, 1, proposal)
        else:
            proposals.require_approval(connection, 1, proposal)


def test_the_proposer_cannot_approve_by_any_credential(database: Database) -> None:
    number = propose(database, ADA)
    for own in (ADA, ADAS_KEY, ADA._replace(name="key:00000000000000cc")):
        with pytest.raises(CannotDecide):
            approve(database, own, number)
    with pytest.raises(CannotDecide):
        approve(database, MACHINE, number)
    assert credits(database) == 0
    assert approve(database, BOB, number) == "executed"
    assert credits(database) == 100
    assert actions(database) == [("propose", "person:1"), ("approve", "person:2"), ("execute", "person:2")]


def test_what_a_persons_key_proposes_is_the_persons_own(database: Database) -> None:
    number = propose(database, ADAS_KEY)
    with pytest.raises(CannotDecide):
        approve(database, ADA, number)
    assert approve(database, BOB, number) == "executed"


def test_a_key_of_no_person_needs_two_persons(database: Database) -> None:
    """It may be in the hands of either of them."""
    number = propose(database, MACHINE)
    assert approve(database, ADA, number) == "pending"
    with pytest.raises(CannotDecide):
        approve(database, ADAS_KEY, number)
    assert credits(database) == 0
    assert approve(database, BOB, number) == "executed"
    assert credits(database) == 100


def test_it_is_done_once_whatever_the_number_that_approve_at_once(database: Database) -> None:
    number = propose(database, ADA)
    ended: list[str] = []

    def agree(person: int) -> None:
        try:
            ended.append(approve(database, Actor(f"person:{person}", "", person, ""), number))
        except NotPending:
            ended.append("late")

    threads = [threading.Thread(target=agree, args=(person,)) for person in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["executed", *["late"] * 5]
    assert credits(database) == 100


def test_what_cannot_be_done_still_waits_and_changes_nothing(database: Database) -> None:
    number = propose(database, ADA, movement=Movement(MovementKind.WITHDRAWAL, "wallet", NANO))
    with pytest.raises(Exception, match="less than that"):
        approve(database, BOB, number)
    with database.reading() as connection:
        assert proposals.approval(connection, 1, number).state == "pending"
        assert proposals.votes_of(connection, 1, [number]) == {number: []}


def test_proposals_expire_and_can_be_refused(database: Database) -> None:
    first, second = propose(database, ADA, "1"), propose(database, ADA, "2")
    with database.transaction() as connection, acting_as(BOB):
        assert proposals.refuse(connection, 1, first, "too much", NOW_NS).state == "refused"
    late = NOW_NS + 72 * 3600 * 10**9
    with pytest.raises(NotPending):
        approve(database, BOB, first)
    with pytest.raises(NotPending):
        approve(database, BOB, second, late)
    with database.transaction() as connection:
        assert proposals.expire(connection, late - 1) == 0
        assert proposals.expire(connection, late) == 1
    assert credits(database) == 0
    assert actions(database)[-2:] == [("refuse", "person:2"), ("expire", "system")]


def test_the_same_request_again_is_the_same_proposal(database: Database) -> None:
    number = propose(database, ADA)
    assert propose(database, ADA) == number
    with pytest.raises(proposals.ProposalConflict):
        propose(database, ADA, movement=GRANT._replace(amount_nanocredits=5))
    with database.transaction() as connection, acting_as(BOB):
        proposals.refuse(connection, 1, number, "", NOW_NS)
    with pytest.raises(proposals.ProposalConflict):
        propose(database, ADA)


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house where grants of 100 credits, prices and rules wait."""
    house = new_house(tmp_path_factory.mktemp("careful"))
    house.add("finance2", "finance")
    house.add("pricing2", "pricing")
    policy = {"movements_from_credits": "100", "prices": True, "rules": True, "reason": "two pairs of eyes"}
    house.ask("PUT", "/v1/approval-policy", json=policy)
    yield house
    assert house.collector.stop() == 0
    house.collector.audit()
    house.collector.close()


class Person:
    """A person with a session, who uses the API."""

    def __init__(self, house: House, login: str) -> None:
        self.client = house.collector.api
        page = self.client.get("/login")
        cookies = {"Cookie": "; ".join(part.partition(";")[0] for part in page.headers.get_list("set-cookie"))}
        csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        form = {"csrf": csrf, "login": login, "password": PASSWORD, "tenant": "default", "next": ""}
        entered = self.client.post("/login", data=form, headers=cookies)
        assert entered.status_code == 303, entered.text
        made = [part.partition(";")[0] for part in entered.headers.get_list("set-cookie")]
        self.headers = {"Cookie": next(cookie for cookie in made if cookie.startswith("__Host-farebox="))}
        self.headers["X-CSRF-Token"] = self.client.get("/v1/me", headers=self.headers).json()["csrf_token"]

    def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        return self.client.post(path, json=body, headers={**self.headers, **headers})


def test_grants_prices_and_rules_wait_over_http(careful: House) -> None:
    ada, bob = Person(careful, "finance"), Person(careful, "finance2")
    grant = {"type": "grant", "amount_credits": "100"}
    key = {"Idempotency-Key": "large"}
    assert ada.post("/v1/wallets/w/movements", {**grant, "amount_credits": "99"}, **key).status_code == 201
    key = {"Idempotency-Key": "larger"}
    waiting = ada.post("/v1/wallets/w/movements", grant, **key)
    assert (waiting.status_code, waiting.json()["state"]) == (202, "pending")
    again = ada.post("/v1/wallets/w/movements", grant, **key)
    assert again.json()["approval_id"] == waiting.json()["approval_id"]
    deposit = ada.post("/v1/wallets/w/deposits", {"amount_credits": "100"}, **{"Idempotency-Key": "deposit"})
    assert deposit.status_code == 202
    path = f"/v1/approvals/{waiting.json()['approval_id']}"
    assert ada.post(f"{path}/approve").status_code == 403
    assert Person(careful, "viewer").post(f"{path}/approve").status_code == 403
    assert Person(careful, "pricing").post(f"{path}/approve").status_code == 403
    assert careful.collector.api.post(f"{path}/approve", headers=bearer_of_admin()).status_code == 403, "no person"
    done = bob.post(f"{path}/approve").json()
    assert (done["state"], done["author"]) == ("executed", "finance")
    assert bob.post(f"{path}/approve").status_code == 409
    # The approved request is done now, and is answered like any repeated request.
    repeated = ada.post("/v1/wallets/w/movements", grant, **key)
    assert (repeated.status_code, repeated.json()["transaction_id"]) == (201, done["result"]["transaction_id"])
    assert careful.ask("GET", "/v1/wallets/w")["balance_credits"] == "199.000000000"

    carol, dave = Person(careful, "pricing"), Person(careful, "pricing2")
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input", "price_per_1k": "0.0025", "negotiated": True}
    rule = {"event": "e", "kind": "flat", "flat_credits": "1.5", "reason": "why"}
    for path, body in (("/v1/prices", price), ("/v1/rules", rule)):
        proposed = carol.post(path, body)
        assert proposed.status_code == 202, proposed.text
        assert carol.post(path, {**body, "currency" if "price" in path else "kind": "no"}).status_code == 422
        approval = f"/v1/approvals/{proposed.json()['approval_id']}"
        assert carol.post(f"{approval}/approve").status_code == 403
        assert dave.post(f"{approval}/approve").json()["state"] == "executed"
    (version,) = careful.ask("GET", "/v1/rules/history", params={"event": "e"})["items"]
    assert (version["flat_credits"], version["author"], version["reason"]) == ("1.5", "pricing", "why")
    time.sleep(AHEAD_NS / 10**9)  # A price from now on starts that much later.
    prices = careful.ask("GET", "/v1/prices", params={"provider": "openai", "model": "gpt-4o"})["items"]
    assert [row["usd_per_1k"] for row in prices if row["scope"] == "negotiated"] == ["0.0025"]
    # What waits cannot be loosened by one.
    loose = careful.collector.api.put("/v1/approval-policy", json={"reason": "no more"}, headers=bearer_of_admin())
    assert loose.status_code == 202
    kinds = {entry["action"] for entry in careful.log(action="approval", limit="100")}
    assert {"approval.propose", "approval.approve", "approval.execute", "approval.policy"} <= kinds


def test_a_proposal_is_what_is_done(careful: House) -> None:
    """Nothing that changes afterwards, such as the policy or the wallet, changes it; and its row has never changed."""
    ada, bob = Person(careful, "finance"), Person(careful, "finance2")
    body = {"type": "grant", "amount_credits": "123.456", "memo": "for x", "metadata": {"ticket": 7}}
    waiting = ada.post("/v1/wallets/exact/movements", body, **{"Idempotency-Key": "exact"}).json()
    done = bob.post(f"/v1/approvals/{waiting['approval_id']}/approve").json()
    assert done["proposal"] == waiting["proposal"]
    with closing(sqlite3.connect(f"file:{careful.collector.database}?mode=ro", uri=True)) as books:
        row = books.execute(
            "SELECT memo, metadata FROM transactions WHERE id = ?", (done["result"]["transaction_id"],)
        ).fetchone()
    assert row == ("for x", '{"ticket": 7}')
    assert careful.ask("GET", "/v1/wallets/exact")["balance_credits"] == "123.456000000"


@pytest.mark.timeout(90)
def test_a_second_person_approves_in_the_browser(careful: House, chromium: Browser) -> None:
    ada = Person(careful, "finance")
    body = {"type": "grant", "amount_credits": "250", "memo": "<i>goodwill</i>"}
    number = ada.post("/v1/wallets/page/movements", body, **{"Idempotency-Key": "page"}).json()["approval_id"]
    first, second = chromium.new_context(), chromium.new_context()
    own = first.new_page()
    log_in(own, careful, "finance")
    own.get_by_role("navigation").get_by_role("link", name="Approvals").click()
    expect(own.get_by_text("You proposed this").first).to_be_visible()
    expect(own.get_by_role("button", name=f"Approve {number}")).to_have_count(0)
    other = second.new_page()
    log_in(other, careful, "finance2")
    other.goto(careful.collector.api_url + "/console/approvals")
    expect(other.get_by_text("<i>goodwill</i>")).to_be_visible()
    other.get_by_role("button", name=f"Approve {number}", exact=True).click()
    card = other.get_by_role("region", name=f"{number} · grant of 250.000000000 credits")
    expect(card).to_contain_text("executed")
    expect(card).to_contain_text("finance2")
    assert careful.ask("GET", "/v1/wallets/page")["balance_credits"] == "250.000000000"
    first.close()
    second.close()


def bearer_of_admin() -> dict[str, str]:
    from access.conftest import ADMIN_KEY

    return {"Authorization": f"Bearer {ADMIN_KEY}"}
