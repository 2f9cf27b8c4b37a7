"""Signed links: who may mint one, how long it works, and every way in which it ends."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import (
    Link,
    new_token,
    read_link,
    sign_link,
)
from harness import Collector
from hypothesis import example, given, settings
from hypothesis import strategies as st

ADMIN = new_token()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("links")), bootstrap_key=ADMIN, link_max_days=30)
    for wallet in ("ada", "bob"):
        headers = {"Authorization": f"Bearer {ADMIN}", "Idempotency-Key": wallet}
        paid = collector.api.post(f"/v1/wallets/{wallet}/deposits", headers=headers, json={"amount_credits": "5"})
        assert paid.status_code == 201
    yield collector
    assert collector.stop() == 0
    collector.close()


def ask(collector: Collector, method: str, path: str, token: str = ADMIN, **options: Any) -> httpx2.Response:
    return collector.api.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)


def make_key(collector: Collector, *scopes: str, **fields: Any) -> str:
    made = ask(collector, "POST", "/v1/keys", json={"name": "minter", "scopes": scopes, **fields})
    return str(made.raise_for_status().json()["key"])


def mint(collector: Collector, token: str = ADMIN, wallet: str = "ada", **query: Any) -> dict[str, Any]:
    response = ask(collector, "POST", f"/v1/wallets/{wallet}/links", token, params=query)
    assert response.status_code == 201, response.text
    return dict(response.json())


def works(collector: Collector, token: str) -> bool:
    return bool(collector.api.get("/v1/wallets/ada", params={"token": token}).status_code == 200)


def ends(collector: Collector, token: str) -> bool:
    """Whether it works no more within the second for which it is remembered; each try is a request."""
    return any(not works(collector, token) for _ in range(5_000))


def key_id(token: str) -> str:
    return token.split("_")[1]


def test_who_may_only_move_credits_or_only_read_mints_no_link(guarded: Collector) -> None:
    for scopes in (["wallets"], ["read"], ["ingest", "wallets"], ["ingest", "read"], ["alerts"]):
        token = make_key(guarded, *scopes)
        response = ask(guarded, "POST", "/v1/wallets/ada/links", token)
        assert response.status_code == 403, scopes
    for scopes in (["admin"], ["read", "wallets"]):
        assert works(guarded, mint(guarded, make_key(guarded, *scopes))["token"])


def test_a_link_lasts_no_longer_than_is_set(guarded: Collector) -> None:
    refused = ask(guarded, "POST", "/v1/wallets/ada/links", params={"days": 31})
    assert refused.status_code == 422
    assert "at most 30" in refused.json()["detail"]
    assert ask(guarded, "POST", "/v1/wallets/ada/links", params={"days": 30}).status_code == 201


def test_a_link_ends_with_the_key_that_minted_it(guarded: Collector) -> None:
    minter = make_key(guarded, "read", "wallets")
    link, of_other = mint(guarded, minter), mint(guarded)
    assert works(guarded, link["token"])
    assert ask(guarded, "DELETE", f"/v1/keys/{key_id(minter)}").status_code == 204
    assert ends(guarded, link["token"])
    assert works(guarded, of_other["token"])


def test_a_link_expires_with_its_key_at_the_latest(guarded: Collector) -> None:
    minter = make_key(guarded, "admin", expires_at="2099-01-01T00:00:00Z")
    soon = ask(guarded, "POST", f"/v1/keys/{key_id(minter)}/rotate", json={"overlap_hours": 1})
    assert soon.status_code == 201
    link = mint(guarded, minter, days=30)
    listed = ask(guarded, "GET", "/v1/keys", params={"limit": 1000}).json()["items"]
    (key,) = [key for key in listed if key["key_id"] == key_id(minter)]
    assert link["expires_at"][:19] == key["expires_at"][:19]


def test_links_of_a_rotated_key_go_on_with_its_successor(guarded: Collector) -> None:
    minter = make_key(guarded, "admin")
    link = mint(guarded, minter)
    rotated = ask(guarded, "POST", f"/v1/keys/{key_id(minter)}/rotate", json={"overlap_hours": 0}).json()
    assert any(ask(guarded, "GET", "/v1/usage", minter).status_code == 401 for _ in range(5_000))
    assert works(guarded, link["token"])
    assert ask(guarded, "DELETE", f"/v1/keys/{rotated['key_id']}").status_code == 204
    assert ends(guarded, link["token"])


def test_one_link_or_all_of_a_minter_can_be_revoked(guarded: Collector) -> None:
    minter = make_key(guarded, "admin")
    first, second, third, of_other = (
        mint(guarded, minter),
        mint(guarded, minter),
        mint(guarded, minter, wallet="bob"),
        mint(guarded),
    )
    listed = ask(guarded, "GET", "/v1/links", params={"minted_by": key_id(minter)}).json()["items"]
    assert [link["link_id"] for link in listed] == [third["link_id"], second["link_id"], first["link_id"]]
    assert [link["wallet"] for link in listed] == ["bob", "ada", "ada"]
    assert first["token"] not in json.dumps(listed)

    assert ask(guarded, "DELETE", f"/v1/links/{first['link_id']}").status_code == 204
    assert ends(guarded, first["token"])
    assert works(guarded, second["token"])

    assert ask(guarded, "DELETE", "/v1/links", params={"minted_by": key_id(minter)}).status_code == 204
    assert ends(guarded, second["token"])
    assert works(guarded, of_other["token"])

    for missing in (10**9, 2**70):
        assert ask(guarded, "DELETE", f"/v1/links/{missing}").status_code == 404


def test_links_of_another_tenant_cannot_be_listed_or_revoked(guarded: Collector) -> None:
    assert ask(guarded, "POST", "/v1/tenants", json={"tenant": "neighbour"}).status_code == 201
    neighbour = make_key(guarded, "admin", tenant="neighbour")
    link = mint(guarded)
    assert ask(guarded, "GET", "/v1/links", neighbour).json()["items"] == []
    assert ask(guarded, "DELETE", f"/v1/links/{link['link_id']}", neighbour).status_code == 404
    assert ask(guarded, "DELETE", "/v1/links", neighbour).status_code == 204
    assert works(guarded, link["token"])


def test_a_link_from_before_the_first_key_ends_with_it(collector: Collector) -> None:
    paid = collector.api.post(
        "/v1/wallets/ada/deposits", headers={"Idempotency-Key": "1"}, json={"amount_credits": "1"}
    )
    assert paid.status_code == 201
    before = collector.api.post("/v1/wallets/ada/links").json()["token"]
    admin = collector.api.post("/v1/keys", json={"name": "first", "scopes": ["admin"]}).json()["key"]
    # At once, not a second later: the very next requests.
    assert collector.api.get("/v1/wallets").status_code == 401
    assert collector.api.get("/v1/wallets/ada", params={"token": before}).status_code == 401
    after = ask(collector, "POST", "/v1/wallets/ada/links", admin).json()["token"]
    assert collector.api.get("/v1/wallets/ada", params={"token": after}).status_code == 200


# ---- texts that look like links

_FIELDS = st.lists(
    st.one_of(st.integers(), st.text(max_size=5), st.none(), st.booleans(), st.floats(), st.lists(st.integers())),
    max_size=7,
)


@given(fields=st.one_of(_FIELDS, st.dictionaries(st.text(max_size=3), st.integers()), st.integers(), st.text()))
@example(fields=[1, 1, "ada"])
@example(fields=[1, 1, "ada", 0])
@example(fields=[1, 1, "ada", 2**62])
@example(fields=[1, 1, "ada", 2**61])
@example(fields=[2**62, 1, "ada", 1])
@example(fields=[1, -1, "ada", 1])
@example(fields=[1, 1, "ada", 1, 0])
@example(fields=[1, 1, "ada", 1, 2**63])
@example(fields=[1, 1, "ada", 4_000_000_000, 10**6])
@example(fields=[True, 1, "ada", 1])
@example(fields=[1, 1, ["ada"], 1])
@example(fields={"tenant_id": 1})
@example(fields=None)
@settings(max_examples=60, deadline=None)
def test_an_unsigned_link_of_any_content_is_not_known(guarded: Collector, fields: Any) -> None:
    forged = sign_link(fields, b"a secret of my own")
    for options in ({"params": {"token": forged}}, {"headers": {"X-API-Key": forged}}):
        response = guarded.api.get("/v1/wallets/ada", **options)  # type: ignore[arg-type]
        assert response.status_code == 401, (fields, response.text)


@given(
    token=st.one_of(
        st.from_regex(re.compile(r"fbl_[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{43}", re.ASCII), fullmatch=True),
        st.text(max_size=100).map("fbl_".__add__),
        st.binary(max_size=60).map(lambda data: "fbl_" + data.hex() + "." + "A" * 43),
    )
)
@example(token="fbl_" + "A" * 5_000 + "." + "A" * 43)
@example(token="fbl_gA." + "A" * 43)
@example(token="fbl_" + "W" * 3_999 + "." + "A" * 43)
@settings(max_examples=100, deadline=None)
def test_no_text_that_looks_like_a_link_is_an_error_of_ours(guarded: Collector, token: str) -> None:
    response = guarded.api.get("/v1/wallets/ada", params={"token": token})
    assert response.status_code == 401, (token, response.text)


def test_a_link_reads_back_as_it_was_made_with_and_without_its_row() -> None:
    for link in (Link(1, 2, "ada", 3), Link(1, 2, "an/other wallet", 2**61, 5)):
        fields = link if link.link_id else link[:4]
        assert read_link(sign_link(fields, b"secret")) == link  # type: ignore[arg-type]
    assert read_link(sign_link([1, 2, "ada", 3, 4, 5], b"secret")) is None  # type: ignore[arg-type]
