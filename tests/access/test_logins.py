"""Logins and sessions: guesses are bounded, sessions end, and only the provider's own word lets a person in."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from farebox_collector.ledger.access import people, sessions
from farebox_collector.ledger.access.login_failures import (
    LOCK_NS,
    MOST_OF_ACCOUNT,
    MOST_OF_ADDRESS,
    WINDOW_NS,
    count_attempt,
    unlock,
)
from farebox_collector.ledger.access.refusals import Refusals
from farebox_collector.ledger.access.sessions import (
    Lifetime,
    Origin,
    SessionOver,
    find_session,
)
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.credentials import (
    SCOPES_OF,
    Caller,
    Role,
    Scope,
)
from farebox_collector.settings import Settings
from farebox_collector.surfaces.console.openid import Provider, ProviderRefused
from farebox_collector.surfaces.login_desk import LoginDesk, LoginRefused, role_of
from farebox_collector.surfaces.passwords import BadPassword, hash_password, is_password
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

NOW_NS = 1_780_000_000 * 10**9
HOUR_NS = 3600 * 10**9
PASSWORD = "correct horse battery"
HERE = Origin("password", "192.0.2.1", "a browser")
HASH = hash_password(PASSWORD)


class Desk:
    """A login desk with an account, and a clock that a test moves."""

    def __init__(self, database: Database) -> None:
        self.now_ns = NOW_NS
        self.database = database
        refusals = Refusals(database, lambda: self.now_ns)
        self.logins = LoginDesk(database, refusals, Lifetime(HOUR_NS, 12 * HOUR_NS), lambda: self.now_ns)
        with database.transaction() as connection:
            people.create_person(connection, 1, "ada", Role.FINANCE, NOW_NS, password_hash=HASH)

    def log_in(self, login: str = "ada", password: str = PASSWORD, address: str = "192.0.2.1") -> str:
        return self.logins.with_password("default", login, password, HERE._replace(address=address))

    def find(self, token: str) -> Caller:
        with self.database.reading() as connection:
            return find_session(connection, token, HOUR_NS, self.now_ns).caller


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_a_password_is_hashed_and_verified() -> None:
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hash_password(PASSWORD) != HASH
    assert is_password(HASH, PASSWORD)
    assert not is_password(HASH, PASSWORD + " ")
    assert not is_password("", PASSWORD)
    assert not is_password("not a hash", PASSWORD)
    assert not is_password(HASH, "x" * 1_000_000)
    for bad in ("short", "x" * 201, "aaaaaaaaaaaaaaaa"):
        with pytest.raises(BadPassword):
            hash_password(bad)


def test_a_login_makes_a_session_with_the_scopes_of_the_role(desk: Desk) -> None:
    caller = desk.find(desk.log_in(" ADA "))
    assert (caller.tenant_id, caller.login, caller.scopes) == (1, "ada", SCOPES_OF[Role.FINANCE])
    assert caller.may(Scope.WALLETS)
    assert not caller.may(Scope.PRICING)
    assert not caller.may(Scope.INGEST)
    with desk.database.transaction() as connection:
        people.set_role(connection, 1, "ada", Role.VIEWER, NOW_NS)
    first, second = desk.log_in(), desk.log_in()
    assert first != second
    assert not desk.find(first).may(Scope.WALLETS)


def test_sessions_end_by_idleness_by_age_and_by_hand(desk: Desk) -> None:
    idle, used, ended, disabled = (desk.log_in() for _ in range(4))
    desk.now_ns += HOUR_NS - 1
    for token in (idle, used):
        desk.find(token)
    with desk.database.transaction() as connection:
        sessions.touch(connection, 1, used.split("_")[2], desk.now_ns)
        sessions.end_session(connection, 1, ended.split("_")[2], desk.now_ns)
    with pytest.raises(SessionOver):
        desk.find(ended)
    desk.now_ns += 1
    with pytest.raises(SessionOver):
        desk.find(idle)
    desk.find(used)
    with desk.database.transaction() as connection:
        sessions.touch(connection, 1, used.split("_")[2], NOW_NS + 12 * HOUR_NS)
    desk.now_ns = NOW_NS + 12 * HOUR_NS
    with pytest.raises(SessionOver):
        desk.find(used)
    fresh = desk.log_in()
    with desk.database.transaction() as connection:
        people.set_disabled(connection, 1, "ada", desk.now_ns, disabled=True)
    for token in (fresh, disabled):
        with pytest.raises(SessionOver):
            desk.find(token)
    with pytest.raises(LoginRefused):
        desk.log_in()


@pytest.mark.parametrize("change", ["secret", "session", "tenant", "form"])
def test_a_forged_token_is_no_session(desk: Desk, change: str) -> None:
    token = desk.log_in()
    head, tenant, session, secret = token.split("_", 3)
    forged = {
        "secret": f"{head}_{tenant}_{session}_{'A' * 43}",
        "session": f"{head}_{tenant}_{'0' * 16}_{secret}",
        "tenant": f"{head}_2_{session}_{secret}",
        "form": token + "x",
    }[change]
    with pytest.raises(SessionOver):
        desk.find(forged)
    desk.find(token)


def test_the_books_keep_no_token_and_no_password(desk: Desk) -> None:
    token = desk.log_in()
    with desk.database.reading() as connection:
        kept = "".join(
            repr(connection.exec_driver_sql(f"SELECT * FROM {name}").all()) for name in ("sessions", "people")
        )
    assert token not in kept
    assert token.split("_", 3)[3] not in kept
    assert PASSWORD not in kept


def test_guesses_at_an_account_are_bounded_from_any_number_of_addresses(desk: Desk) -> None:
    for number in range(MOST_OF_ACCOUNT):
        with pytest.raises(LoginRefused) as refused:
            desk.log_in(password="a wrong password", address=f"192.0.2.{number}")
        assert not refused.value.retry_after_s
    with pytest.raises(LoginRefused) as refused:
        desk.log_in(address="198.51.100.1")
    assert refused.value.retry_after_s > 0, "also with the right password"
    desk.now_ns += LOCK_NS
    assert desk.log_in()


def test_an_admin_unlocks_an_account(desk: Desk) -> None:
    for _ in range(MOST_OF_ACCOUNT):
        with pytest.raises(LoginRefused):
            desk.log_in(password="a wrong password")
    with desk.database.transaction() as connection:
        unlock(connection, 1, "ada", desk.now_ns)
    assert desk.log_in()


def test_guesses_from_an_address_are_bounded_over_any_number_of_accounts(desk: Desk) -> None:
    for number in range(MOST_OF_ADDRESS):
        with pytest.raises(LoginRefused) as refused:
            desk.log_in(login=f"person{number}", address="2001:db8::1")
        assert not refused.value.retry_after_s
    for neighbour in ("2001:db8::1", "2001:db8::ffff"):
        with pytest.raises(LoginRefused) as refused:
            desk.log_in(address=neighbour)
        assert refused.value.retry_after_s > 0
    assert desk.log_in(address="2001:db8:0:1::1"), "another network is not held up"


def test_right_passwords_are_not_counted_and_old_failures_are_forgotten(desk: Desk) -> None:
    for _ in range(2 * MOST_OF_ADDRESS):
        desk.log_in()
    for _ in range(MOST_OF_ACCOUNT - 1):
        with pytest.raises(LoginRefused):
            desk.log_in(password="a wrong password")
    desk.now_ns += WINDOW_NS
    for _ in range(MOST_OF_ACCOUNT):
        with pytest.raises(LoginRefused) as refused:
            desk.log_in(password="a wrong password", address="192.0.2.99")
        assert not refused.value.retry_after_s


def test_guesses_at_once_do_not_pass_the_bound(desk: Desk) -> None:
    """Attempts are counted before a password is looked at."""
    passed: list[bool] = []

    def guess() -> None:
        until_ns = desk.database.transact(lambda connection: count_attempt(connection, 1, "ada", True, "", NOW_NS))
        passed.append(until_ns <= NOW_NS)

    threads = [threading.Thread(target=guess) for _ in range(3 * MOST_OF_ACCOUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == MOST_OF_ACCOUNT


def test_names_that_nobody_has_fill_no_table(desk: Desk) -> None:
    """Any number of logins shares 4,096 counters."""
    with desk.database.transaction() as connection:
        for number in range(100):
            count_attempt(connection, 1, f"missing{number}", False, f"198.51.{number}.1", NOW_NS)
        kept = connection.exec_driver_sql("SELECT subject FROM login_failures WHERE kind = 'account'").scalars().all()
    assert kept
    assert all(re.fullmatch(r"\?[0-9a-f]{3}", subject) for subject in kept)


def test_roles_follow_groups() -> None:
    roles = {"a": Role.VIEWER, "b": Role.ADMIN, "c": Role.PRICING}
    assert role_of(frozenset({"a", "c"}), roles) is Role.PRICING
    assert role_of(frozenset({"a", "b"}), roles) is Role.ADMIN
    assert role_of(frozenset({"d"}), roles) is None
    assert role_of(frozenset(), {"*": Role.VIEWER}) is Role.VIEWER
    stated = Settings(oidc_roles="a=viewer, b=c=admin,")
    assert stated.oidc_roles == {"a": Role.VIEWER, "b=c": Role.ADMIN}
    with pytest.raises(ValueError, match="group=role"):
        Settings(oidc_roles="a=emperor")


class FalseProvider:
    """A provider that answers with the ID token that a test made."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.key = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
        self.named = self.issuer
        self.token = ""

    def answer(self, path: str) -> Any:
        if path.endswith("openid-configuration"):
            places = {"authorization_endpoint": "a", "token_endpoint": "t", "jwks_uri": "j"}
            return {"issuer": self.named, **{name: f"{self.issuer}/{place}" for name, place in places.items()}}
        if path == "/j":
            return {"keys": [self.key.as_dict(private=False)]}
        return {"access_token": "x", "token_type": "Bearer", "id_token": self.token}

    def sign(self, nonce: str, key: Any = None, alg: str = "RS256", **changes: Any) -> None:
        now_s = int(time.time())
        claims = {"iss": self.issuer, "aud": "farebox", "sub": "s", "iat": now_s, "exp": now_s + 60, "nonce": nonce}
        claims |= {"email": "Ada@example.com", "groups": ["g"]} | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        self.token = jwt.encode({"alg": alg, "kid": "1"}, kept, key or self.key, algorithms=[alg])


@contextmanager
def serving() -> Iterator[FalseProvider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = FalseProvider(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def false() -> Iterator[FalseProvider]:
    with serving() as provider:
        yield provider


def come_back(false: FalseProvider, make: Any) -> Any:
    """Begin a login, let the provider make a token, and come back with the right state."""
    settings = Settings(oidc_issuer=false.issuer, oidc_client_id="farebox", oidc_client_secret="a secret of the client")
    provider = Provider(settings)
    begun = provider.begin("https://farebox.example/login/oidc/callback", "/console/")
    asked = dict(httpx2.URL(begun.url).params)
    make(asked["nonce"])
    query = f"code=c&state={asked['state']}"
    return provider.finish(query, begun.flow, "https://farebox.example/login/oidc/callback").claimed


def test_the_providers_word_is_taken(false: FalseProvider) -> None:
    claimed = come_back(false, false.sign)
    assert (claimed.identity.subject, claimed.login, claimed.groups) == ("s", "ada@example.com", frozenset({"g"}))
    # An unverified address identifies no person.
    unverified = come_back(false, lambda nonce: false.sign(nonce, email_verified=False, preferred_username="ada"))
    assert unverified.login == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "another client"},
        {"aud": ["farebox", "another client"], "azp": "another client"},
        {"nonce": "of another login"},
        {"nonce": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"sub": None},
        {"key": RSAKey.generate_key(2048, {"kid": "1"}, private=True)},
        {"key": OctKey.import_key("a secret of the client"), "alg": "HS256"},
    ],
)
def test_a_token_that_is_not_for_this_login_is_refused(false: FalseProvider, changes: dict[str, Any]) -> None:
    def make(nonce: str) -> None:
        false.sign(
            nonce=changes.get("nonce", nonce), **{name: value for name, value in changes.items() if name != "nonce"}
        )

    with pytest.raises(ProviderRefused):
        come_back(false, make)


def test_a_token_without_a_signature_is_refused(false: FalseProvider) -> None:
    def make(nonce: str) -> None:
        false.sign(nonce)
        _, payload, _ = false.token.split(".")
        false.token = f"eyJhbGciOiJub25lIn0.{payload}."

    with pytest.raises(ProviderRefused):
        come_back(false, make)


def test_a_provider_with_another_name_is_refused() -> None:
    with serving() as provider:
        provider.named = "https://evil.example"
        with pytest.raises(ProviderRefused, match="differs from FAREBOX_OIDC_ISSUER"):
            come_back(provider, provider.sign)
