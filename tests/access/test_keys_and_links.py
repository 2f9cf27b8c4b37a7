"""Keys and links of two tenants: who each token is, from when to when, and what one tenant does to its own alone."""

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.cache import keyring
from farebox_collector.cache.keyring import (
    REMEMBER_NS,
    Forbidden,
    KeyRing,
    TooManyUnknownKeys,
    Unauthenticated,
)
from farebox_collector.ledger.access import keys, links
from farebox_collector.ledger.access.actors import Actor, acting_as
from farebox_collector.ledger.access.links import NoSuchLink, Unverified
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.credentials import (
    Scope,
    new_token,
    read_link,
    sign_link,
)
from farebox_collector.settings import Settings

NOW_NS = 1_767_300_000 * 10**9
HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9
READ, ADMIN = [Scope.READ], [Scope.ADMIN]


class Desk:
    """Books of two tenants in which keys and links are made and read."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.other: int = database.transact(lambda connection: create_tenant(connection, "other", Decimal(1), NOW_NS))

    def run(self, work: Callable[..., Any], *arguments: Any, tenant_id: int = 1, **more: Any) -> Any:
        return self.database.transact(lambda connection: work(connection, tenant_id, *arguments, **more))

    def key(self, scopes: list[Scope] = ADMIN, *, tenant_id: int = 1, **more: Any) -> keys.Issued:
        made: keys.Issued = self.run(keys.create_key, "k", scopes, NOW_NS, tenant_id=tenant_id, **more)
        return made

    def link(self, minted_by: str = "", until_ns: int = NOW_NS + HOUR_NS, *, tenant_id: int = 1) -> links.Minted:
        made: links.Minted = self.run(links.mint, "ada", minted_by, until_ns, NOW_NS, tenant_id=tenant_id)
        return made

    def who(self, token: str, at_ns: int = NOW_NS) -> Any:
        """The caller that a token is; or why it is none."""
        link = read_link(token)
        with self.database.reading() as connection:
            try:
                if link is None:
                    return keys.verify_key(connection, token, at_ns).caller
                return links.verify_link(connection, token, link, at_ns).caller
            except Unverified as error:
                return str(error)


@pytest.fixture
def desk(new_books: Callable[[str, Path], str], tmp_path: Path) -> Iterator[Desk]:
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    yield Desk(database)
    database.close()


# ---- keys


def test_a_key_is_who_it_was_made_for_and_a_wrong_secret_is_nobody(desk: Desk) -> None:
    first = desk.key([Scope.INGEST, Scope.READ], person=7)
    other = desk.key(READ, tenant_id=desk.other, wallet="ada")
    caller = desk.who(first.token)
    assert (caller.tenant_id, caller.scopes, caller.wallet) == (1, {Scope.INGEST, Scope.READ}, "")
    assert (caller.key_id, caller.person) == (first.key_id, 7)
    assert desk.who(other.token)[:4] == (desk.other, {Scope.READ}, "ada", other.key_id)
    nearly = first.token[:-1] + ("A" if first.token[-1] != "A" else "B")
    swapped = first.token.replace(first.key_id, other.key_id)
    assert [desk.who(token) for token in (nearly, swapped, new_token(), "")] == ["unknown"] * 4


@pytest.mark.parametrize(("after_ns", "works"), [(-1, True), (0, False), (1, False)])
def test_a_key_works_until_the_moment_at_which_it_expires(desk: Desk, after_ns: int, works: bool) -> None:
    made = desk.key(expires_at_ns=NOW_NS + HOUR_NS)
    at_ns = NOW_NS + HOUR_NS + after_ns
    assert (desk.who(made.token, at_ns) != "expired") is works
    with desk.database.reading() as connection:
        assert keys.has_admin(connection, 1, at_ns) is works
    if not works:
        with pytest.raises(keys.NoActiveKey):
            desk.run(keys.rotate_key, made.key_id, at_ns, 0)


@pytest.mark.parametrize(
    ("scopes", "more", "why"),
    [
        ([], {}, "at least one scope"),
        ([Scope.READ, Scope.WALLETS], {"wallet": "ada"}, "the scope read only"),
        ([Scope.WALLETS], {"wallet": "ada"}, "the scope read only"),
        (READ, {"token": "fbx_short"}, "16 hexadecimal digits"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(desk: Desk, scopes: list[Scope], more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        desk.key(scopes, **more)
    assert desk.run(keys.keys_of) == []


def test_only_its_own_tenant_sees_rotates_and_revokes_a_key(desk: Desk) -> None:
    mine, other = desk.key(), desk.key(tenant_id=desk.other)
    for work, arguments in ((keys.rotate_key, (NOW_NS, 0)), (keys.revoke_key, (NOW_NS,))):
        with pytest.raises(keys.NoActiveKey):
            desk.run(work, mine.key_id, *arguments, tenant_id=desk.other)
    assert [row.key_id for row in desk.run(keys.keys_of, tenant_id=desk.other)] == [other.key_id]
    assert desk.run(keys.revoke_key, mine.key_id, NOW_NS)
    assert not desk.run(keys.revoke_key, mine.key_id, NOW_NS + 1)
    assert (desk.who(mine.token), desk.who(other.token).key_id) == ("revoked", other.key_id)
    with pytest.raises(keys.NoActiveKey):
        desk.run(keys.rotate_key, mine.key_id, NOW_NS, 0)
    with pytest.raises(keys.NoActiveKey):
        desk.run(keys.revoke_key, "0" * 16, NOW_NS)
    assert [desk.run(keys.has_admin, NOW_NS, tenant_id=tenant) for tenant in (1, desk.other)] == [False, True]


def test_keys_are_listed_in_order_page_by_page(desk: Desk) -> None:
    made = [desk.key(READ).key_id for _ in range(3)]
    first = desk.run(keys.keys_of, 0, 2)
    assert [row.key_id for row in first] == made[:2]
    assert [row.key_id for row in desk.run(keys.keys_of, first[-1].id, 2)] == made[2:]
    assert not hasattr(first[0], "secret_sha256")
    assert not desk.run(keys.has_admin, NOW_NS)


@pytest.mark.parametrize(
    ("expires_ns", "old_ends_ns"), [(None, HOUR_NS), (2 * HOUR_NS, HOUR_NS), (HOUR_NS, HOUR_NS), (10**9, 10**9)]
)
def test_a_successor_may_do_the_same_and_the_old_key_ends_soon(
    desk: Desk, expires_ns: int | None, old_ends_ns: int
) -> None:
    expires_at_ns = None if expires_ns is None else NOW_NS + expires_ns
    old = desk.key(READ, wallet="ada", person=7, expires_at_ns=expires_at_ns)
    link = desk.link(old.key_id)
    with acting_as(Actor("person:8", person=8)):
        new = desk.run(keys.rotate_key, old.key_id, NOW_NS, HOUR_NS)
    before, after = desk.run(keys.keys_of)
    assert (before.expires_at_ns, after.expires_at_ns) == (NOW_NS + old_ends_ns, expires_at_ns)
    assert desk.who(new.token) == desk.who(old.token)._replace(key_id=new.key_id)
    assert desk.who(new.token).person == 7
    desk.run(keys.revoke_key, old.key_id, NOW_NS)
    assert desk.who(link.token).wallet == "ada"
    desk.run(keys.revoke_key, new.key_id, NOW_NS)
    assert desk.who(link.token) == "revoked"


def test_the_last_use_of_a_key_never_goes_back(desk: Desk) -> None:
    one, two = desk.key(), desk.key()
    for used in ({one.key_id: 20}, {one.key_id: 10, two.key_id: 5}, {one.key_id: 30}):
        desk.database.transact(partial(keys.note_use, used_at_ns=used))
    assert [row.last_used_at_ns for row in desk.run(keys.keys_of)] == [30, 5]


# ---- links


def test_a_link_reads_its_wallet_until_the_second_in_which_it_expires(desk: Desk) -> None:
    made = desk.link(until_ns=NOW_NS + HOUR_NS + 999)
    assert made.expires_at_ns == NOW_NS + HOUR_NS
    caller = desk.who(made.token, made.expires_at_ns - 1)
    assert (caller.tenant_id, caller.scopes, caller.wallet) == (1, {Scope.READ}, "ada")
    assert caller.link_id == made.link_id
    assert desk.who(made.token, made.expires_at_ns) == "expired"


def test_a_link_needs_a_signature_of_its_tenants_secret(desk: Desk) -> None:
    link, other = read_link(desk.link().token), read_link(desk.link(tenant_id=desk.other).token)
    assert link is not None
    assert other is not None
    with desk.database.reading() as connection:
        _, secret = links._secret(connection, desk.other, NOW_NS)
    assert desk.who(sign_link(other, secret)).tenant_id == desk.other
    forged = (link, other._replace(tenant_id=1), other._replace(link_id=99), other._replace(secret_id=99))
    assert [desk.who(sign_link(one, secret)) for one in forged] == ["unknown"] * 4
    # One from before links had rows has four fields: nothing but the secret says that it stands.
    old: Any = other[:4]
    assert desk.who(sign_link(old, secret)).link_id == 0


@pytest.mark.parametrize("ending", ["link", "key", "minted", "all", "expired", "first key"])
def test_links_end_with_what_they_stand_on_and_those_of_others_do_not(desk: Desk, ending: str) -> None:
    loose = desk.link()
    if ending == "first key":
        desk.key()
        assert desk.who(loose.token) == "revoked"
        return
    key, second = desk.key(expires_at_ns=NOW_NS + DAY_NS), desk.key()
    desk.key(tenant_id=desk.other)
    link, same_key, by_second = desk.link(key.key_id), desk.link(key.key_id), desk.link(second.key_id)
    other = desk.link(key.key_id, tenant_id=desk.other)
    if ending == "link":
        with pytest.raises(NoSuchLink):
            desk.run(links.revoke_link, link.link_id, NOW_NS, tenant_id=desk.other)
        assert desk.who(link.token).link_id == link.link_id
        desk.run(links.revoke_link, link.link_id, NOW_NS)
    elif ending == "key":
        desk.run(keys.revoke_key, key.key_id, NOW_NS)
    elif ending == "minted":
        desk.run(links.revoke_minted_by, key.key_id, NOW_NS)
    elif ending == "all":
        desk.run(links.revoke_links, NOW_NS)
    else:
        desk.run(keys.rotate_key, second.key_id, NOW_NS, 0)  # Its links go over to the successor.
        with desk.database.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE api_keys SET expires_at_ns = {NOW_NS} WHERE key_id = '{key.key_id}'")
    stands = [desk.who(one.token) for one in (link, same_key, by_second, other)]
    why = "expired" if ending == "expired" else "revoked"
    ended = {"link": [0], "key": [0, 1], "minted": [0, 1], "all": [0, 1, 2], "expired": [0, 1]}[ending]
    assert [place for place, one in enumerate(stands) if one == why] == ended
    assert len([one for one in stands if not isinstance(one, str)]) == 4 - len(ended)


def test_a_link_lasts_no_longer_than_the_key_that_mints_it(desk: Desk) -> None:
    short, long = desk.key(expires_at_ns=NOW_NS + 60 * 10**9), desk.key(expires_at_ns=NOW_NS + DAY_NS)
    ends = [desk.link(key.key_id).expires_at_ns - NOW_NS for key in (short, long)]
    assert ends == [60 * 10**9, HOUR_NS]
    # A key of the same id in another tenant has no say.
    assert desk.link(short.key_id, tenant_id=desk.other).expires_at_ns == NOW_NS + HOUR_NS


def test_links_are_listed_newest_first_and_forgotten_a_month_after_their_end(desk: Desk) -> None:
    key = desk.key()
    made = [desk.link(minted_by).link_id for minted_by in (key.key_id, "", key.key_id)]
    desk.link(tenant_id=desk.other)
    assert [row.id for row in desk.run(links.links_of)] == made[::-1]
    assert [row.id for row in desk.run(links.links_of, key.key_id)] == [made[2], made[0]]
    assert [row.id for row in desk.run(links.links_of, "", made[2], 1)] == [made[1]]
    for late_ns, kept in ((0, 3), (1, 0)):
        at_ns = NOW_NS + HOUR_NS + 30 * DAY_NS + late_ns
        desk.run(links.mint, "ada", "new", at_ns + HOUR_NS, at_ns)
        assert len([row for row in desk.run(links.links_of) if row.minted_by != "new"]) == kept
    assert len(desk.run(links.links_of, tenant_id=desk.other)) == 1


# ---- remembered


class Clock:
    """A clock that tests move."""

    now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns


def ring_of(desk: Desk) -> tuple[KeyRing, Clock]:
    clock = Clock()
    return KeyRing(desk.database, clock), clock


def asked(ring: KeyRing, token: str | None, scope: Scope | None = None) -> str:
    """The key id of a caller; or why it is none."""
    try:
        return asyncio.run(ring.caller(token, scope)).key_id
    except Unauthenticated as error:
        return error.reason


@pytest.mark.parametrize(
    ("later_ns", "found"), [(0, True), (REMEMBER_NS - 1, True), (REMEMBER_NS, False), (-REMEMBER_NS, False)]
)
def test_a_revoked_key_works_for_less_than_a_second(desk: Desk, later_ns: int, found: bool) -> None:
    made, (ring, clock) = desk.key(), ring_of(desk)
    assert asked(ring, made.token) == made.key_id
    desk.run(keys.revoke_key, made.key_id, NOW_NS)
    clock.now_ns += later_ns
    assert asked(ring, made.token) == (made.key_id if found else "revoked")


def test_what_is_remembered_ends_when_the_key_does(desk: Desk) -> None:
    made, (ring, clock) = desk.key(expires_at_ns=NOW_NS + 10), ring_of(desk)
    assert asked(ring, made.token) == made.key_id
    clock.now_ns += 9
    assert asked(ring, made.token) == made.key_id
    clock.now_ns += 1
    assert asked(ring, made.token) == "expired"


def test_a_token_is_needed_from_the_first_key_on(desk: Desk) -> None:
    ring, _ = ring_of(desk)
    assert not ring.needs_keys()
    assert (asked(ring, None), asked(ring, "nonsense")) == ("", "")
    made = desk.key(READ)
    ring.note_first_key()
    assert ring.needs_keys()
    assert [asked(ring, token) for token in (None, "nonsense", new_token(), made.token)] == [
        "missing", "unknown", "unknown", made.key_id,
    ]  # fmt: skip
    with pytest.raises(Forbidden, match="wallets"):
        asked(ring, made.token, Scope.WALLETS)
    assert asked(ring, made.token, Scope.READ) == made.key_id


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "_MAX_REMEMBERED", 2)
    made, (ring, _) = [desk.key() for _ in range(3)], ring_of(desk)
    for one in made:
        asked(ring, one.token)
    for one in made:
        desk.run(keys.revoke_key, one.key_id, NOW_NS)
    assert len(ring._known) == 2
    assert [asked(ring, one.token) for one in made] == ["revoked", made[1].key_id, made[2].key_id]


def test_the_use_of_keys_is_written_down_once(desk: Desk) -> None:
    made, (ring, clock) = desk.key(), ring_of(desk)
    asked(ring, made.token)
    clock.now_ns += 5
    asked(ring, made.token)
    ring.note_use()
    assert desk.run(keys.keys_of)[0].last_used_at_ns == NOW_NS + 5
    assert ring._used == {}


def test_too_many_unknown_keys_are_told_to_come_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "_MOST_UNKNOWN", 2)
    made, (ring, _) = desk.key(), ring_of(desk)
    assert asked(ring, made.token) == made.key_id

    async def flood() -> list[Any]:
        tokens = [new_token() for _ in range(3)]
        return await asyncio.gather(*(ring.caller(token) for token in tokens), return_exceptions=True)

    answers = asyncio.run(flood())
    assert [type(one) for one in answers] == [
        Unauthenticated, Unauthenticated, TooManyUnknownKeys,
    ]  # fmt: skip
    assert asked(ring, new_token()) == "unknown"
